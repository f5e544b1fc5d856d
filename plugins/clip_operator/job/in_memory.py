"""Scores pairs that are in memory: lists, arrays, columns of data frames."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, NamedTuple

from clip_operator import model as models
from clip_operator.errors import RequestError
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.images.workers.pool import ImageWorkers
from clip_operator.inputs.image_access import path_mending
from clip_operator.request import EvaluationRequest, Precision, parse_request
from clip_operator.scoring import CHUNK_ROWS, Outcomes, Rows, Scorer
from clip_operator.storage import Storage

# What PNG keeps as it is; images of other modes become RGB, as they do when they are read from a file.
_MODES_OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA")


class Scored(NamedTuple):
    """The values of the column of scores, the reasons of rows without one, and what becomes of these."""

    scores: list[float | tuple[float, ...] | None]
    errors: list[str | None]
    outcomes: Outcomes


class Scores(list[float | None]):
    """The scores of pairs, in their order: from 0 to 1, or None for a pair that cannot be scored."""

    errors: list[str | None]
    """For each pair why it has no score, such as ``image_not_found: …``; None where it has one."""


def score(
    images: Iterable[Any],
    texts: Iterable[Any],
    *,
    model: str = "openai/clip-vit-base-patch32",
    model_revision: str | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
    batch_size: int | Literal["auto"] = "auto",
    image_root: str | PathLike[str] | None = None,
    image_hosts: Sequence[str] = (),
    image_buckets: Sequence[str] = (),
) -> Scores:
    """Return the alignment of images with texts, pair by pair: (cos + 1) / 2 of CLIP embeddings, in [0, 1].

    Give lists, NumPy arrays, or columns of data frames, as in
    ``frame.assign(clip_score=score(frame["image"], frame["text"]))``.
    A pair that cannot be scored has None, which pandas shows as NaN, and its reason in ``.errors`` of what is returned.
    The model is loaded by each call.

    :param images: paths, URIs, the bytes of image files, images of Pillow, or arrays of uint8: [height, width] or
        [height, width, 3 or 4].
    :param texts: captions, as many.
    :param model: a hub id, a local folder, an ``s3://`` prefix, or ``builtin://shapes-clip``.
    :param model_revision: a hub revision.
    :param device: ``"cuda"``, ``"cpu"``, …; by default CUDA where there is a GPU.
    :param precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, or ``"auto"``: fp16 on CUDA, else fp32.
    :param batch_size: images that go through the model together; ``"auto"`` takes what suits the device.
    :param image_root: folder that relative image paths start from and local ones may not leave; by default the working
        directory.
    :param image_hosts: hosts from which http(s) images may be fetched.
    :param image_buckets: buckets that images may be in.
    :raises RequestError: a parameter is wrong, or there are not as many images as texts.
    :raises JobError: the model cannot be loaded, or a store refuses all that is asked of it.
    """
    pairs = [_listed(values, name) for values, name in ((images, "images"), (texts, "texts"))]
    if len(pairs[0]) != len(pairs[1]):
        raise RequestError(f"there are {len(pairs[0]):,} images and {len(pairs[1]):,} texts; a pair has one of each")
    settings = {
        "input": "pairs",
        "output": "pairs with scores",
        "model": model,
        "revision": model_revision,
        "device": device,
        "precision": precision,
        "batch_size": batch_size,
        "image_root": str(Path.cwd() if image_root is None else fspath(image_root)),
        "image_hosts": image_hosts,
        "image_buckets": image_buckets,
        "max_error_rate": 1.0,
    }
    request = parse_request(settings)
    scored = score_rows(request, _chunks(*pairs), len(pairs[0])) if pairs[0] else Scored([], [], Outcomes(request))
    found = Scores(value for value in scored.scores if not isinstance(value, tuple))
    found.errors = scored.errors
    return found


def score_rows(request: EvaluationRequest, chunks: Iterable[Rows[None]], count: int) -> Scored:
    """Score rows by the pipeline that scores all data sets.

    :param request: says by what model, and what may be read; where it says rows are and go to is not looked at.
    :param count: how many rows there are.
    :raises JobError: what is not one row's fault.
    """
    files = Storage()
    checkpoint = models.find_checkpoint(request.model, request.revision, files)
    device = models.choose_device(request.device)
    encoder = models.load_encoder(checkpoint, device, request.precision, request.batch_size)
    images = ImageLoader(
        files,
        ImagePolicy(
            str(request.image_root),
            request.image_hosts,
            request.max_image_bytes,
            request.max_image_pixels,
            buckets=request.image_buckets,
            mending=path_mending(request),
        ),
    )
    scored = Scored([], [], Outcomes(request))
    with ImageWorkers(images, files, request.max_image_seconds, upright=request.upright) as workers:
        workers.expect(count)
        scorer = Scorer(encoder, workers, threading.Event(), aggregate=request.aggregate)
        for rows, results in scorer.score(chunks):
            scored.scores.extend(scored.outcomes.scores(results, rows.references))
            scored.errors.extend(None if result.error is None else str(result.error) for result in results)
    return scored


def _listed(values: Iterable[Any], name: str) -> list[Any]:
    if isinstance(values, str | bytes | PathLike):
        raise RequestError(f"{name} is a single value; give a list of them")
    return list(values)


def _chunks(images: Sequence[Any], texts: Sequence[Any]) -> Iterator[Rows[None]]:
    for start in range(0, len(images), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        yield Rows(None, [_reference(image) for image in images[part]], [_plain(text) for text in texts[part]])


def _reference(image: Any) -> object:
    """Return what a row of a data set would have for an image: a path as text, pixels as a file's bytes."""
    from PIL import Image

    if isinstance(image, PathLike):
        return fspath(image)
    if hasattr(image, "__array_interface__") and not isinstance(image, Image.Image):
        try:
            image = Image.fromarray(image)
        except (TypeError, ValueError):  # of another type or shape, which is said of its row
            return _plain(image)
    if not isinstance(image, Image.Image):
        return image
    file = BytesIO()
    image = image if image.mode in _MODES_OF_PNG else image.convert("RGB")
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _plain(value: Any) -> object:
    """Return a list for an array, and Python's own value for one of NumPy's."""
    return value.tolist() if hasattr(value, "tolist") else value
