"""From the operator's rendered parameters to the request: which step is read, which is written, with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clip_operator.errors import RequestError
from clip_operator.inputs import default_image_root
from clip_operator.operators.asked import CALLED, is_on, request_fields, series_of, step_number
from clip_operator.operators.latest_step import latest_step
from clip_operator.operators.limits import NO_LIMITS, Limits
from clip_operator.request import LIMITS, EvaluationRequest, Requester, parse_request
from clip_operator.steps import StepSeries
from clip_operator.storage import Storage

# How one shard goes about its work may differ from the next. Not so this much of what a fingerprint leaves out: shards
# are cut at resume points, and what may be replaced is for the whole step to say. The plan's id vouches for it.
_THE_PLANS = ("overwrite", "requested_by", "rescore", "resume_point_rows")


@dataclass(frozen=True)
class Work:
    """What one task instance does.

    :param shard_label: of one shard, for people: which of how many, and its rows.
    """

    request: EvaluationRequest
    output_step: int
    shard_label: str | None = None


def work_of(
    parameters: Mapping[str, Any],
    requester: Requester,
    storage: Storage,
    limits: Limits = NO_LIMITS,
    *,
    in_parts: bool = False,
) -> Work:
    """Return what the task does, given the operator's parameters as templating left them; None is not set.

    :param limits: what they may ask for.
    :param in_parts: the step is written as part files.
    :raises RequestError: a parameter is wrong, or outside the limits; the message names it.
    :raises JobError: ``step`` is ``"latest"`` and there is none, or the plan of the shards cannot be read.
    """
    work = _work(parameters, requester, storage, in_parts)
    return replace(work, request=limits.bounded(work.request))


def _work(parameters: Mapping[str, Any], requester: Requester, storage: Storage, in_parts: bool) -> Work:
    if parameters["shard"] is not None or parameters["plan"] is not None:
        return _shard(parameters, requester, storage)
    series = series_of(parameters)
    if (number := step_number(parameters["step"])) is None:
        step, source = latest_step(storage, series, requester)
    else:
        step, source = number, series.find(number, storage)
    target = series.parts_uri(step + 1) if in_parts else series.uri(step + 1)
    return Work(_request(parameters, series, source, target, requester, step + 1), step + 1)


def output_step(parameters: Mapping[str, Any], output: str) -> int:
    """Return the number of the step that was written to ``output``, by the names that the parameters give to steps.

    :raises RequestError: none of them is called so.
    """
    number = series_of(parameters).number(output)
    if number is None:
        raise _differs(["cache_path, file_name_prefix or cache_type"])
    return number


def _shard(parameters: Mapping[str, Any], requester: Requester, storage: Storage) -> Work:
    """Return what a task that scores one shard does: what the step was planned with, which must be its own parameters,
    too."""
    # It knows how tables are cut and joined, which a task that scores a whole step elsewhere need not.
    from clip_operator.sharding import read_plan

    for name, other in (("shard", "plan"), ("plan", "shard")):
        if parameters[name] is None:
            raise RequestError(f"{other} without {name}: the task that plans the shards hands on both")
    shards, name = read_plan(parameters["plan"], storage), parameters["shard"]
    own = own_request(parameters, shards.request, requester)
    shards = shards.model_copy(update={"request": own})
    return Work(shards.shard_request(name, requester), output_step(parameters, own.output), shards.describe(name))


def own_request(parameters: Mapping[str, Any], planned: EvaluationRequest, requester: Requester) -> EvaluationRequest:
    """Return the request that the parameters make of a step which was planned with another task's.

    What was planned with decides nothing of it but where shards are cut, what may be replaced, and for whom.

    :raises RequestError: it is not the request that was planned.
    """
    series, step = series_of(parameters), output_step(parameters, planned.output)
    number = step_number(parameters["step"])  # None is the latest, which is what was the latest for the plan
    if number not in (None, step - 1):
        raise _differs(["step"])
    sources = [series.uri(step - 1), series.parts_uri(step - 1)] if step > 1 else [series.uri(0)]
    source = planned.input if planned.input in sources else sources[0]
    own = _request(parameters, series, source, planned.output, requester, step)
    if own.fingerprint() != planned.fingerprint():
        decisive = [
            CALLED.get(name, name)
            for name in EvaluationRequest.model_fields
            if own.model_copy(update={name: getattr(planned, name)}).fingerprint() != own.fingerprint()
        ]
        raise _differs(decisive)
    return own.model_copy(update={name: getattr(planned, name) for name in _THE_PLANS})


def _differs(names: list[str]) -> RequestError:
    return RequestError(
        f"{', '.join(names)}: differ from those the step was planned with; clear the plan task, and all behind it"
    )


def _request(
    parameters: Mapping[str, Any],
    series: StepSeries,
    source: str,
    target: str,
    requester: Requester,
    output_step: int,
) -> EvaluationRequest:
    fields = request_fields(parameters)
    fields |= {"input": source, "output": target, "requested_by": requester.model_dump()}
    if not fields.keys().isdisjoint(LIMITS):
        fields["filtered_output"] = series.selection("filtered").uri(output_step)
    if is_on("keep_rejected", parameters.get("keep_rejected")):
        fields["rejected_output"] = series.selection("rejected").uri(output_step)
    first = series.first_entry_file_name
    if "image_root" not in fields and first:
        # Image paths are written relative to the data set, and later steps may stand in a folder of their own.
        fields["image_root"] = default_image_root(first)
    return parse_request(fields, CALLED)
