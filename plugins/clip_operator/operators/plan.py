"""From the operator's rendered parameters to the request: which step is read, which is written, with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clip_operator.completion import latest_step
from clip_operator.errors import RequestError
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.steps import StepSeries
from clip_operator.storage import Storage, parent
from clip_operator.tables import file_type_of

# The fields of the request that the operator calls otherwise. All others that it has carry the request's names.
_CALLED = {"model": "model_name", "revision": "model_revision"}


@dataclass(frozen=True)
class Plan:
    """What one task instance does."""

    request: EvaluationRequest
    output_step: int


def plan(parameters: Mapping[str, Any], requester: Requester, storage: Storage) -> Plan:
    """Return what the task does, given the operator's parameters as templating left them; None is not set.

    :raises RequestError: a parameter is wrong; the message names it.
    :raises JobError: ``step`` is ``"latest"`` and there is none.
    """
    series = _series(parameters)
    step = _step(parameters["step"], series, requester, storage)
    fields: dict[str, Any] = {}
    for name, field in EvaluationRequest.model_fields.items():
        parameter = _CALLED.get(name, name)
        value = parameters.get(parameter)
        if value is not None:
            fields[name] = value
        elif parameter in parameters and field.default not in (None, (), {}):
            # What is left empty is not replaced by its default in silence, unless that default is "nothing".
            raise RequestError(f"{parameter} must not be empty")
    fields |= {"input": series.uri(step), "output": series.uri(step + 1), "requested_by": requester.model_dump()}
    if "image_root" not in fields and series.first_entry_file_name:
        # Image paths are written relative to the data set, and later steps may stand in a folder of their own.
        fields["image_root"] = parent(series.first_entry_file_name)
    request = parse_request(fields, _CALLED)
    return Plan(request, step + 1)


def _series(parameters: Mapping[str, Any]) -> StepSeries:
    for name in ("cache_path", "file_name_prefix", "cache_type"):
        if not isinstance(parameters[name], str):
            wrong = "be empty" if parameters[name] is None else f"be {parameters[name]!r}"
            raise RequestError(f"{name} must be a string and must not {wrong}")
    if "/" in parameters["file_name_prefix"]:
        raise RequestError(
            f"file_name_prefix must not hold a slash: {parameters['file_name_prefix']!r}; that is cache_path"
        )
    try:
        file_type_of(f"step.{parameters['cache_type']}")
    except RequestError as error:
        raise RequestError(f"cache_type={parameters['cache_type']!r}: {error}") from None
    return StepSeries(
        parameters["first_entry_file_name"] or "",
        parameters["cache_path"],
        parameters["file_name_prefix"],
        parameters["cache_type"],
    )


def _step(step: object, series: StepSeries, requester: Requester, storage: Storage) -> int:
    if step == "latest":
        return latest_step(storage, series, requester)
    if isinstance(step, str) and step.strip().isdecimal():
        return int(step)
    if isinstance(step, int) and not isinstance(step, bool) and step >= 0:
        return step
    raise RequestError(f"step must be a whole number from 0 on, or 'latest', not {step!r}")
