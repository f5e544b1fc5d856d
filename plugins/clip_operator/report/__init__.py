"""A manifest and samples → a page that a person reads. Knows nothing of how they were made."""

from clip_operator.report.page import render
from clip_operator.report.publishing import page_beside, publish_report

__all__ = ["page_beside", "publish_report", "render"]
