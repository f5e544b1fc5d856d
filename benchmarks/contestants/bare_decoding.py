"""Bare decoding: Pillow alone opens, decodes, resizes and crops image files, in one process a core."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from PIL import Image

from benchmarks.contestant import Answer, Reply, Settings, serve

_SIDE = 224
_FILES_AT_A_TIME = 16  # handed to a process at once, so that handing them over costs next to nothing


def load(settings: Settings) -> Answer:
    """Start the processes.

    :param settings: ``processes``, how many; ``warm_up``, the path of an image.
    """
    processes: int = settings["processes"]
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def answer(request: Settings) -> Reply:
        """Prepare each of ``images`` (paths) once."""
        images: list[str] = request["images"]
        parts = [images[start : start + _FILES_AT_A_TIME] for start in range(0, len(images), _FILES_AT_A_TIME)]
        began = time.perf_counter()
        cpu_seconds = sum(pool.map(_prepare, parts))
        seconds = time.perf_counter() - began
        return {"rows": len(images), "seconds": seconds, "cpu_seconds": cpu_seconds}

    for _ in range(2):
        answer({"images": [settings["warm_up"]] * (_FILES_AT_A_TIME * processes)})  # until every process has loaded
    return answer


def _prepare(paths: list[str]) -> float:
    """Prepare images as CLIP's image processors do; return the seconds of CPU time that it took."""
    began = time.process_time()
    for path in paths:
        with Image.open(path) as file:
            image = file.convert("RGB")
        short = min(image.size)
        image = image.resize((_SIDE * image.width // short, _SIDE * image.height // short), Image.Resampling.BICUBIC)
        left, top = (image.width - _SIDE) // 2, (image.height - _SIDE) // 2
        image.crop((left, top, left + _SIDE, top + _SIDE))
    return time.process_time() - began


if __name__ == "__main__":
    serve(load)
