"""Draws the demo data set: pictures of shapes, captions right and wrong, and a few rows as bad as real ones.

Usage: `python -m demo.dataset DIR`.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from demo.scenes import Description, Scene, describe, describe_another, draw, sample_scene, wording

ROWS = 64
CAPTIONS = "captions.jsonl"

_SEED = 64
_BAD_ROWS = {13: "broken_image", 27: "missing_image", 41: "empty_text", 55: "null_text"}
_MISMATCH_EVERY = 4
_GREYS = ("black", "grey", "white")


@dataclass(frozen=True)
class Row:
    """A line of `captions.jsonl`."""

    id: str
    image_path: str
    """Relative to the data set's folder."""
    text: str | None
    alt_text: str
    """The same claim in other words; a caption column for a second step."""
    label: str
    """`match`, `mismatch`, `broken_image`, `missing_image`, `empty_text` or `null_text`."""


@dataclass(frozen=True)
class _Format:
    """How a picture is stored."""

    suffix: str
    mode: str
    aspect: float
    """Width over height."""


_FORMATS = (
    _Format("png", "RGB", 1),
    _Format("jpg", "RGB", 1),
    _Format("png", "RGBA", 1),
    _Format("jpg", "RGB", 3 / 4),
    _Format("png", "L", 1),
    _Format("jpg", "RGB", 4 / 3),
    _Format("png", "RGB", 3 / 4),
    _Format("jpg", "L", 1),
    _Format("jpg", "RGB", 1),
)


def write_dataset(directory: Path) -> Path:
    """Write the pictures and the captions, the same ones every time; existing files are replaced.

    :param directory: where to; made if need be. Pictures go to `images/` below it.
    :return: the path of `captions.jsonl`, one `Row` a line.
    """
    (directory / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for row, picture in _rows():
        if picture is not None:
            (directory / row.image_path).write_bytes(picture)
        lines.append(json.dumps(asdict(row)) + "\n")
    captions = directory / CAPTIONS
    captions.write_text("".join(lines), encoding="utf-8")
    return captions


def _rows() -> Iterator[tuple[Row, bytes | None]]:
    """Every row with the bytes of its picture, None where there is to be no file."""
    rng = random.Random(_SEED)
    for number in range(ROWS):
        stored = _FORMATS[number % len(_FORMATS)]
        label = _BAD_ROWS.get(number, "mismatch" if number % _MISMATCH_EVERY == 2 else "match")
        scene = _scene(stored, rng)
        claim = describe_another(scene, rng) if label == "mismatch" else describe(scene, rng)
        text, alt_text = _two_wordings(claim, rng)
        picture: bytes | None = _encode(scene, stored, rng)
        if label == "missing_image":
            picture = None
        elif label == "broken_image" and picture is not None:
            picture = picture[: len(picture) // 2]
        identity = f"{number:05}"
        row = Row(
            id=identity,
            image_path=f"images/{identity}.{stored.suffix}",
            text={"empty_text": "", "null_text": None}.get(label, text),
            alt_text=alt_text,
            label=label,
        )
        yield row, picture


def _scene(stored: _Format, rng: random.Random) -> Scene:
    """A scene whose colours the format can show: captions of a greyscale picture would else be false."""
    return sample_scene(rng, colours=_GREYS, backgrounds=_GREYS) if stored.mode == "L" else sample_scene(rng)


def _two_wordings(claim: Description, rng: random.Random) -> tuple[str, str]:
    text = wording(claim, rng)
    while (other := wording(claim, rng)) == text:
        pass
    return text, other


def _encode(scene: Scene, stored: _Format, rng: random.Random) -> bytes:
    long_side = rng.randint(176, 256)
    size = (round(long_side * min(1, stored.aspect)), round(long_side / max(1, stored.aspect)))
    picture: Image.Image = draw(scene, size).convert(stored.mode)
    written = io.BytesIO()
    picture.save(written, "PNG" if stored.suffix == "png" else "JPEG")
    return written.getvalue()


def main() -> None:
    """Write the data set to the folder named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.dataset", description=__doc__)
    parser.add_argument("directory", type=Path, help="folder to write to")
    print(write_dataset(parser.parse_args().directory))


if __name__ == "__main__":
    main()
