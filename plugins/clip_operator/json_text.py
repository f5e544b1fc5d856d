"""JSON that others may have written, read as plain values in memory of the order of its text."""

from __future__ import annotations

import json
import re
from typing import Any

# Each value of a list may have errors of its own when it is validated, of a thousand times its size. The longest list
# of ours, of what has scored thousands of shards, has a third of these.
MOST_COMMAS = 50_000

# What an escape can write and no text can hold: half of a pair. Whole pairs are looked at, too, which are few.
_MAYBE_HALF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(text: bytes, most_commas: int = MOST_COMMAS) -> Any:
    """Return the dicts, lists, strings, numbers, booleans or None that a JSON text holds, and nothing else ever.

    A model's own ``model_validate_json`` takes up to 500 times the text's size on the way.

    :param most_commas: which tell how many values there are at most. Each takes up to some 70 bytes; what is validated
        as lists of more than the default should fail fast.
    :raises ValueError: it is no JSON, has too many values or levels, or holds strings that are no text.
    """
    if text.count(b",") > most_commas:
        raise ValueError("it has too many values")
    try:
        value = json.loads(text)
        if _MAYBE_HALF_A_PAIR.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value
