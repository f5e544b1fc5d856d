"""What an image costs in each stage: the CPU seconds of decoding, resizing and encoding, each in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.contestant import Answer, Reply, Settings, serve
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.model import Pixels, choose_device, find_checkpoint, load_encoder
from clip_operator.storage import Storage

ResultT = TypeVar("ResultT")


def load(settings: Settings) -> Answer:
    """Load the package's encoder.

    :param settings: ``model``, ``folder`` (of the images).
    """
    checkpoint = find_checkpoint(settings["model"], None, Storage())
    encoder = load_encoder(checkpoint, choose_device("cpu"), "fp32")
    loader = ImageLoader(Storage(), ImagePolicy(root=settings["folder"]))

    def answer(request: Settings) -> Reply:
        """Take ``images`` (paths in the folder) through the stages, decoded ``reduced`` or in full."""
        at_least = encoder.resizing.side if request["reduced"] and encoder.resizing is not None else None
        decoding = resizing = 0.0
        pixels: list[Pixels] = []
        for name in request["images"]:
            data = Path(settings["folder"], name).read_bytes()
            began = time.thread_time()
            with loader.decode(data, at_least) as image:
                decoded = time.thread_time()
                pixels.append(encoder.preprocess(image))
                resizing += time.thread_time() - decoded
                decoding += decoded - began
        with encoder.lane_pool() as lanes:
            size = encoder.image_batch
            batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
            encoding = sum(
                lanes.submit(_cpu_seconds, lambda batch=batch: encoder.encode_images(batch)).result()
                for batch in batches
            )
        return {"decode": decoding, "resize": resizing, "encode": encoding}

    return answer


def _cpu_seconds(work: Callable[[], ResultT]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


if __name__ == "__main__":
    serve(load)
