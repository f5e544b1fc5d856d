"""The pages in Airflow's UI. Imported by the API server alone."""

from clip_operator.web.app import app

__all__ = ["app"]
