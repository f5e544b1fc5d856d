"""How an input is divided among shards: neighbouring spans, put together until they are enough for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from clip_operator.tables import Span

Weight = Callable[[Span], float]


def at_multiples(spans: Sequence[Span], rows: int) -> list[Span]:
    """Return the spans put together so that each begins at a multiple of so many rows; as they are where none knows."""
    if any(span.first_row is None for span in spans):
        return list(spans)
    return list(_joined(spans, [*(n for n, span in enumerate(spans) if (span.first_row or 0) % rows == 0), len(spans)]))


def into(spans: Sequence[Span], shards: int, weight: Weight) -> list[Span]:
    """Return at most so many shards of about equal weight; fewer where there are not as many spans."""
    total = sum(map(weight, spans))
    bounds, passed, taken = [0], 0.0, 0
    for index, span in enumerate(spans):
        left, wanted = len(spans) - index, min(shards, len(spans)) - len(bounds)
        # Cut where the half of this span's weight passes the bound, and while there are spans for all to come.
        passes = passed + weight(span) / 2 >= total * len(bounds) / shards
        if index > taken and wanted > 0 and (passes or left <= wanted):
            bounds.append(index)
            taken = index
        passed += weight(span)
    return list(_joined(spans, [*bounds, len(spans)]))


def of_size(spans: Sequence[Span], most: float, weight: Weight) -> list[Span]:
    """Return shards that weigh at most so much, but for single spans that weigh more by themselves."""
    bounds, held = [0], 0.0
    for index, span in enumerate(spans):
        if index > bounds[-1] and held + weight(span) > most:
            bounds.append(index)
            held = 0.0
        held += weight(span)
    return list(_joined(spans, [*bounds, len(spans)]))


def _joined(spans: Sequence[Span], bounds: Sequence[int]) -> Iterator[Span]:
    for start, stop in pairwise(bounds):
        group = spans[start:stop]
        rows = [span.rows for span in group]
        known = None not in rows
        yield Span(
            group[0].start, group[-1].stop, group[0].first_row, sum(r for r in rows if r is not None) if known else None
        )
