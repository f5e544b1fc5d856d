"""Pictures with the sizes, the detail and the file sizes of photos, drawn from seeds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.kept import kept

VGA = (640, 480)
TWELVE_MEGAPIXELS = (4000, 3000)
SQUARE = (1024, 1024)
THUMBNAIL = (64, 64)

_OCTAVES = (3, 6, 12, 24, 48, 96, 192)
"""Details of the picture: how many to its width. Each is fainter than the one before, as in photos."""
_GRAIN = 6.0
"""Standard deviation of the sensor's noise, of 255."""


def photos(data: Path, count: int, size: tuple[int, int], kind: str = "jpg") -> list[str]:
    """Return the paths of ``count`` different pictures, relative to ``data``. Draws those that are not there yet.

    :param size: width and height in pixels.
    :param kind: ``jpg`` (quality 85) or ``png``.
    """
    folder = f"photos-{size[0]}x{size[1]}-{kind}"
    names = [f"{folder}/{number:06}.{kind}" for number in range(count)]
    missing = [number for number, name in enumerate(names) if not (data / name).exists()]
    if missing:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as processes:
            paths = [data / names[number] for number in missing]
            list(processes.map(_write, paths, missing, repeat(size), chunksize=max(1, min(32, len(paths) // 8))))
    return names


def thumbnails(count: int) -> Iterator[bytes]:
    """Yield ``count`` different JPEGs of 64 x 64 pixels, some 1.5 kB each."""
    for number in range(count):
        rng = np.random.default_rng([64, number])
        small = Image.fromarray(rng.integers(0, 256, size=(6, 6, 3), dtype=np.uint8))
        yield _encoded(small.resize(THUMBNAIL, Image.Resampling.BICUBIC), "jpg")


def photo(number: int, size: tuple[int, int]) -> Image.Image:
    """Draw one picture: clouds of colour with detail at every scale, and grain.

    :param number: which one; the same number and size give the same picture.
    """
    width, height = size
    rng = np.random.default_rng([width, height, number])
    pixels = np.full((height, width, 3), 128, dtype=np.float32)
    for octave in _OCTAVES:
        shape = (max(2, octave * height // width), octave)
        coarse = rng.normal(scale=110 / octave**0.55, size=shape).astype(np.float32)
        colour = rng.normal(loc=1, scale=0.35, size=3).astype(np.float32)
        pixels += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))[..., None] * colour
    pixels += rng.standard_normal((height, width, 1), dtype=np.float32) * _GRAIN
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _write(path: Path, number: int, size: tuple[int, int]) -> None:
    kept(path, partial(_draw_to, number=number, size=size, kind=path.suffix.removeprefix(".")))


def _draw_to(path: Path, number: int, size: tuple[int, int], kind: str) -> None:
    path.write_bytes(_encoded(photo(number, size), kind))


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = BytesIO()
    if kind == "png":
        picture.save(file, "PNG")
    else:
        picture.save(file, "JPEG", quality=85)
    return file.getvalue()
