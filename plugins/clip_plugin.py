"""Hands Airflow the plugin where this folder is its plugins folder; .airflowignore keeps the package from it."""

from clip_operator.plugin import ClipScoresPlugin

__all__ = ["ClipScoresPlugin"]
