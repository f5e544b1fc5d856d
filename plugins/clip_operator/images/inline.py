"""Images that come inside the row: raw bytes, base64 and ``data:`` URIs."""

from __future__ import annotations

import binascii
import hashlib
from urllib.parse import unquote_to_bytes

from clip_operator.errors import Reason, RowError
from clip_operator.images.base64_text import LONGEST_NAME, begins_as_image, decoded, decoded_size
from clip_operator.images.location import ImageLocation, shown


def locate_bytes(data: bytes | bytearray | memoryview, max_bytes: int) -> ImageLocation:
    """Return the location of bytes that are already here; raise :class:`RowError` if there are too many."""
    _check_size(data.nbytes if isinstance(data, memoryview) else len(data), max_bytes)
    data = bytes(data)
    return ImageLocation(key=f"sha256:{hashlib.sha256(data).hexdigest()}", data=data)


def locate_data_uri(uri: str, max_bytes: int) -> ImageLocation:
    """Return the location of the bytes in a ``data:`` URI (RFC 2397), base64 or percent-encoded.

    The media type is not looked at: the bytes tell what they are. White space and missing padding in base64 are
    forgiven, as browsers do, and so is the alphabet for URLs.
    """
    header, comma, payload = uri.partition(",")
    if not comma:
        raise RowError(Reason.IMAGE_UNREADABLE, f"the data URI {shown(uri)} has no comma before its data")
    base64 = header.rstrip().lower().endswith(";base64")
    if base64 and "%" not in payload:
        _check_size(decoded_size(payload), max_bytes)  # before the copies that decoding makes
    try:
        data = unquote_to_bytes(payload.encode())
    except UnicodeEncodeError:
        raise RowError(Reason.IMAGE_UNREADABLE, f"the data URI {shown(uri)} is not valid Unicode") from None
    if base64:
        try:
            data = decoded(data)
        except binascii.Error:
            raise RowError(Reason.IMAGE_UNREADABLE, f"the data URI {shown(uri)} is not valid base64") from None
    return locate_bytes(data, max_bytes)


def locate_base64(text: str, max_bytes: int) -> ImageLocation | None:
    """Return the location of the image that a text is in base64, in either alphabet; None for a text that is a name.

    It is an image if it begins as one and all of it is base64; what begins as one and is longer than names are, is no
    name in any case.

    :raises RowError: ``IMAGE_TOO_LARGE``; ``IMAGE_UNREADABLE`` if it is neither a whole image nor a name.
    """
    if not begins_as_image(text):
        return None
    _check_size(decoded_size(text), max_bytes)
    try:
        return locate_bytes(decoded(text.encode()), max_bytes)
    except (binascii.Error, UnicodeEncodeError):
        if len(text) <= LONGEST_NAME:
            return None
    raise RowError(Reason.IMAGE_UNREADABLE, f"{shown(text)} begins as an image in base64, but is not valid base64")


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise RowError(
            Reason.IMAGE_TOO_LARGE, f"the image inside the row has {size:,} bytes, more than the {max_bytes:,} accepted"
        )
