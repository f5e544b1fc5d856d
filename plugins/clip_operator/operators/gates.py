"""What a step must reach to pass: its mean score, and how well its scores tell rows from mismatched pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from clip_operator.errors import RequestError
from clip_operator.operators.parameters import choice_of, is_unset
from clip_operator.proof.manifest import FEW_IMAGES, EvaluationManifest, describe_interval

ON_GATE = ("fail", "mark")

_DIGITS = 4


@dataclass(frozen=True)
class Gates:
    """Limits on what a step's manifest says, each in [0, 1]; None is no limit.

    :param min_mean_score: the lowest mean score.
    :param min_auc: the lowest AUC of rows against mismatched pairs. 0.5 is what guessing reaches.
    :param max_below_threshold: the largest share of the scored rows that may score below the suggested threshold.
    """

    min_mean_score: float | None = None
    min_auc: float | None = None
    max_below_threshold: float | None = None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the gates among a task's parameters, whose numbers templating may have made strings.

        :raises RequestError: one is no number from 0 to 1; the message names it.
        """
        return cls(**{field.name: _limit(field.name, parameters.get(field.name)) for field in fields(cls)})

    def breaches(self, manifest: EvaluationManifest) -> list[str]:
        """Return in words which limits the step does not keep. One that nothing can be said of is not kept."""
        mean = None if manifest.scores is None else manifest.scores.mean
        auc = below = None
        if manifest.calibration is not None:
            auc, below = manifest.calibration.auc, manifest.calibration.false_reject_rate
        found = [
            _breach("the mean score", mean, "min_mean_score", self.min_mean_score, _NO_SCORES),
            _breach("the AUC", auc, "min_auc", self.min_auc, _NO_PAIRS),
            _breach(_SHARE_BELOW, below, "max_below_threshold", self.max_below_threshold, _NO_PAIRS, is_most=True),
        ]
        return [breach for breach in found if breach is not None]

    def doubt(self, manifest: EvaluationManifest) -> str | None:
        """Return in words why limits on the calibration say little of this step, whether it keeps them or not."""
        names = [name for name in ("min_auc", "max_below_threshold") if getattr(self, name) is not None]
        calibration = manifest.calibration
        if not names or calibration is None or not calibration.uncertain:
            return None
        return (
            f"{' and '.join(names)} judged by {calibration.images:,} different images, fewer than {FEW_IMAGES}: with "
            f"others of the same kind the AUC may be {describe_interval(calibration.auc_interval)}, and the share of "
            f"rows below the threshold {describe_interval(calibration.false_reject_interval)}"
        )


def check_gates(parameters: Mapping[str, Any]) -> None:
    """Raise :class:`RequestError` if what a task says of its gates is wrong, which nobody wants to learn at the end.

    :param parameters: those that are known.
    """
    Gates.of(parameters)
    if "on_gate" in parameters:
        choice_of(parameters, "on_gate", ON_GATE)


_SHARE_BELOW = "the share of rows that score below the suggested threshold"
_NO_SCORES = "no row has a score"
_NO_PAIRS = (
    "the manifest has no calibration, either because no two rows could be mismatched, or because an earlier version "
    "of the package scored the step"
)


def _breach(
    what: str, value: float | None, name: str, limit: float | None, why_unknown: str, *, is_most: bool = False
) -> str | None:
    """Return in words how a value is beyond its limit, the least or the most that it may be, or None if it is not."""
    if limit is None:
        return None
    if value is None:
        return f"{name}={limit:g} cannot be judged: {why_unknown}"
    if value <= limit if is_most else value >= limit:
        return None
    return f"{what} is {_shown(value, limit)}, {'above' if is_most else 'below'} {name}={limit:g}"


def _shown(value: float, limit: float) -> str:
    """Return a number with as many digits as it takes to see that it is not the limit."""
    rounded = f"{value:.{_DIGITS}f}"
    return rounded if float(rounded) != limit else repr(value)


def _limit(name: str, value: Any) -> float | None:
    if is_unset(value):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise RequestError(f"{name} must be a number from 0 to 1, not {value!r}")
    return number
