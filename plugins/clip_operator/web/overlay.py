"""The geometry of two histograms over one another, each as shares of its own number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 200
"""Of the drawing, in its own units; it is scaled to the page."""

_MARGIN, _TOP, _BOTTOM = 24, 8, 24
_TICKS = 5


@dataclass(frozen=True)
class Bins:
    """Counts in bins of equal width, from ``start`` on."""

    counts: Sequence[int]
    start: float
    width: float


@dataclass(frozen=True)
class Overlay:
    """The outlines of both, as the points of polygons, and the marks of the axis: where, and what they say."""

    before: str
    after: str
    ticks: list[tuple[float, str]]
    baseline: float = HEIGHT - _BOTTOM
    width: int = WIDTH
    height: int = HEIGHT


def overlay(before: Bins, after: Bins) -> Overlay | None:
    """Return the drawing of two histograms, or None if one of them is empty."""
    both = (before, after)
    if not all(any(each.counts) for each in both):
        return None
    low = min(each.start + each.width * _first(each.counts) for each in both)
    high = max(each.start + each.width * (len(each.counts) - _first(each.counts[::-1])) for each in both)
    # Bins may differ in width, so what is drawn is the share of a unit of score.
    highest = max(max(each.counts) / sum(each.counts) / each.width for each in both)
    baseline = HEIGHT - _BOTTOM

    def across(score: float) -> float:
        place = (min(max(score, low), high) - low) / (high - low)
        return round(_MARGIN + place * (WIDTH - 2 * _MARGIN), 2)

    def outline(bins: Bins) -> str:
        points = []
        for index, count in enumerate(bins.counts):
            start, end = (across(bins.start + (index + side) * bins.width) for side in (0, 1))
            y = round(baseline - count / sum(bins.counts) / bins.width / highest * (baseline - _TOP), 2)
            points += [f"{start},{y}", f"{end},{y}"]
        left, right = (point.partition(",")[0] for point in (points[0], points[-1]))
        return " ".join([f"{left},{baseline}", *points, f"{right},{baseline}"])

    scores = [low + (high - low) * number / (_TICKS - 1) for number in range(_TICKS)]
    return Overlay(outline(before), outline(after), [(across(score), f"{score:.2f}") for score in scores])


def _first(counts: Sequence[int]) -> int:
    return next(index for index, count in enumerate(counts) if count)
