"""The page on two runs of a task side by side."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from airflow.utils.session import create_session

from clip_operator.proof.manifest import Histograms
from clip_operator.report.samples import Samples
from clip_operator.web.comparison import rows_of_both, statistics
from clip_operator.web.evaluations import NothingToShow, TaskInstance, evaluation_of, stored_xcom
from clip_operator.web.overlay import Bins, Overlay, overlay
from clip_operator.web.pages import comparison_page
from clip_operator.web.runs import read_runs
from clip_operator.web.xcoms import plain_value

_Written = tuple[Histograms | None, Samples | None]


def two_runs_page(before: TaskInstance, after: TaskInstance) -> str:
    """Return the page on what became better and worse, by the task instances' own summaries, and, as far as it still
    stands in the store, by what they have written.

    :raises NothingToShow: one of them has no summary.
    """
    both = (before, after)
    summaries = [_summary(each) for each in both]
    written = [_written(each) for each in both]
    models = [str(each.get("model")) for each in summaries]
    return comparison_page(
        before,
        after,
        read_runs(before.dag_id),
        models=models if models[0] != models[1] else None,
        statistics=statistics(*summaries),
        drawings=_drawings(*(each and each[0] for each in written)),
        rows=rows_of_both(*(each and each[1] for each in written)),
        missing=[name for name, each in zip(("before", "after"), written, strict=True) if each is None],
    )


def _summary(instance: TaskInstance) -> Mapping[str, Any]:
    with create_session(scoped=False) as session:
        stored = stored_xcom(session, instance, "summary")
    summary = None if stored is None else plain_value(stored)
    if isinstance(summary, Mapping) and isinstance(summary.get("rows"), Mapping):
        return summary
    raise NothingToShow(
        "There are no two runs to compare",
        f"The run {instance.run_id} has no CLIP scores of this task. Choose two runs from the page of all runs.",
    )


def _written(instance: TaskInstance) -> _Written | None:
    """Return the histograms and the samples of a task instance, or None if its manifest cannot be shown."""
    with suppress(NothingToShow), evaluation_of(instance) as found:
        calibration = found.manifest.calibration
        return None if calibration is None else calibration.histograms, found.samples()
    return None


def _drawings(before: Histograms | None, after: Histograms | None) -> list[tuple[str, Overlay]]:
    if before is None or after is None:
        return []
    titles = {"Rows, by their scores": "matched", "Mismatched pairs, by their scores": "mismatched"}
    drawn = [
        (title, overlay(*(Bins(getattr(each, kind), each.start, each.bin_width) for each in (before, after))))
        for title, kind in titles.items()
    ]
    return [(title, drawing) for title, drawing in drawn if drawing is not None]
