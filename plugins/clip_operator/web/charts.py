"""The geometry of small line charts: one number of each run, the oldest on the left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320, 96
"""Of a chart, in its own units; it is scaled to the page."""

_MARGIN = 8


@dataclass(frozen=True)
class Dot:
    """One run."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Limit:
    """A line across the chart, and what it says."""

    y: float
    words: str


@dataclass(frozen=True)
class Chart:
    """Dots, and lines between those of runs that follow one another and both have the number."""

    title: str
    latest: str
    range: str
    lines: list[str]
    dots: list[Dot]
    limit: Limit | None = None
    width: int = WIDTH
    height: int = HEIGHT


def chart(
    title: str,
    values: Sequence[float | None],
    labels: Sequence[str],
    shown: Callable[[float], str],
    limit: tuple[str, float] | None = None,
) -> Chart | None:
    """Return a chart, or None if no run has the number.

    :param labels: of the runs.
    :param shown: how a number is written.
    :param limit: what the numbers are to keep to, and what that is called.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    ends = [low, high] if limit is None else [min(low, limit[1]), max(high, limit[1])]
    span = (ends[1] - ends[0]) or max(abs(ends[1]), 1) * 0.1
    middle = sum(ends) / 2

    def height(value: float) -> float:
        return round(HEIGHT / 2 - (value - middle) / span * (HEIGHT - 2 * _MARGIN), 2)

    def place(index: int, value: float) -> tuple[float, float]:
        across = (WIDTH - 2 * _MARGIN) / max(len(values) - 1, 1)
        x = _MARGIN + index * across if len(values) > 1 else WIDTH / 2
        return round(x, 2), height(value)

    dots, lines, line = [], [], list[str]()
    for index, (value, label) in enumerate(zip(values, labels, strict=True)):
        if value is None:
            lines.append(line)
            line = []
            continue
        x, y = place(index, value)
        dots.append(Dot(x, y, f"{label}: {shown(value)}"))
        line.append(f"{x},{y}")
    lines.append(line)
    return Chart(
        title,
        shown(known[-1]),
        f"{shown(low)} to {shown(high)}" if len(known) > 1 else "one run so far",
        [" ".join(points) for points in lines if len(points) > 1],
        dots,
        None if limit is None else Limit(height(limit[1]), f"{limit[0]} {shown(limit[1])}"),
    )
