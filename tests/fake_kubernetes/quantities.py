"""Quantities as manifests write them: ``4Gi``, ``500m``, ``1e3``."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>[munkMGTPE]|[KMGTPE]i)?")
_UNITS = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)}
_UNITS |= {letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)}
_UNITS |= {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}


def is_quantity(text: str) -> bool:
    """Say whether a text is a quantity."""
    return _QUANTITY.fullmatch(text) is not None


def quantity(text: str | float) -> Decimal:
    """Return the number that a quantity stands for."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    return Decimal(match["number"]) * _UNITS[match["unit"] or ""]
