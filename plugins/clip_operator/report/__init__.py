"""A manifest and samples → a page that a person reads. Knows nothing of how they were made."""

from clip_operator.report.page import render
from clip_operator.report.publishing import publish_report

__all__ = ["publish_report", "render"]
