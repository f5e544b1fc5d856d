"""XComs as plain values. Airflow's own decoder makes objects of whatever class a value names."""

from __future__ import annotations

from typing import Any

from airflow.models.xcom import XComModel
from sqlalchemy import Text, cast, func

from clip_operator.json_text import parse_json

_MOST_CHARACTERS = 64 << 10  # those of the operator have some thousands

STORED = cast(XComModel.value, Text)
"""What an XCom's value is in the database: JSON, as text."""

IS_SMALL = func.length(STORED) <= _MOST_CHARACTERS
"""Whether it is no longer than any of the operator's."""


def plain_value(stored: str) -> Any:
    """Return the dicts, lists, strings, numbers, booleans or None that an XCom holds; None where it holds no such.

    :param stored: as in the database. What workers push is JSON; what the REST API was given is JSON in a string.
    """
    try:
        value = parse_json(stored.encode())
        return parse_json(value.encode()) if isinstance(value, str) else value
    except ValueError:
        return None
