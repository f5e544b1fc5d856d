"""What became better and what worse from one run to another, by their summaries and by what they have written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clip_operator.report.samples import Sample, Samples
from clip_operator.report.templates import percent
from clip_operator.web.xcoms import number_in

_UNKNOWN, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

MOST_ROWS = 20
"""How many rows stand beside one another."""

_QUANTILES = {"p01": "1 %", "p05": "5 %", "p25": "25 %", "p50": "50 %", "p75": "75 %", "p95": "95 %", "p99": "99 %"}
_MOST_REASONS = 20
_DEVIATIONS = 2  # of a difference, beyond which 19 of 20 that come by chance do not lie


@dataclass(frozen=True)
class Statistic:
    """One number of both runs, in words.

    :param verdict: ``better`` or ``worse``; ``alike`` where the difference may come by chance; empty where more is
        neither good nor bad, or one of the two has no such number.
    """

    name: str
    before: str
    after: str
    difference: str
    verdict: str


@dataclass(frozen=True)
class RowOfBoth:
    """A row that is among the samples of both runs, or of one of them."""

    text: str
    image: str
    before: float | None
    after: float | None

    @property
    def difference(self) -> float | None:
        """By how much its score has grown."""
        return None if self.before is None or self.after is None else self.after - self.before


def statistics(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Statistic]:
    """Return what two summaries say, number by number.

    Scores of different models cannot be compared, so that of these no verdict is given.
    """
    both = (before, after)
    same_model = before.get("model") == after.get("model")
    rows, scores, calibrations = ([_part(each, name) for each in both] for name in ("rows", "scores", "calibration"))
    quantiles = [_part(each, "quantiles") for each in scores]
    found = [
        _statistic("Rows", [number_in(each, "total") for each in rows], "{:,.0f}".format, 0),
        _shares("Rows without a score", rows, [number_in(each, "failed") for each in rows]),
        *_reasons(rows),
        _mean(scores, same_model),
        *(
            _statistic(f"{label} score less than", [number_in(each, key) for each in quantiles], _score, 0)
            for key, label in _QUANTILES.items()
        ),
        _measured("AUC", calibrations, "auc", "auc_interval", 1, "{:.3f}".format),
        _statistic("Threshold", [number_in(each, "threshold") for each in calibrations], _score, 0),
        _measured("Mismatched pairs above it", calibrations, "false_accept_rate", "false_accept_interval", -1, percent),
        _measured("Rows below it", calibrations, "false_reject_rate", "false_reject_interval", -1, percent),
        _statistic("Rows per second", [number_in(each, "rows_per_second") for each in both], "{:,.1f}".format, 0),
    ]
    return [each for each in found if each is not None]


def rows_of_both(before: Samples | None, after: Samples | None) -> list[RowOfBoth]:
    """Return the best and worst rows of two runs side by side: those that have changed most come first, then those that
    only one of them has among its samples, the worst first."""
    scores = [_by_row(before), _by_row(after)]
    rows = [
        RowOfBoth(text, image, *(each.get((image, text)) for each in scores))
        for image, text in dict.fromkeys([*scores[1], *scores[0]])
    ]
    return sorted(rows, key=_importance)[:MOST_ROWS]


def _importance(row: RowOfBoth) -> tuple[bool, float]:
    if row.difference is not None:
        return False, -abs(row.difference)
    return True, min(score for score in (row.before, row.after) if score is not None)


def _by_row(samples: Samples | None) -> dict[tuple[str, str], float]:
    every: list[Sample] = [] if samples is None else [*samples.worst, *samples.best]
    return {(each.image, each.text or ""): each.score for each in every if each.score is not None}


def _part(values: Any, name: str) -> Mapping[str, Any]:
    part = values.get(name) if isinstance(values, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _score(value: float) -> str:
    return f"{value:.4f}"


def _statistic(
    name: str, values: list[float | None], shown: Any, good: int, by_chance: float | None = None
) -> Statistic | None:
    """Return what is said of a number, or None if neither run has it.

    :param good: 1 where more is better, -1 where less is, 0 where neither is.
    :param by_chance: a difference that means nothing; None where that is not known.
    """
    before, after = values
    if before is None and after is None:
        return None
    words = [_UNKNOWN if value is None else str(shown(value)) for value in values]
    if before is None or after is None:
        return Statistic(name, words[0], words[1], "", "")
    by = after - before
    sign = "+" if by > 0 else _MINUS if by < 0 else "±"
    verdict = ""
    if good:
        is_alike = by == 0 or (by_chance is not None and abs(by) <= by_chance)
        verdict = "alike" if is_alike else "better" if by * good > 0 else "worse"
    return Statistic(name, words[0], words[1], f"{sign} {shown(abs(by))}", verdict)


def _mean(scores: list[Mapping[str, Any]], same_model: bool) -> Statistic | None:
    errors = [
        None if (deviation := number_in(each, "standard_deviation")) is None or not (count := number_in(each, "count"))
        else deviation / math.sqrt(count)
        for each in scores
    ]  # fmt: skip
    means = [number_in(each, "mean") for each in scores]
    return _statistic("Mean score", means, _score, int(same_model), _by_chance(errors))


def _by_chance(errors: list[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    return _DEVIATIONS * math.hypot(*known) if len(known) == len(errors) else None


def _shares(name: str, rows: list[Mapping[str, Any]], counts: list[float | None]) -> Statistic | None:
    totals = [number_in(each, "total") for each in rows]
    shares = [
        None if count is None or not total else count / total for count, total in zip(counts, totals, strict=True)
    ]
    errors = [
        None if share is None or not total or share > 1 else math.sqrt(share * (1 - share) / total)
        for share, total in zip(shares, totals, strict=True)
    ]
    return _statistic(name, shares, percent, -1, _by_chance(errors))


def _reasons(rows: list[Mapping[str, Any]]) -> Iterator[Statistic | None]:
    failures = [_part(each, "failures") for each in rows]
    for reason in list(dict.fromkeys([*failures[1], *failures[0]]))[:_MOST_REASONS]:
        yield _shares(f"… {reason}", rows, [number_in(each, reason) or 0.0 for each in failures])


def _measured(
    name: str, calibrations: list[Mapping[str, Any]], key: str, interval: str, good: int, shown: Any
) -> Statistic | None:
    """Return what is said of a number that has an interval: where the two overlap, nothing is known to differ."""
    found = _statistic(name, [number_in(each, key) for each in calibrations], shown, good)
    ends = [each.get(interval) for each in calibrations]
    if found is None or not found.verdict:
        return found
    (low, high), (other_low, other_high) = (_ends(each) for each in ends)
    is_alike = low <= other_high and other_low <= high
    return Statistic(found.name, found.before, found.after, found.difference, "alike" if is_alike else found.verdict)


def _ends(interval: Any) -> tuple[float, float]:
    """Return the ends of an interval; where it is none, of all that there may be."""
    if isinstance(interval, list) and len(interval) == 2:
        low, high = (number_in({"end": end}, "end") for end in interval)
        if low is not None and high is not None:
            return low, high
    return 0.0, 1.0
