"""The resize and centre crop of one image by Pillow, as a checkpoint's image processor does them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Resizing:
    """What is done to each RGB image before its pixels go to the model. It can be handed to another process.

    :param shortest_edge: the length in pixels that the short side is resized to; None if ``size`` is given, or neither
        for an image that keeps its size.
    :param size: the width and height in pixels that every image is resized to.
    :param resample: Pillow's number of the filter.
    :param crop: width and height in pixels of the centre crop; None for none.
    :param onto_white: lay an image in which one colour is transparent onto white first.
    """

    shortest_edge: int | None
    size: tuple[int, int] | None
    resample: int
    crop: tuple[int, int] | None
    onto_white: bool

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
        if size != image.size:
            image = image.resize(size, self.resample)
        if self.crop is not None and self.crop != image.size:
            width, height = self.crop
            # Negative where the image is smaller than the crop, and then Pillow fills up with zeros.
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return image

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that an image of this width and height is resized to."""
        if self.shortest_edge is not None:
            short = min(width, height)
            return self.shortest_edge * width // short, self.shortest_edge * height // short
        return self.size or (width, height)


def _onto_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
