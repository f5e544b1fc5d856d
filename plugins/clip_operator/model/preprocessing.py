"""Turns RGB images into a model's inputs, with exactly the values that the checkpoint's image processor gives."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from clip_operator.model.transformers_versions import CALL_OPTIONS, GENERATION, check_plain_steps, puts_onto_white
from clip_operator.resizing import Resizing

log = logging.getLogger(__name__)

Pixels = Any
"""One prepared image, to be given to :meth:`Preprocessing.collate` of the preprocessing that made it."""

_LEVELS = 256  # the values of an 8-bit pixel

_PROBE_SIZES = [(1, 1), (3, 1), (1, 3), (31, 97), (211, 64), (320, 243)]


class Preprocessing(Protocol):
    """From RGB images to a model's inputs, in two steps: each image by itself, then a batch of them.

    Both methods may be called from many threads at once.
    """

    @property
    def name(self) -> str:
        """``direct`` or ``transformers``."""

    @property
    def resizing(self) -> Resizing | None:
        """All that is done to one image, where that is a resize and a crop, so that others can do it; else None."""

    def prepare(self, image: Image.Image) -> Pixels:
        """Do what is done to one image, fully loaded and of mode ``RGB``."""

    def collate(self, batch: Sequence[Pixels]) -> dict[str, torch.Tensor]:
        """Return the model's inputs by name, on its device, each with a row for an image."""


@runtime_checkable
class StatedSteps(Protocol):
    """An image processor that says itself what it does."""

    def steps(self) -> tuple[Resizing, torch.Tensor]:
        """Return its resize and crop, and the float32 value that each 8-bit one becomes, [3 * 256].

        :raises ValueError: it does more, or other things.
        """


class DirectPreprocessing:
    """An image processor's resize and centre crop by Pillow alone; rescale and normalise for a whole batch at once.

    An image is prepared as uint8, [height, width, 3]: a quarter of the memory of the model's input, and made outside
    the interpreter's lock. The model's input is ``pixel_values``: float32, [images, 3, height, width].

    :param image_processor: the checkpoint's own, of transformers' Pillow backend, or one that states its steps.
    :param device: where the model is.
    :raises ValueError: it does more, or other things, than this class can.
    """

    name = f"direct{GENERATION}"

    def __init__(self, image_processor: Any, device: torch.device) -> None:
        self.resizing, table = _steps(image_processor)
        self._device = device
        self._table = table.to(device)
        self._first_rows = torch.arange(0, 3 * _LEVELS, _LEVELS, dtype=torch.int32, device=device).view(3, 1, 1)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one image, fully loaded and of mode ``RGB``, to uint8 of [height, width, 3]."""
        return np.asarray(self.resizing.apply(image))

    def collate(self, batch: Sequence[NDArray[np.uint8]]) -> dict[str, torch.Tensor]:
        """Return ``pixel_values`` of prepared images: float32, [images, 3, height, width], on the device.

        :raises ValueError: the images have not all one shape.
        """
        on_cuda = self._device.type == "cuda"  # from pinned memory the GPU fetches by itself
        stacked = torch.empty((len(batch), *batch[0].shape), dtype=torch.uint8, pin_memory=on_cuda)
        np.stack(batch, out=stacked.numpy())
        planes = stacked.to(self._device, non_blocking=on_cuda).permute(0, 3, 1, 2).contiguous()
        rows = planes + self._first_rows
        return {"pixel_values": self._table.index_select(0, rows.flatten()).view(rows.shape)}


class TransformersPreprocessing:
    """An image processor as it is, called for each image.

    An image is prepared as the image processor's outputs by name, each with a leading dimension of 1.
    """

    name = f"transformers{GENERATION}"
    resizing = None

    def __init__(self, image_processor: Any, device: torch.device) -> None:
        self._image_processor = image_processor
        self._device = device

    def prepare(self, image: Image.Image) -> Mapping[str, torch.Tensor]:
        """Do all that the image processor does."""
        return dict(self._image_processor(images=image, return_tensors="pt", **CALL_OPTIONS))

    def collate(self, batch: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Return the outputs for all images, a row each, on the device."""
        return {name: torch.cat([image[name] for image in batch]).to(self._device) for name in batch[0]}


