"""XComs as plain values. Airflow's own decoder makes objects of whatever class a value names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.models.xcom import XComModel
from sqlalchemy import Text, cast, func

from clip_operator.json_text import parse_json

_MOST_CHARACTERS = 64 << 10  # those of the operator have some thousands

STORED = cast(XComModel.value, Text)
"""What an XCom's value is in the database: JSON, as text."""

IS_SMALL = func.length(STORED) <= _MOST_CHARACTERS
"""Whether it is no longer than any of the operator's."""

# No number of a run is larger. Others are on no page: NaN, infinity, and integers that no float holds.
_MOST = 1e15


def number_in(values: Any, key: str) -> float | None:
    """Return the number, of those from 0 on, that a value has under a key, or None if there is none."""
    value = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MOST:
        return None
    return float(value)


def plain_value(stored: str) -> Any:
    """Return the dicts, lists, strings, numbers, booleans or None that an XCom holds; None where it holds no such.

    :param stored: as in the database. What workers push is JSON; what the REST API was given is JSON in a string.
    """
    try:
        value = parse_json(stored.encode())
        return parse_json(value.encode()) if isinstance(value, str) else value
    except ValueError:
        return None
