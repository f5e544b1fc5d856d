"""How a picture is turned by what its file says of the camera: EXIF's orientation."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# Where Pillow keeps what a file says of it.
_SAID_IN = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


def turning(image: Image.Image) -> Image.Transpose | None:
    """Return what turns a loaded image upright, as ``PIL.ImageOps.exif_transpose`` would; None if it stays as it is.

    EXIF that cannot be read says nothing. A TIFF is None in any case: Pillow itself turns it when it is loaded.
    """
    if not any(key in image.info for key in _SAID_IN):
        return None
    from PIL import ExifTags, Image

    # Pillow reads all of it at once, and what hostile EXIF makes of it may be large: it is not to stay with the image.
    reader = Image.new("1", (1, 1))
    reader.info = image.info
    try:
        return _turnings().get(reader.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever Pillow stumbles over, struct.error, SyntaxError, MemoryError; the pixels are there
        return None


def turned(image: Image.Image) -> Image.Image:
    """Return a loaded image upright; the same object if it is."""
    way = turning(image)
    if way is None:
        return image
    image = image.transpose(way)
    for key in _SAID_IN:
        image.info.pop(key, None)
    return image


@functools.cache
def _turnings() -> Mapping[object, Image.Transpose]:
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
