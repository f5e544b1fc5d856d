"""What a step must reach to pass, as the request says, and whether it does, as its manifest says."""

from __future__ import annotations

from dataclasses import dataclass

from clip_operator.errors import JobError
from clip_operator.proof.manifest import (
    FEW_IMAGES,
    Calibration,
    EvaluationManifest,
    describe_interval,
    describe_share,
)
from clip_operator.request import EvaluationRequest
from clip_operator.storage import display

_DIGITS = 4

# Scores that tell rows from mismatched pairs in six of ten cases hardly beat guessing, which does in five; and of a
# threshold that lets three of ten mismatched pairs pass nobody expects good rows alone.
_WEAK_AUC = 0.6
_WEAK_FALSE_ACCEPT_RATE = 0.3

_NO_SCORES = "no row has a score"
_NO_PAIRS = (
    "the manifest has no calibration, either because no two rows could be mismatched, or because an earlier version "
    "of the package scored the step"
)


@dataclass(frozen=True)
class Verdict:
    """What became of one gate.

    :param name: of the gate, which is that of the request's field.
    :param limit: from 0 to 1.
    :param is_most: the limit is the most that the value may be, not the least.
    :param value: what the step has come to; None where nothing can be said of it, and then the gate is not passed.
    :param words: all of that as a clause, with how far the value is from the limit.
    """

    name: str
    limit: float
    is_most: bool
    value: float | None
    passed: bool
    words: str


def verdicts(manifest: EvaluationManifest, request: EvaluationRequest | None = None) -> list[Verdict]:
    """Return what became of each gate that is set; none of a shard's, for gates are the whole step's.

    :param request: says which are set; by default that of the manifest, which is that of who asked last.
    """
    request = request or manifest.request
    if request.shard is not None:
        return []
    calibration = manifest.calibration
    mean = None if manifest.scores is None else manifest.scores.mean
    auc, below = (None, None) if calibration is None else (calibration.auc, calibration.false_reject_rate)
    weak = weak_threshold(calibration) if request.on_weak_threshold == "fail" else None
    what_is_below = "the share of rows that score below the suggested threshold"
    found = [
        _verdict("the mean score", mean, "min_mean_score", request.min_mean_score, _NO_SCORES),
        _verdict("the AUC", auc, "min_auc", request.min_auc, _NO_PAIRS),
        _verdict(what_is_below, below, "max_below_threshold", request.max_below_threshold, _NO_PAIRS, True, weak),
    ]
    return [verdict for verdict in found if verdict is not None]


def doubts(manifest: EvaluationManifest, request: EvaluationRequest) -> list[str]:
    """Return in words why gates on the calibration say little of this step, whether it passes them or not."""
    calibration = manifest.calibration
    names = [name for name in ("min_auc", "max_below_threshold") if getattr(request, name) is not None]
    if not names or calibration is None or request.shard is not None:
        return []
    found = []
    if calibration.uncertain:
        found.append(
            f"{' and '.join(names)} judged by {calibration.images:,} different images, fewer than {FEW_IMAGES}: with "
            f"others of the same kind the AUC may be {describe_interval(calibration.auc_interval)}, and the share of "
            f"rows below the threshold {describe_interval(calibration.false_reject_interval)}"
        )
    if "max_below_threshold" in names and (weak := weak_threshold(calibration)):
        found.append(f"max_below_threshold judged by a suggested threshold that means little: {weak}")
    return found


def weak_threshold(calibration: Calibration | None) -> str | None:
    """Return in words why the suggested threshold means little, or None if it means something."""
    if calibration is None:
        return None
    if calibration.auc < _WEAK_AUC:
        return (
            f"the AUC is {calibration.auc:.4f}, below {_WEAK_AUC:g}, so that the scores hardly tell rows from "
            "mismatched pairs"
        )
    if calibration.false_accept_rate > _WEAK_FALSE_ACCEPT_RATE:
        return (
            f"{describe_share(calibration.false_accept_rate)} of mismatched pairs reach it, more than "
            f"{describe_share(_WEAK_FALSE_ACCEPT_RATE)}"
        )
    return None


def check_threshold(request: EvaluationRequest, calibration: Calibration) -> None:
    """Raise :class:`JobError` if rows are to be filtered by a suggested threshold that means little, and the request
    says that this fails the job."""
    weak = weak_threshold(calibration)
    if weak is not None and request.min_score == "threshold" and request.on_weak_threshold == "fail":
        raise JobError(
            f"{display(request.output)}: min_score is 'threshold', and the suggested one, {calibration.threshold:.4f}, "
            f"means little: {weak}. Nothing was written; give min_score as a number, take another model, or accept it "
            "with on_weak_threshold='warn'"
        )


def _verdict(
    what: str,
    value: float | None,
    name: str,
    limit: float | None,
    why_unknown: str,
    is_most: bool = False,
    weak: str | None = None,
) -> Verdict | None:
    """Return what became of a gate, or None if it is not set.

    :param what: what the limit is of.
    :param why_unknown: why there may be no value.
    :param weak: why the value means so little that the gate is not passed, whatever it is.
    """
    if limit is None:
        return None
    if value is None:
        return Verdict(name, limit, is_most, None, False, f"{name}={limit:g} cannot be judged: {why_unknown}")
    shown = f"{what} is {_shown(value, limit)}"
    if weak is not None:
        return Verdict(name, limit, is_most, value, False, f"{shown} by a threshold that means little: {weak}")
    passed = value <= limit if is_most else value >= limit
    return Verdict(name, limit, is_most, value, passed, f"{shown}, {_beside(value, name, limit)}")


def _beside(value: float, name: str, limit: float) -> str:
    if value == limit:
        return f"just {name}={limit:g}"
    difference = abs(value - limit)
    by = f"{difference:.{_DIGITS}f}"
    return f"{'above' if value > limit else 'below'} {name}={limit:g} by {by if float(by) else f'{difference:.1g}'}"


def _shown(value: float, limit: float) -> str:
    """Return a number with as many digits as it takes to see that it is not the limit."""
    rounded = f"{value:.{_DIGITS}f}"
    return rounded if float(rounded) != limit or value == limit else repr(value)
