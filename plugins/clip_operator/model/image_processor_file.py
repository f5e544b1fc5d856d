"""Checks what a checkpoint says of its image processor: its class, its steps, and sizes that fit into a memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from clip_operator.model.json_file import UnfitFile, abridged, check_finite, whole_number

# Transformers' own, of this house's families, under all the names that they have been saved by.
_CLASSES = re.compile(
    "(Beit|Bit|Blip|ChineseCLIP|CLIP|CLIPSeg|ConvNext|Deit|DeiT|EfficientNet|OwlViT|Owlv2|Siglip|Siglip2|Tipsv2|ViT)"
    "(ImageProcessor|FeatureExtractor)(Fast|Pil)?"
)
_FLAGS = (
    "do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_pad", "default_to_square",
    "include_top", "rescale_offset",
)  # fmt: skip
_MOST_PIXELS_OF_A_SIDE = 4096
_MOST_PATCHES = 16_384
_FILTERS = 5


def check_image_processor(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that an image processor of the family has.

    :param name: the file's.
    :raises UnfitFile: one has a value that no model can have been trained with; the text names it.
    """
    kept = {field: value for field, value in found.items() if field in _FIELDS}
    for field, value in kept.items():
        if value is not None:
            _FIELDS[field](f"{name}: {field}", value)
    if isinstance(saved_as := kept.get("image_processor_type"), str):
        # By which library it resizes is said when it is loaded; not every version of transformers knows all the names.
        kept["image_processor_type"] = saved_as.removesuffix("Pil").removesuffix("Fast")
    return kept


def _check_class(where: str, value: Any) -> None:
    if not isinstance(value, str) or not _CLASSES.fullmatch(value):
        raise UnfitFile(f"{where} is {abridged(value)}, which is no image processor of the CLIP family")


def _check_flag(where: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise UnfitFile(f"{where} is {abridged(value)}, and has to be true or false")


def _check_sides(where: str, value: Any) -> None:
    sides = value if isinstance(value, dict) else {"": value}
    if isinstance(value, list):
        sides = {str(number): side for number, side in enumerate(value)}
    if not sides or len(sides) > 4:
        raise UnfitFile(f"{where} is {abridged(value)}, and has to name a height and a width, or an edge")
    for side, length in sides.items():
        whole_number(f"{where}.{side}".rstrip("."), length, 1, _MOST_PIXELS_OF_A_SIDE)


def check_mean(where: str, value: Any) -> None:
    """Raise :class:`UnfitFile` unless it is a number, or one for each channel."""
    for channel in _channels(where, value):
        if isinstance(channel, bool) or not isinstance(channel, (int, float)):
            raise UnfitFile(f"{where} is {abridged(channel)}, and has to be a number")
        check_finite(where, channel)


def check_deviation(where: str, value: Any) -> None:
    """Raise :class:`UnfitFile` unless it is a number above 0, or one for each channel."""
    for channel in _channels(where, value):
        _check_above_zero(where, channel)


def _channels(where: str, value: Any) -> list[Any]:
    channels = value if isinstance(value, list) else [value]
    if not 1 <= len(channels) <= 4:
        raise UnfitFile(f"{where} is {abridged(value)}, and has to have a number for each channel")
    return channels


def _check_above_zero(where: str, value: Any) -> None:
    check_finite(where, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise UnfitFile(f"{where} is {abridged(value)}, and has to be above 0")


def _check_within(most: int, least: int = 1) -> Callable[[str, Any], Any]:
    return lambda where, value: whole_number(where, value, least, most)


_FIELDS: dict[str, Callable[[str, Any], Any]] = {
    "image_processor_type": _check_class,
    "feature_extractor_type": _check_class,
    **dict.fromkeys(_FLAGS, _check_flag),
    **dict.fromkeys(("size", "crop_size", "pad_size"), _check_sides),
    **dict.fromkeys(("rescale_factor", "crop_pct"), _check_above_zero),
    "image_mean": check_mean,
    "image_std": check_deviation,
    "resample": _check_within(_FILTERS, least=0),
    "patch_size": _check_within(_MOST_PIXELS_OF_A_SIDE),
    "max_num_patches": _check_within(_MOST_PATCHES),
}
