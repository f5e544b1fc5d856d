"""The bytes of an image file → RGB pixels."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from clip_operator.errors import Reason, RowError
from clip_operator.image_formats import IMAGE_FORMATS
from clip_operator.images.heif import is_heif, load_decoder
from clip_operator.images.jpeg_scans import is_one_scan
from clip_operator.images.orientation import turned

if TYPE_CHECKING:
    from PIL import Image

# Its plugin for Pillow decodes all of a file when it is opened, before a limit can be asked.
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")

# Where every image comes to the same size, memory and time are bounded by the longer side alone.
_MAX_ASPECT_RATIO, _MAX_ASPECT_RATIO_TO_ONE_SIZE = 200, 1000


def open_image(
    data: bytes, max_pixels: int, at_least: int | None = None, *, to_one_size: bool = False
) -> tuple[Image.Image, int]:
    """Return an image of whose file only the header has been read, and how many pixels :func:`load_rgb` will hold.

    :param max_pixels: the most pixels (width x height) of the file, whatever is decoded of them. Pillow's own limit of
        178,956,970 holds beside it.
    :param at_least: the length in pixels that the caller will resize the short side to. A JPEG is then decoded at 1/2,
        1/4 or 1/8 of its size, rounded up, as far as its short side keeps twice that length. None, the default, for
        every pixel of every file.
    :param to_one_size: the caller will make every image one size, and no larger one on the way.
    :raises RowError: ``IMAGE_UNREADABLE`` if the bytes are not an image in a format read here; ``IMAGE_TOO_LARGE`` if
        it has too many pixels or one side is over 200 times the other, or 1,000 times where it comes to one size.
    """
    if not data:
        raise RowError(Reason.IMAGE_UNREADABLE, "the image file is empty")
    from PIL import Image, UnidentifiedImageError

    with _errors_explained():
        formats = (*_load_plugins(), load_decoder()) if is_heif(data) else _load_plugins()
        try:
            image = Image.open(BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            problem = f"the {len(data):,} bytes are not an image in {', '.join(formats)} format"
            if data.startswith(_JPEG_XL):
                problem = "the image is a JPEG XL file, which is not read; convert it, to JPEG where it was made of one"
            raise RowError(Reason.IMAGE_UNREADABLE, problem) from None
    width, height = image.size
    _check_shape(image.size, max_pixels, _MAX_ASPECT_RATIO_TO_ONE_SIZE if to_one_size else _MAX_ASPECT_RATIO)
    if at_least is not None:
        # Does nothing unless it is a JPEG. Twice the length leaves the caller's own filter something to average: after
        # it photos differ by some 0.3 of 255 levels in the mean, and coloured text, the worst case met, by 3.
        image.draft(None, (2 * at_least, 2 * at_least))
        if is_one_scan(data):
            width, height = image.size
    return image, width * height


def load_rgb(image: Image.Image, upright: bool = False) -> Image.Image:
    """Return the first frame of an opened image, fully loaded, in mode ``RGB``; the same object if that is its mode.

    The pixels are exactly those of Pillow's ``Image.open(file).convert("RGB")``: no colour management, transparency
    dropped, 16-bit values clipped. Peak memory is 4 bytes a pixel for most JPEG and PNG files, 10 for progressive JPEG
    and AVIF, 20 for WebP and 25 for JPEG 2000.

    :param upright: turn it as its EXIF says, pixel for pixel as ``PIL.ImageOps.exif_transpose`` does.
    :raises RowError: ``IMAGE_UNREADABLE`` if the file is broken or cut short, ``IMAGE_TOO_LARGE`` if there is not
        enough memory.
    """
    with _errors_explained():
        image.load()
        image = image if image.mode == "RGB" else image.convert("RGB")
        return turned(image) if upright else image


@contextmanager
def _errors_explained() -> Iterator[None]:
    """Turn whatever is raised inside into a :class:`RowError`; for blocks that do nothing but read one image."""
    from PIL import Image

    try:
        yield
    except RowError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RowError(Reason.IMAGE_TOO_LARGE, "the image has more pixels than Pillow accepts") from None
    except MemoryError:
        # Nearly always one allocation whose size the file itself chose; a machine that is really out of memory kills
        # the process instead. As the job's error, one such file would stop every run of the data set.
        raise RowError(Reason.IMAGE_TOO_LARGE, "the image needs more memory to decode than there is") from None
    except Exception as error:
        # Parsers meet hostile bytes here, and Pillow lets through whatever they stumble over: OSError, SyntaxError,
        # ValueError, EOFError, struct.error, zlib.error, but also KeyError, TypeError, OverflowError, RuntimeError.
        raise RowError(
            Reason.IMAGE_UNREADABLE, f"the image is broken or cut short ({type(error).__name__}: {_short(error)})"
        ) from None


def _check_shape(size: tuple[int, int], max_pixels: int, max_aspect_ratio: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise RowError(
            Reason.IMAGE_TOO_LARGE,
            f"the image has {width:,} x {height:,} pixels, more than the {max_pixels:,} accepted",
        )
    if max(width, height) > max_aspect_ratio * min(width, height):
        raise RowError(
            Reason.IMAGE_TOO_LARGE,
            f"the image has {width:,} x {height:,} pixels, a shape thinner than {max_aspect_ratio:,}:1, which would "
            "explode when its short side is resized for the model",
        )


@functools.cache
def _load_plugins() -> tuple[str, ...]:
    """Register the formats above and return their names; no other parser is even imported."""
    from PIL import Image

    # Pillow warns about odd metadata file by file, which over a data set floods the log, and of bombs, which are
    # judged above. warnings.catch_warnings swaps state that all threads share, so the filters are set once and for
    # good: for the whole process, but only for what Pillow's own modules say. What libtiff, below Pillow, writes to
    # stderr about a broken file is out of Python's reach.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=r"PIL\.")
    for plugin, _ in IMAGE_FORMATS.values():
        try:
            importlib.import_module(f"PIL.{plugin}")
        except ImportError:  # AVIF came with Pillow 11.3
            continue
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)


def decode_in_one_thread() -> None:
    """Load all decoders now, and let none of them use more than one thread, for a process of which there are many."""
    if "AVIF" in _load_plugins():
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _short(error: Exception) -> str:
    text = str(error)[:80]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
