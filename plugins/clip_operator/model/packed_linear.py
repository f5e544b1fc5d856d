"""Linear layers on an x86 CPU through oneDNN, with the weights laid out for it once."""

from __future__ import annotations

import platform

import torch
from torch import nn


class PackedLinear(nn.Linear):
    """The same product as ``nn.Linear``, in float32, by oneDNN instead of MKL.

    PyTorch gives float32 products on the CPU to MKL, which on some of AMD's processors uses half of the vector width
    that is there; ``benchmarks/`` has the figures. oneDNN uses all of it, and is part of every build of PyTorch for
    x86.

    :param linear: the layer to replace. Its weight is copied into oneDNN's own layout.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)  # makes no weights, as nn.Linear's would
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        # Under nn.Linear's name, since open_clip's models ask it for its type. They also ask what is an nn.Linear.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return ``values @ weight.T + bias``: float32 [..., in_features] → float32 [..., out_features]."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(values, self.weight, self.bias, "none", [], "")
        return product


def can_pack() -> bool:
    """Tell whether this machine and this PyTorch have what :class:`PackedLinear` needs."""
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def pack(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Replace the linear layers of a float32 model on the CPU, in place; subclasses of ``nn.Linear`` stay.

    :returns: what to give to :func:`unpack`.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for name, child in model.named_children():
        if type(child) is nn.Linear:
            setattr(model, name, PackedLinear(child))
            replaced.append((model, name, child))
        else:
            replaced += pack(child)
    return replaced


def unpack(replaced: list[tuple[nn.Module, str, nn.Module]]) -> None:
    """Put the layers back that :func:`pack` replaced."""
    for parent, name, child in replaced:
        setattr(parent, name, child)
