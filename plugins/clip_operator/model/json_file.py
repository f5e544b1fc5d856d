"""Reads the JSON files of a checkpoint, of a bounded size, and says in words which of their fields cannot be right."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The longest that are known are of tokenizers with a quarter of a million tokens: 34 MB.
MAX_VOCABULARY_BYTES = 64 << 20
MAX_CONFIGURATION_BYTES = 8 << 20
VOCABULARIES = ("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
"""Files that can name nothing but tokens."""


class UnfitFile(Exception):
    """A file of a checkpoint is not what it should be; the text names the file and the field."""


def byte_limit(name: str) -> int:
    """Return how many bytes a checkpoint's file of this name, which is not one of its weights, may have."""
    return MAX_VOCABULARY_BYTES if name in (*VOCABULARIES, "tokenizer.json") else MAX_CONFIGURATION_BYTES


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    :raises UnfitFile: it is too large, nested too deeply, or no JSON object.
    """
    with path.open("rb") as file:
        data = file.read(byte_limit(path.name) + 1)
    if len(data) > byte_limit(path.name):
        raise UnfitFile(f"{path.name} has more than {byte_limit(path.name) >> 20} MiB, which no such file needs")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnfitFile(f"{path.name} is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise UnfitFile(f"{path.name} holds no JSON object")
    return value


def whole_number(where: str, value: Any, least: int, most: int) -> int:
    """Return a value that has to be a whole number within bounds.

    :param where: the file and the field, for the message.
    :raises UnfitFile: it is not.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UnfitFile(f"{where} is {abridged(value)}; it has to be a whole number from {least} to {most}")
    return value


def check_finite(where: str, value: Any) -> None:
    """Raise :class:`UnfitFile` for a number that is none (NaN, Infinity) or does not fit into a float."""
    try:
        fits = not isinstance(value, (int, float)) or math.isfinite(value)
    except OverflowError:
        fits = False
    if not fits:
        raise UnfitFile(f"{where} is {abridged(value)}, which is no number to compute with")


def abridged(value: Any) -> str:
    """Return a value as a message shows it."""
    if isinstance(value, int) and not -(10**40) < value < 10**40:
        return "a number of more than 40 digits"
    text = repr(value)[:100] if not isinstance(value, (Mapping, list)) else f"{type(value).__name__} of {len(value)}"
    return text if text.isprintable() else ascii(text)
