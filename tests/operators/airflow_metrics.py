"""Airflow's metrics, set up as a worker does when it starts. Each version has a way of its own."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

from airflow.providers.common.compat.sdk import Stats

_AIRFLOW = tuple(map(int, version("apache-airflow-core").split(".")[:2]))


def set_up_metrics() -> None:
    """Have Airflow read its settings of metrics anew."""
    stats: Any = Stats
    if _AIRFLOW < (3, 2):
        stats.instance = None
        del type(stats).factory
        type(stats).__init__(stats)
        return
    get_stats_factory = import_module("airflow.sdk.observability.metrics.stats_utils").get_stats_factory
    if _AIRFLOW < (3, 3):
        stats.initialize(factory=get_stats_factory(stats))
    else:
        import_module("airflow.sdk.observability.stats").initialize(
            factory=get_stats_factory(), export_legacy_names=True
        )
