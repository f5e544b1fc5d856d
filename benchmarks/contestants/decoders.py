"""Decoding and resizing photos in a pool of threads or of processes; the pixels come back to this process."""

from __future__ import annotations

import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import torch
from PIL import Image

from benchmarks.contestant import Answer, Reply, Settings, serve
from clip_operator.model import ClipEncoder, Pixels, choose_device, find_checkpoint, load_encoder
from clip_operator.storage import Storage


def load(settings: Settings) -> Answer:
    """Start the workers, each with an encoder of its own if they are processes.

    :param settings: ``model``, ``images``, ``workers``, ``kind`` (``threads`` or ``processes``).
    """
    files = [Path(path).read_bytes() for path in settings["images"]]
    model, workers = settings["model"], settings["workers"]
    pool: Executor
    if settings["kind"] == "threads":
        _encoder(model)
        pool = ThreadPoolExecutor(workers)
    else:
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    for _ in range(2):
        _prepare_all(pool, files, model)  # until every worker has loaded

    def answer(_: Settings) -> Reply:
        """Prepare every photo once."""
        began = time.perf_counter()
        count = _prepare_all(pool, files, model)
        return {"images_per_second": count / (time.perf_counter() - began)}

    return answer


def _prepare_all(pool: Executor, files: list[bytes], model: str) -> int:
    return sum(1 for _ in pool.map(_prepare, files, [model] * len(files)))


def _prepare(data: bytes, model: str) -> Pixels:
    return _encoder(model).preprocess(Image.open(BytesIO(data)).convert("RGB"))


@cache
def _encoder(model: str) -> ClipEncoder:
    torch.set_num_threads(1)
    return load_encoder(find_checkpoint(model, None, Storage()), choose_device("cpu"), "fp32")


if __name__ == "__main__":
    serve(load)
