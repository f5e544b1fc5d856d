"""Chooses where the model runs, and says why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from clip_operator.errors import JobError


@dataclass(frozen=True)
class Device:
    """A torch device and the sentence that explains the choice."""

    name: str
    reason: str


def choose_device(wanted: str | None) -> Device:
    """Return the wanted device, or by default CUDA where there is one, else the CPU.

    :raises JobError: the wanted device does not exist here. It is never replaced by a slower one in silence.
    """
    if wanted is None:
        if torch.cuda.is_available():
            return Device("cuda", f"no device was asked for, and there is a GPU: {torch.cuda.get_device_name()}")
        built = "torch sees none" if torch.backends.cuda.is_built() else "this torch is built without CUDA"
        return Device("cpu", f"no device was asked for, and there is no GPU: {built}")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises one or another by device
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise JobError(
            f"device {wanted!r} cannot be used here: {why}; leave device out to take what there is"
        ) from None
    return Device(str(device), "asked for by the request")
