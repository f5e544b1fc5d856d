"""The geometry of the drawing that shows rows beside mismatched pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clip_operator.proof.manifest import Calibration

WIDTH, HEIGHT = 720, 240
"""Of the drawing, in its own units; it is scaled to the page."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 26, 26
_MOST_TICKS = 7
_TICK_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Bar:
    """One bar, in the units of the drawing, and what it says."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Tick:
    """One mark of the axis."""

    x: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """Two rows of bars over one axis, the threshold, and where the axis is."""

    matched: list[Bar]
    mismatched: list[Bar]
    ticks: list[Tick]
    threshold_x: float
    threshold_label_x: float
    threshold_anchor: str
    baseline: float
    highest_share: float
    width: int = WIDTH
    height: int = HEIGHT


def histogram(calibration: Calibration) -> Histogram:
    """Return the drawing of a calibration's histograms, whose bins the manifest holds to [0, 1].

    Each kind of pair is drawn as shares of its own number, so that the two can be compared.
    """
    bins = calibration.histograms
    count = max(len(bins.matched), 1)
    unit = (WIDTH - _LEFT - _RIGHT) / count
    baseline = HEIGHT - _BOTTOM

    def shares(counts: list[int]) -> list[float]:
        total = max(sum(counts), 1)
        return [number / total for number in counts]

    highest = max([*shares(bins.matched), *shares(bins.mismatched)], default=0) or 1

    def bars(counts: list[int], what: str) -> list[Bar]:
        drawn = []
        for index, (number, share) in enumerate(zip(counts, shares(counts), strict=True)):
            if number == 0:
                continue
            height = max(share / highest * (baseline - _TOP), 0.8)
            start = bins.start + index * bins.bin_width
            title = f"{number:,} {what} from {start:.4g} to {start + bins.bin_width:.4g}"
            drawn.append(
                Bar(
                    round(_LEFT + index * unit, 2),
                    round(baseline - height, 2),
                    round(max(unit - 0.6, 0.5), 2),
                    round(height, 2),
                    title,
                )
            )
        return drawn

    def place(score: float) -> float:
        return round(_LEFT + (score - bins.start) / bins.bin_width * unit, 2)

    end = bins.start + count * bins.bin_width
    threshold_x = min(max(place(calibration.threshold), _LEFT), WIDTH - _RIGHT)
    on_the_right = threshold_x > WIDTH * 0.7
    return Histogram(
        matched=bars(bins.matched, "rows"),
        mismatched=bars(bins.mismatched, "mismatched pairs"),
        ticks=[Tick(place(score), label) for score, label in _ticks(bins.start, end)],
        threshold_x=threshold_x,
        threshold_label_x=threshold_x + (-6 if on_the_right else 6),
        threshold_anchor="end" if on_the_right else "start",
        baseline=baseline,
        highest_share=highest,
    )


def _ticks(start: float, end: float) -> list[tuple[float, str]]:
    step = next((step for step in _TICK_STEPS if (end - start) / step <= _MOST_TICKS), _TICK_STEPS[-1])
    digits = max(1, math.ceil(-math.log10(step)))
    first = math.ceil(start / step - 1e-9)
    last = math.floor(end / step + 1e-9)
    return [(number * step, f"{number * step:.{digits}f}") for number in range(first, last + 1)]
