"""How many images go through a model together, where the user leaves it open."""

from __future__ import annotations

from typing import Any

import torch

from clip_operator.model.encoder import ClipEncoder, image_tokens

# On a CPU a batch is large enough once its products are a few hundred rows high. Larger ones only take memory, and more
# time to be waited for at the end. See `benchmarks/README.md` for the figures.
_CPU_ACTIVATION_BYTES = 6 << 20
_MOST_ON_CPU = 16
_USUAL_WIDTH = 768

# For accelerators whose memory cannot be asked about, such as Apple's.
_MOST_ON_OTHERS = 32

# More than this gains nothing on a GPU, and every image of a batch waits for the slowest to be fetched.
_MOST_ON_CUDA = 256

# What other programs, fragmentation and the text tower may take of the memory that is free now.
_SHARE_OF_FREE_MEMORY = 0.7

_PROBED_IMAGES = 8


def automatic_batch_size(encoder: ClipEncoder, config: Any, device: torch.device) -> int:
    """Return a power of two that is fast on the device and fits into its memory.

    On the CPU it follows from the model's sizes. On CUDA a few images are encoded to see what one takes.

    :param config: the model's configuration, as transformers has it.
    """
    if device.type == "cpu":
        vision = config.vision_config
        width = getattr(vision, "intermediate_size", None) or 4 * getattr(vision, "hidden_size", _USUAL_WIDTH)
        largest_activation = image_tokens(config) * int(width) * 4  # bytes, float32
        return _power_of_two(min(_MOST_ON_CPU, _CPU_ACTIVATION_BYTES // largest_activation))
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        room = free * _SHARE_OF_FREE_MEMORY / encoder.lanes
        return _power_of_two(min(_MOST_ON_CUDA, int(room / _bytes_per_image(encoder, device))))
    return _MOST_ON_OTHERS


def _bytes_per_image(encoder: ClipEncoder, device: torch.device) -> float:
    from PIL import Image

    image = encoder.preprocess(Image.new("RGB", (64, 64)))
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    encoder.encode_images([image] * _PROBED_IMAGES)
    return max(1.0, (torch.cuda.max_memory_allocated(device) - before) / _PROBED_IMAGES)


def _power_of_two(limit: int) -> int:
    """Return the largest power of two that is not above ``limit``, at least 1."""
    return 1 << max(0, limit.bit_length() - 1)
