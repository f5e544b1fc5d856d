"""How an input is divided among shards: neighbouring stretches, put together until they are enough for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from clip_operator.tables import Stretch

Weight = Callable[[Stretch], float]


def into(stretches: Sequence[Stretch], shards: int, weight: Weight) -> list[Stretch]:
    """Return at most so many shards of about equal weight; fewer where there are not as many stretches."""
    total = sum(map(weight, stretches))
    bounds, passed, taken = [0], 0.0, 0
    for index, stretch in enumerate(stretches):
        left, wanted = len(stretches) - index, min(shards, len(stretches)) - len(bounds)
        # Cut where the half of this stretch's weight passes the bound, and while there are stretches for all to come.
        passes = passed + weight(stretch) / 2 >= total * len(bounds) / shards
        if index > taken and wanted > 0 and (passes or left <= wanted):
            bounds.append(index)
            taken = index
        passed += weight(stretch)
    return list(_joined(stretches, [*bounds, len(stretches)]))


def of_size(stretches: Sequence[Stretch], most: float, weight: Weight) -> list[Stretch]:
    """Return shards that weigh at most so much, but for single stretches that weigh more by themselves."""
    bounds, held = [0], 0.0
    for index, stretch in enumerate(stretches):
        if index > bounds[-1] and held + weight(stretch) > most:
            bounds.append(index)
            held = 0.0
        held += weight(stretch)
    return list(_joined(stretches, [*bounds, len(stretches)]))


def _joined(stretches: Sequence[Stretch], bounds: Sequence[int]) -> Iterator[Stretch]:
    for start, stop in pairwise(bounds):
        group = stretches[start:stop]
        rows = [stretch.rows for stretch in group]
        known = None not in rows
        yield Stretch(
            group[0].start, group[-1].stop, group[0].first_row, sum(r for r in rows if r is not None) if known else None
        )
