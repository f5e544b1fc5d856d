"""What a checkpoint holds, once it is loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple


class Parts(NamedTuple):
    """A model with its own tokenizer and image processor, by transformers' classes or such as behave like them."""

    model: Any
    tokenizer: Any
    image_processor: Any
    missing: Collection[str] = ()
    """The names of weights that the model has and the checkpoint lacks."""
    mismatched: Collection[tuple[str, Any, Any]] = ()
    """The names of weights of another shape, with the shape that was found and the one that the model has."""
