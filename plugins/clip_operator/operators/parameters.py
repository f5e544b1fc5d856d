"""What is meant by parameters: as a DAG's file gives them, and as templates, forms and XComs leave them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from clip_operator.errors import RequestError
from clip_operator.redaction import without_tokens
from clip_operator.storage import display, scheme_of

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import ObjectStoragePath

    Place = str | Path | ObjectStoragePath

DEFAULT_CONNECTION = "aws_default"

# How the signatures of operators spell what takes text or places and nothing else, lists of such, and mappings. Numbers
# are the request's matter, which takes them as text, too.
_TEXT = {"str", "Place", "None"}
_NAMES = "Sequence["
_PAIRS = "Mapping["

# Airflow writes a connection where other URIs have a user. With a colon it would be a password, too.
_CONNECTION = re.compile(r"(?P<scheme>s3a?://)(?P<id>[\w!().-]{1,250})@(?=[^@/]+(?:/|$))", re.ASCII | re.IGNORECASE)
# What AWS gives as keys. Who writes one there has another idea of it, and no message may hold it.
_AWS_KEY = re.compile(r"A[A-Z]{3}[A-Z0-9]{16}|[A-Za-z0-9]{40}")


def is_unset(value: object) -> bool:
    """Tell whether a value means that a parameter is not set: None, what a template makes of None, or blank text.

    A lone tab is a delimiter.
    """
    return value is None or (isinstance(value, str) and value != "\t" and value.strip() in ("", "None"))


def own_parameters(init: Callable[..., None]) -> tuple[str, ...]:
    """Return the names of the parameters that an operator's ``__init__`` spells out: those that are templated."""
    parameters = inspect.signature(init).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


