"""Small parts of the Kubernetes API's vocabulary: times, Status objects and selectors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "AlreadyExists",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    501: "NotImplemented",
    503: "ServiceUnavailable",
    504: "Timeout",
}
_LABEL_REQUIREMENT = re.compile(r"(?P<absent>!)?(?P<key>[\w./-]+)(?:(?P<operator>!=|==?)(?P<value>[\w.-]*))?")


class ApiError(Exception):
    """The API server refuses a request, with a Status object as its answer."""

    def __init__(self, code: int, message: str, details: Json | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason or _REASONS.get(code, ""),
            "details": details or {},
            "code": code,
        }


def not_in_the_fake(what: str) -> ApiError:
    """Return the error for what a real cluster does and this one does not, so that no test is fooled."""
    return ApiError(501, f"the fake Kubernetes has no {what}")


def time_text(nanoseconds: int, *, fraction: bool = False) -> str:
    """Return a time since the epoch in RFC 3339, in whole seconds or with nine digits of fraction."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}Z" if fraction else f"{text}Z"


def labels_match(selector: str, labels: Mapping[str, str]) -> bool:
    """Say whether labels meet all of a selector's requirements: ``a=b``, ``a!=b``, ``a`` and ``!a``.

    :raises ApiError: a requirement is of another form.
    """
    for requirement in filter(None, selector.split(",")):
        match = _LABEL_REQUIREMENT.fullmatch(requirement.strip())
        if match is None or (match["absent"] and match["operator"]):
            raise ApiError(400, f"unable to parse requirement: {requirement!r}")
        if match["operator"] is None:
            meets = (match["key"] in labels) != bool(match["absent"])
        else:
            meets = (labels.get(match["key"]) == match["value"]) == (match["operator"] != "!=")
        if not meets:
            return False
    return True


def selected_name(selector: str, field: str) -> str | None:
    """Return the name that a field selector asks for, or None where it asks for none.

    :raises ApiError: the selector asks for another field.
    """
    if not selector:
        return None
    key, _, value = selector.partition("=")
    if key != field:
        raise ApiError(400, f"field label not supported: {key}")
    return value.removeprefix("=")