def choose_preprocessing(image_processor: Any, device: torch.device) -> Preprocessing:
    """Return the direct preprocessing where it is proven to give the image processor's values, else the other.

    :param image_processor: the checkpoint's own, of any class of transformers.
    :param device: where the model is, and the collated inputs will be.
    """
    as_it_is = TransformersPreprocessing(image_processor, device)
    try:
        direct = DirectPreprocessing(image_processor, device)
        _prove_equal(direct, as_it_is)
    except Exception as error:  # of an unknown class, or of settings that make no sense: said when it is used
        log.info(
            "Each image is prepared by the checkpoint's %s as it is, which may be slower: %s",
            type(image_processor).__name__,
            error,
        )
        return as_it_is
    return direct


def _steps(image_processor: Any) -> tuple[Resizing, torch.Tensor]:
    """Return an image processor's resize and crop, and the table of :func:`_model_values`."""
    if isinstance(image_processor, StatedSteps):
        return image_processor.steps()
    check_plain_steps(image_processor)
    return _resizing(image_processor), _model_values(image_processor)


def _resizing(image_processor: Any) -> Resizing:
    resample = Image.Resampling.BILINEAR if image_processor.resample is None else image_processor.resample
    shortest_edge, size = _resize_size(image_processor)
    return Resizing(
        shortest_edge,
        size,
        Image.Resampling(resample).value,
        _crop_size(image_processor),
        onto_white=puts_onto_white(image_processor),
    )


def _resize_size(image_processor: Any) -> tuple[int | None, tuple[int, int] | None]:
    """Return the shortest edge, or the width and height, that images are resized to; neither if they are not."""
    if not image_processor.do_resize:
        return None, None
    size = dict(image_processor.size)
    if set(size) == {"shortest_edge"}:
        return size["shortest_edge"], None
    if set(size) == {"height", "width"}:
        return None, (size["width"], size["height"])
    raise ValueError(f"it resizes to {size}")


def _crop_size(image_processor: Any) -> tuple[int, int] | None:
    """Return the width and height of the centre crop, or None if there is none."""
    if not getattr(image_processor, "do_center_crop", False):
        return None
    size = dict(image_processor.crop_size)
    return size["width"], size["height"]


def _model_values(image_processor: Any) -> torch.Tensor:
    """Return what the image processor's rescale and normalise make of every 8-bit value: float32, [3 * 256].

    The value v of channel c is at 256 * c + v. A table of them is exact on every device, where the same arithmetic
    might round differently.
    """
    every_value = Image.fromarray(np.arange(_LEVELS, dtype=np.uint8)[np.newaxis]).convert("RGB")
    as_large = {name: False for name in ("do_resize", "do_center_crop") if hasattr(image_processor, name)}
    outputs = image_processor(images=every_value, return_tensors="pt", **as_large, **CALL_OPTIONS)
    values: torch.Tensor = outputs["pixel_values"]
    return values.float().flatten()


def _prove_equal(direct: Preprocessing, as_it_is: Preprocessing) -> None:
    """Raise ValueError if the two differ in any value of the probe images."""
    for image in _probe_images():
        found, expected = (way.collate([way.prepare(image)]) for way in (direct, as_it_is))
        values = {name: value.float() for name, value in expected.items()}  # bytes, where it does not rescale
        if found.keys() != values.keys() or not all(torch.equal(found[name], values[name]) for name in values):
            raise ValueError(f"the direct way gives other values for an image of {image.width}x{image.height} pixels")


def _probe_images() -> Iterator[Image.Image]:
    """Give images of random pixels, tiny, tall, wide and larger ones, and one of a colour that is transparent."""
    random = np.random.default_rng(0)
    for width, height in _PROBE_SIZES:
        yield Image.fromarray(random.integers(0, _LEVELS, (height, width, 3), dtype=np.uint8))
    transparent = Image.new("RGB", (9, 9), (1, 2, 3))
    transparent.info["transparency"] = (1, 2, 3)
    yield transparent
