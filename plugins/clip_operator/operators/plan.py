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

# The operator's parameters that are fields of the request under another name.
_RENAMED = {"model": "model_name", "revision": "model_revision"}

# … those that carry the same name …
_PASSED = (
    "input_image_key",
    "input_text_key",
    "output_key",
    "device",
    "image_root",
    "image_hosts",
    "on_error",
    "error_key",
    "batch_size",
    "precision",
    "overwrite",
)

# … and those of them that need not be set.
_OPTIONAL = ("revision", "device", "image_root", "error_key")


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
    fields = {name: parameters[name] for name in _PASSED} | {name: parameters[of] for name, of in _RENAMED.items()}
    fields |= {"input": series.uri(step), "output": series.uri(step + 1), "requested_by": requester.model_dump()}
    if fields["image_root"] is None:
        # Image paths are written relative to the data set, and later steps may stand in a folder of their own.
        fields["image_root"] = parent(series.first_entry_file_name) if series.first_entry_file_name else None
    for name, value in fields.items():
        if value is None and name not in _OPTIONAL:
            raise RequestError(f"{_RENAMED.get(name, name)} must not be empty")
    request = parse_request(fields, _RENAMED)
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
