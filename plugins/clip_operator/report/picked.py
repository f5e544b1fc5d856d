"""What is picked of an output's rows for people: samples with pictures, and a longer list of the worst rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clip_operator.report.samples import MOST_FAILURES, MOST_PAIRS, Sample, Samples, read_samples
from clip_operator.report.worst_rows import MOST_WORST_ROWS, read_worst_rows
from clip_operator.storage import Storage


@dataclass(frozen=True)
class PickedRows:
    """Rows of one output.

    :param samples: those that the report shows.
    :param worst: the :data:`MOST_WORST_ROWS` with the lowest scores, the lowest first.
    """

    samples: Samples
    worst: Sequence[Sample]


def read_picked(storage: Storage, output: str) -> PickedRows:
    """Return what was picked of an output's rows; nothing of what cannot be read."""
    return PickedRows(read_samples(storage, output) or Samples(), read_worst_rows(storage, output) or ())


def merged(parts: Iterable[tuple[PickedRows, int]]) -> PickedRows:
    """Return what is picked of a whole output's rows, from that of its shards, given in the order of their rows.

    :param parts: each with how many rows are to be added to the numbers of its rows.
    """
    best: list[Sample] = []
    worst: list[Sample] = []
    listed: list[Sample] = []
    failures: defaultdict[str, list[Sample]] = defaultdict(list)
    for picked, rows_before in parts:
        samples = picked.samples
        # Sorting is stable: of equal scores, the earlier row stays in front.
        best = sorted(best + _moved(samples.best, rows_before), key=lambda sample: -(sample.score or 0))[:MOST_PAIRS]
        worst = _lowest(worst + _moved(samples.worst, rows_before))[:MOST_PAIRS]
        listed = _lowest(listed + _moved(picked.worst, rows_before))[:MOST_WORST_ROWS]
        for reason, failed in samples.failures.items():
            failures[reason] = (failures[reason] + _moved(failed, rows_before))[:MOST_FAILURES]
    return PickedRows(Samples(best=best, worst=worst, failures=dict(sorted(failures.items()))), listed)


def _lowest(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: sample.score or 0)


def _moved(samples: Sequence[Sample], rows: int) -> list[Sample]:
    """Return samples with the numbers that their rows have with so many rows before."""
    return [
        sample if sample.row is None or not rows else sample.model_copy(update={"row": sample.row + rows})
        for sample in samples
    ]
