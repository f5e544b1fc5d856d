"""One image for the workers to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clip_operator.images.location import ImageLocation
from clip_operator.images.workers.wire import Kind
from clip_operator.storage import ObjectInfo

if TYPE_CHECKING:
    from PIL import Image


@dataclass(eq=False, slots=True)
class ImageTask:
    """One image, what is wanted of it, and in the end what came of it.

    :param location: where it is.
    :param kind: what is wanted of it.
    :param slot: the place for its pixels, if they are wanted and have been resized.
    :param notify: called with the task, from another thread, when it is done.
    :param done: it is: there is ``size`` or ``result``, or ``error``.
    :param size: width and height of the pixels in the slot.
    :param result: the whole image where it is not resized or has no room in a slot; a thumbnail's file.
    :param unturned: its EXIF says that it is to be turned, and it is as it is stored.
    :param error: what went wrong: a :class:`RowError` if it is this image's fault.
    :param version: which version of its file it was, where that was asked for and there is one.
    :param deaths: how often a worker died with it.
    """

    location: ImageLocation
    kind: Kind = Kind.PIXELS
    slot: int = -1
    notify: Callable[[Any], None] = field(default=lambda _task: None)
    done: bool = False
    size: tuple[int, int] | None = None
    result: Image.Image | bytes | None = None
    unturned: bool = False
    error: BaseException | None = None
    version: ObjectInfo | None = None
    deaths: int = 0
