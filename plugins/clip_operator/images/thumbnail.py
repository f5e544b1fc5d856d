"""A small picture of a large one, for pages that people look at."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL_PIXELS = 240
_QUALITY = 80


def thumbnail(image: Image.Image) -> bytes:
    """Return a JPEG of an image whose longer side has at most :data:`THUMBNAIL_PIXELS` pixels.

    :param image: in mode RGB, as the model sees it: without transparency, turned by EXIF or not. Nothing of its file
        but the pixels is taken over.
    """
    small = image.copy()
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    small.info = {}  # Pillow would write the file's comment into the new one
    out = BytesIO()
    small.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()
