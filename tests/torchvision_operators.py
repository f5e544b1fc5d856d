"""A plugin of pytest: has torchvision imported beside a torch for the CPU where its wheel, as PyPI's, is for CUDA.

Such a torchvision cannot load its operators, and describes two of them when it is imported, which then fails. Nothing
here detects boxes in images: that the two are declared is enough. Where the operators can be loaded, they are.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

_ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _declare_operators() -> torch.library.Library | None:
    if (found := find_spec("torchvision")) is None or found.origin is None:
        return None
    try:
        torch.ops.load_library(Path(found.origin).with_name("_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(f"nms{_ARGUMENTS}")
        library.define(f"qnms{_ARGUMENTS}")
        return library
    return None


DECLARED = _declare_operators()
"""What has to be kept, since the operators go with it."""
