"""What a task's parameters ask for: the steps and the fields of the request, as far as the parameters are known.

When a DAG is parsed some of them still are templates, or other tasks' results. What is wrong with the others can be
told then, without a store, a model or a cluster: it takes the same checks that a task makes when it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Set
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from clip_operator.errors import RequestError
from clip_operator.operators.parameters import as_meant, choice_of, is_path
from clip_operator.steps import StepSeries
from clip_operator.storage import dataset_name, display, refused

if TYPE_CHECKING:
    from clip_operator.operators.image_clip_evaluator import ImageCLIPEvaluatorOperator

CALLED = {"model": "model_name", "revision": "model_revision", "rejected_output": "keep_rejected"}
"""The fields of the request that the operator calls otherwise. All others that it has carry the request's names."""

ON_GATE = ("fail", "mark")

# The fields that no parameter gives. (The parameter ``shard`` is a name, of which the plan makes the field.)
_MADE_HERE = {"input", "output", "filtered_output", "rejected_output", "image_prefixes", "requested_by", "shard"}

_NAMES_OF_STEPS = ("cache_path", "file_name_prefix", "cache_type")

# What stands for characters that are not known yet: none that a file has between its cells.
_UNKNOWN_MARKS = {"delimiter": "\ue000", "quotechar": "\ue001"}

_USUAL_MARKS = ("{{", "{%", "{#")


