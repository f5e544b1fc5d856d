"""The resize and centre crop of one image by Pillow, as a checkpoint's image processor does them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# A larger image is not made whole only to be cropped: that of a long strip would fill the memory.
_PIXELS_MADE_WHOLE = 1 << 22


@dataclass(frozen=True, slots=True)
class Resizing:
    """What is done to each RGB image before its pixels go to the model. It can be handed to another process.

    :param shortest_edge: the length in pixels that the short side is resized to; None if ``size`` is given, or neither
        for an image that keeps its size.
    :param size: the width and height in pixels that every image is resized to.
    :param resample: Pillow's number of the filter.
    :param crop: width and height in pixels of the centre crop; None for none.
    :param onto_white: lay an image in which one colour is transparent onto white first.
    :param crop_to_even: where the crop cannot stand in the middle, it begins at the even one of the two pixels beside
        it, as torchvision's; else at the first.
    """

    shortest_edge: int | None
    size: tuple[int, int] | None
    resample: int
    crop: tuple[int, int] | None
    onto_white: bool
    crop_to_even: bool = False

    @property
    def side(self) -> int | None:
        """The most pixels that an image's short side is resized to; None if it is not resized."""
        return self.shortest_edge if self.size is None else max(self.size)

    @property
    def pixels(self) -> int | None:
        """How many pixels every image has afterwards; None where that varies."""
        size = self.crop or self.size
        return None if size is None else size[0] * size[1]

    def apply(self, image: Image.Image) -> Image.Image:
        """Resize and crop one image, fully loaded and of mode ``RGB``; the same object if there is nothing to do."""
        if self.onto_white and image.info.get("transparency") is not None:  # a PNG may make an RGB colour transparent
            image = _onto_white(image)
        size = self._resized(*image.size)
        if self.crop is not None and size[0] * size[1] > _PIXELS_MADE_WHOLE:
            image = _resized_middle(image, size, self.crop, self._start, self.resample)
        elif size != image.size:
            image = image.resize(size, self.resample)
        if self.crop is not None and self.crop != image.size:
            width, height = self.crop
            # Negative where the image is smaller than the crop, and then Pillow fills up with zeros.
            left, top = self._start(image.width - width), self._start(image.height - height)
            image = image.crop((left, top, left + width, top + height))
        return image

    def _start(self, excess: int) -> int:
        """Return at which pixel of a side the crop begins, by how many more the image has."""
        return round(excess / 2) if self.crop_to_even else excess // 2

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that an image of this width and height is resized to."""
        if self.shortest_edge is not None:
            short = min(width, height)
            return self.shortest_edge * width // short, self.shortest_edge * height // short
        return self.size or (width, height)


def _resized_middle(
    image: Image.Image, size: tuple[int, int], crop: tuple[int, int], start: Callable[[int], int], resample: int
) -> Image.Image:
    """Return what a crop keeps of the longer side of a resized image, and all of the shorter one.

    Pillow resizes rows first and then columns, each one by itself, so that the pixels are the same whichever of them
    are there at once.

    :param size: the width and height in pixels of the whole.
    :param start: gives the pixel at which the crop begins, by how many more the whole has.
    """
    from PIL import Image

    if size[1] > size[0]:
        image = image.resize((size[0], image.height), resample)
        middle, top = Image.new("RGB", (size[0], crop[1])), start(size[1] - crop[1])
        for left, right in _strips(size[0], size[1]):
            strip = image.crop((left, 0, right, image.height)).resize((right - left, size[1]), resample)
            middle.paste(strip.crop((0, top, right - left, top + crop[1])), (left, 0))
        return middle
    middle, left = Image.new("RGB", (crop[0], image.height)), start(size[0] - crop[0])
    for top, bottom in _strips(image.height, size[0]):
        strip = image.crop((0, top, image.width, bottom)).resize((size[0], bottom - top), resample)
        middle.paste(strip.crop((left, 0, left + crop[0], bottom - top)), (0, top))
    return middle.resize((crop[0], size[1]), resample)


def _strips(lines: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield from where to where strips of so many lines together go, each line of so many pixels."""
    step = max(1, _PIXELS_MADE_WHOLE // length)
    for start in range(0, lines, step):
        yield start, min(start + step, lines)


def _onto_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
