"""A CLIP-family checkpoint: found by name, loaded safely, turned into an encoder of images and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clip_operator.errors import JobError

if TYPE_CHECKING:
    from clip_operator.model.checkpoint import Checkpoint, find_checkpoint
    from clip_operator.model.device import Device, choose_device
    from clip_operator.model.encoder import ClipEncoder, Tokens
    from clip_operator.model.loading import load_encoder
    from clip_operator.model.preprocessing import Pixels

__all__ = [
    "Checkpoint",
    "ClipEncoder",
    "Device",
    "Pixels",
    "Tokens",
    "choose_device",
    "find_checkpoint",
    "load_encoder",
]

_HOMES = {
    "Checkpoint": "checkpoint",
    "find_checkpoint": "checkpoint",
    "Device": "device",
    "choose_device": "device",
    "ClipEncoder": "encoder",
    "Tokens": "encoder",
    "load_encoder": "loading",
    "Pixels": "preprocessing",
}


def __getattr__(name: str) -> Any:
    # Lazy: finding a checkpoint, and skipping work already done, must not cost the import of torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except RuntimeError as error:  # which torchvision raises where it is installed and was built for another torch
        raise JobError(
            f"the libraries that run models cannot be imported: {' '.join(str(error).split())[:300]}; where "
            "torchvision is installed, it has to be the one that was built for the torch beside it"
        ) from None