def as_written(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as a DAG's file gives them, with text for paths, so that Airflow renders what is in them, and
    with the connection that their places name.

    :raises RequestError: they name several, or one of a store that is reached without.
    """
    texts = {name: _without_paths(name, value) for name, value in given.items()}
    return texts if "{" in str(texts.get("aws_conn_id")) else _with_connection(texts)


def as_meant(operator: type, rendered: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operator's rendered parameters: None where one is not set, text and lists of names where these are
    meant, and places without the connection that they name, which is ``aws_conn_id``.

    :raises RequestError: one is something else than it can be, or connections differ; the message names it.
    """
    annotations = _annotations(operator)
    meant = {name: _meaning(name, value, annotations.get(name, "")) for name, value in rendered.items()}
    connected = _with_connection(meant)
    return {name: _each(value, _without_connection) for name, value in connected.items()}


def choice_of(parameters: Mapping[str, Any], name: str, choices: Sequence[str]) -> Any:
    """Return a parameter that takes one of a few values.

    :raises RequestError: it has none of them.
    """
    if parameters[name] not in choices:
        raise RequestError(f"{name} must be {' or '.join(map(repr, choices))}, not {parameters[name]!r}")
    return parameters[name]


def connection_in(place: str) -> tuple[str | None, str]:
    """Return the Airflow connection that a place names, ``s3://connection@bucket/key``, and the place without it."""
    match = _CONNECTION.match(place)
    if match is None or _AWS_KEY.fullmatch(match["id"]) or without_tokens(match["id"]) != match["id"]:
        return None, place
    return match["id"], match["scheme"] + place[match.end() :]


def texts_in(value: Any) -> list[str]:
    """Return the text that a value is, or those that a list or a mapping holds."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return [item for item in (value if isinstance(value, list | tuple) else [value]) if isinstance(item, str)]


@cache
def _annotations(operator: type) -> dict[str, str]:
    """Return what the signatures of an operator and of those it is made of say of its parameters."""
    found: dict[str, str] = {}
    for kind in reversed(operator.__mro__):
        if (init := vars(kind).get("__init__")) is not None and kind is not object:
            found |= {name: str(parameter.annotation) for name, parameter in inspect.signature(init).parameters.items()}
    return found


def _meaning(name: str, value: Any, annotation: str) -> Any:
    if is_unset(value):
        return None
    kinds = {kind.strip() for kind in annotation.split("|")}
    if kinds <= _TEXT:
        return _text(name, value)
    if any(kind.startswith(_NAMES) for kind in kinds):
        return _names(name, value)
    pairs = _pairs(value) if any(kind.startswith(_PAIRS) for kind in kinds) else value
    return {key: item for key, item in pairs.items() if not is_unset(item)} if isinstance(pairs, Mapping) else pairs


def _text(name: str, value: object) -> str:
    text = _without_paths(name, value)
    if isinstance(text, int | float):  # an XCom, or a text that native rendering has read
        return str(text)
    if not isinstance(text, str):
        raise RequestError(f"{name} must be text, not a value of type {type(text).__name__}")
    return text


def _names(name: str, value: Any) -> list[str]:
    from clip_operator.request import names_in

    names = names_in(value)
    if isinstance(names, bytes | Mapping) or not isinstance(names, Iterable):
        raise RequestError(f"{name} must be a list of names, not a value of type {type(value).__name__}")
    # A set has another order in the next try, which would be another request.
    return [_text(name, item) for item in (sorted(names) if isinstance(names, Set) else names) if not is_unset(item)]


def _pairs(value: Any) -> Any:
    """Return the mapping in a text that holds one; who takes it says what is wrong with another."""
    from clip_operator.request import structure_in

    with suppress(ValueError):
        return structure_in(value) if isinstance(value, str) and value.lstrip().startswith("{") else value
    return value


def _without_paths(name: str, value: Any) -> Any:
    """Return a value with text for a path, and for each in a list or a mapping.

    :raises RequestError: a path names a connection to a store that is reached without.
    """

    def text_of(item: Any) -> Any:
        if not is_path(item):
            return item
        text = re.sub(r"(?<=://)([^/]+)/$", r"\1", str(item))  # of a bucket alone, which Airflow writes with a slash
        if getattr(item, "conn_id", None) is not None and scheme_of(text) != "s3":
            raise RequestError(
                f"{name}={display(text)!r} names an Airflow connection, which is for S3 alone: write the URI as text, "
                "and give the credentials to the environment"
            )
        return text

    if not isinstance(value, Mapping):
        return _each(value, text_of)
    # Paths drop the slash at their end, which what takes the place of a folder has.
    return {
        key: f"{text_of(item)}/" if is_path(item) and str(key).endswith(("/", "\\")) else text_of(item)
        for key, item in value.items()
    }


def is_path(value: object) -> bool:
    """Tell a path, also one of Airflow's, which is known by its looks: to import its class is not cheap."""
    return isinstance(value, PurePath) or (hasattr(value, "conn_id") and hasattr(value, "protocol"))


def _with_connection(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with the connection that their places name as ``aws_conn_id``.

    :raises RequestError: two of them name different ones, or ``aws_conn_id`` is another than the default.
    """
    named: dict[str, str] = {}
    for name, value in parameters.items():
        for text in texts_in(value):
            if (connection := connection_in(text)[0]) is not None:
                named.setdefault(connection, name)
    if not named:
        return parameters
    given = parameters.get("aws_conn_id", DEFAULT_CONNECTION)
    if given != DEFAULT_CONNECTION:
        named.setdefault(given, "aws_conn_id")
    if len(named) > 1:
        (first, one), (second, other), *_ = named.items()
        raise RequestError(
            f"{one} names the connection {first!r}, but {other} {second!r}: a task reaches S3 by one connection; name "
            "the same, or give it once, as aws_conn_id"
        )
    return {**parameters, "aws_conn_id": next(iter(named))}


def _without_connection(value: Any) -> Any:
    return connection_in(value)[1] if isinstance(value, str) else value


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a value changed, or a list or a mapping with each of its values changed."""
    if isinstance(value, Mapping):
        return {key: change(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [change(item) for item in value]
    return change(value)
