"""Hands Airflow the plugin where this folder is its plugins folder; .airflowignore keeps the package from it."""

from importlib.metadata import entry_points

# A package that is installed hands it over by its entry point, and Airflow reports what comes twice as an error.
if not entry_points(group="airflow.plugins", name="clip_scores"):
    from clip_operator.plugin import ClipScoresPlugin as ClipScoresPlugin