def request_fields(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's fields that parameters give; those that are not among them are not looked at.

    :raises RequestError: one is not set that must be.
    """
    from clip_operator.request import EvaluationRequest

    fields: dict[str, Any] = {}
    for name, field in EvaluationRequest.model_fields.items():
        parameter = CALLED.get(name, name)
        if name in _MADE_HERE or parameter not in parameters:
            continue
        if parameters[parameter] is not None:
            fields[name] = parameters[parameter]
        elif field.default not in (None, (), {}):
            # What is left empty is not replaced by its default in silence, unless that default is "nothing".
            raise RequestError(f"{parameter} must not be empty")
    return fields


def series_of(parameters: Mapping[str, Any]) -> StepSeries:
    """Return the steps that parameters name.

    :raises RequestError: one of the names cannot be one.
    """
    _check_names(parameters)
    first = parameters["first_entry_file_name"] or ""
    return StepSeries(first, *(parameters[name] for name in _NAMES_OF_STEPS))


def step_number(step: object) -> int | None:
    """Return the number of the step to read, or None for the latest.

    :raises RequestError: it is neither.
    """
    if step == "latest":
        return None
    if isinstance(step, str) and step.strip().isdecimal():
        return int(step)
    if isinstance(step, int) and not isinstance(step, bool) and step >= 0:
        return step
    raise RequestError(f"step must be a whole number from 0 on, or 'latest', not {step!r}")


def is_on(name: str, value: object) -> bool:
    """Return what a parameter says that is on or off, which templating may have made a string.

    :raises RequestError: it says neither.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(bool).validate_python(False if value is None else value)
    except ValidationError:
        raise RequestError(f"{name} must be true or false, not {value!r:.40}") from None


def check_on_gate(parameters: Mapping[str, Any]) -> None:
    """Raise :class:`RequestError` if ``on_gate`` is wrong, which nobody wants to learn at the end."""
    if "on_gate" in parameters:
        choice_of(parameters, "on_gate", ON_GATE)


def check_given(operator: type[ImageCLIPEvaluatorOperator], given: Mapping[str, Any], dag: object) -> None:
    """Check what a DAG's file gives an operator, as far as it is known when it is parsed.

    Parameters that an ``__init__`` of somebody else's makes of others are not known then.

    :param dag: the task's, if there is one.
    :raises RequestError: a parameter is wrong; the message names it.
    """
    if not has_own_init(operator):
        return
    values = {**defaults_of(operator), **given}
    check_known(operator, {name: values[name] for name in known_among(values, marks_of(dag))})


def check_known(operator: type[ImageCLIPEvaluatorOperator], known: Mapping[str, Any]) -> None:
    """Check those of an operator's parameters that are known.

    :raises RequestError: one is wrong, or they do not go together; the message names it.
    """
    meant = as_meant(operator, known)
    operator.check_parameters(meant)
    _check_request(meant)


def has_own_init(operator: type) -> bool:
    """Tell whether an operator is made by the package's own ``__init__``, which takes parameters as they are."""
    return str(inspect.unwrap(getattr(operator, "__init__")).__module__).startswith("clip_operator.")  # noqa: B009 - mypy


def known_among(given: Mapping[str, Any], marks: tuple[str, ...] = _USUAL_MARKS) -> set[str]:
    """Return the names of the parameters whose values are no templates and no other tasks' results.

    What a pod is made of is looked at by those who make it; that there is one is known.
    """
    return {
        name
        for name, value in given.items()
        if is_known(value, marks) or (name == "pod" and isinstance(value, Mapping))
    }


def is_known(value: Any, marks: tuple[str, ...] = _USUAL_MARKS) -> bool:
    """Tell whether a value is what it will be when the task runs."""
    if isinstance(value, str) or is_path(value):
        return not any(mark in str(value) for mark in marks)
    if isinstance(value, Mapping):
        return all(is_known(part, marks) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | Set):
        return all(is_known(item, marks) for item in value)
    return value is None or isinstance(value, bool | int | float)


def marks_of(dag: object) -> tuple[str, ...]:
    """Return what templates begin with in a DAG, which may choose it."""
    own = getattr(dag, "jinja_environment_kwargs", None) or {}
    return (
        *_USUAL_MARKS,
        *(text for name, text in own.items() if name.endswith(("_start_string", "_prefix")) and text),
    )


@cache
def defaults_of(operator: type) -> dict[str, Any]:
    """Return the defaults of an operator's templated parameters."""
    found: dict[str, Any] = {}
    for kind in reversed(operator.__mro__):
        parameters = inspect.signature(vars(kind)["__init__"]).parameters if "__init__" in vars(kind) else {}
        found |= {name: each.default for name, each in parameters.items() if each.default is not each.empty}
    return {name: found[name] for name in getattr(operator, "template_fields", ()) if name in found}


def outputs_of(known: Mapping[str, Any]) -> dict[str, str]:
    """Return the URIs of the request, by its fields, that known parameters tell: the input, and what is written.

    :raises RequestError: there is no such step.
    """
    places: dict[str, str] = {}
    first = known.get("first_entry_file_name")
    number = step_number(known["step"]) if "step" in known else None
    if number == 0 and "first_entry_file_name" in known:
        places["input"] = StepSeries(first or "", "", "", "").uri(0)
    is_whole = known.get("plan", "?") is None and known.get("output_layout", "file") == "file"
    if number is None or not is_whole or not known.keys() >= set(_NAMES_OF_STEPS):
        return places
    series = series_of({"first_entry_file_name": first, **known})
    if number > 0:
        places["input"] = series.uri(number)
    places["output"] = series.uri(number + 1)
    return places | {field: series.selection(kind).uri(number + 1) for field, kind in selections_of(known).items()}


def selections_of(known: Mapping[str, Any]) -> dict[str, Literal["filtered", "rejected"]]:
    """Return which steps with some of the rows known parameters ask for, by the fields of the request.

    :raises RequestError: a parameter that says so is wrong.
    """
    from clip_operator.request import LIMITS

    found: dict[str, Literal["filtered", "rejected"]] = {}
    is_filtered = any(known.get(name) is not None for name in LIMITS)
    if is_filtered:
        found["filtered_output"] = "filtered"
    # Without a filter it is wrong, which a limit that is not known yet may be.
    if is_on("keep_rejected", known.get("keep_rejected")) and (is_filtered or known.keys() >= set(LIMITS)):
        found["rejected_output"] = "rejected"
    return found


def _check_names(known: Mapping[str, Any]) -> None:
    """Check the names of steps that are known."""
    for name in _NAMES_OF_STEPS:
        if name in known and not isinstance(known[name], str):
            wrong = "be empty" if known[name] is None else f"be {known[name]!r}"
            raise RequestError(f"{name} must be a string and must not {wrong}")
    for name in ("file_name_prefix", "cache_type"):
        if "/" in known.get(name, ""):
            raise RequestError(f"{name} must not hold a slash: {known[name]!r}; that is cache_path")
    if "cache_type" in known:
        _check_type(known["cache_type"])
    for name in ("first_entry_file_name", "cache_path"):
        if problem := refused(uri := known.get(name) or ""):
            raise RequestError(f"{name}={display(uri)!r}: {problem}")


def _check_type(cache_type: str) -> None:
    from clip_operator.tables import file_type_of

    try:
        file_type_of(f"step.{cache_type}")
    except RequestError as error:
        raise RequestError(f"cache_type={cache_type!r}: {error}") from None


def _check_request(known: Mapping[str, Any]) -> None:
    """Check the fields of the request that are known, and how they go together, where all of them are known.

    :raises RequestError: one is wrong.
    """
    from clip_operator.request import EvaluationRequest, parse_request

    _check_names(known)
    places = outputs_of(known)
    # What may be left out is left out where it is not known, and so goes with all; what may not has a name of its own.
    fields = {
        name: _stand_in(name) for name, field in EvaluationRequest.model_fields.items() if field.annotation is str
    }
    fields |= {name: mark for name, mark in _UNKNOWN_MARKS.items() if name not in known}
    fields |= request_fields(known) | places
    fields = {name: _stand_in(name) for name in selections_of(known)} | fields
    parse_request(fields, CALLED)
    if "cache_type" in known and "input" in places and dataset_name(places["input"]) is None:
        _check_conversion(places["input"], known["cache_type"])


def _check_conversion(source: str, cache_type: str) -> None:
    """Check that what is read can be written in another format, where a file's name tells what it is."""
    from clip_operator.tables import check_conversion, file_type_of

    try:
        read = file_type_of(source)
    except RequestError:  # a folder, a data set of the hub: only a look there tells
        return
    try:
        check_conversion(read, file_type_of(f"step.{cache_type}"))
    except RequestError as error:
        raise RequestError(f"cache_type={cache_type!r}: {error}") from None


def _stand_in(name: str) -> str:
    return f"{{{{ {name} }}}}"
