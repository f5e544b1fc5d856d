"""Images that come inside the row: raw bytes and ``data:`` URIs."""

from __future__ import annotations

import binascii
import hashlib
from urllib.parse import unquote_to_bytes

from clip_operator.errors import Reason, RowError
from clip_operator.images.location import ImageLocation, shown


def locate_bytes(data: bytes | bytearray | memoryview, max_bytes: int) -> ImageLocation:
    """Return the location of bytes that are already here; raise :class:`RowError` if there are too many."""
    _check_size(data.nbytes if isinstance(data, memoryview) else len(data), max_bytes)
    data = bytes(data)
    return ImageLocation(key=f"sha256:{hashlib.sha256(data).hexdigest()}", data=data)


def locate_data_uri(uri: str, max_bytes: int) -> ImageLocation:
    """Return the location of the bytes in a ``data:`` URI (RFC 2397), base64 or percent-encoded.

    The media type is not looked at: the bytes tell what they are. White space and missing padding in base64 are
    forgiven, as browsers do.
    """
    header, comma, payload = uri.partition(",")
    if not comma:
        raise RowError(Reason.IMAGE_UNREADABLE, f"the data URI {shown(uri)} has no comma before its data")
    base64 = header.rstrip().lower().endswith(";base64")
    if base64 and "%" not in payload:
        _check_size(len(payload) * 3 // 4 - 2, max_bytes)  # before the copies that decoding makes
    try:
        data = unquote_to_bytes(payload.encode())
    except UnicodeEncodeError:
        raise RowError(Reason.IMAGE_UNREADABLE, f"the data URI {shown(uri)} is not valid Unicode") from None
    if base64:
        data = data.translate(None, b" \t\r\n\f").rstrip(b"=")
        try:
            data = binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)
        except binascii.Error:
            raise RowError(Reason.IMAGE_UNREADABLE, f"the data URI {shown(uri)} is not valid base64") from None
    return locate_bytes(data, max_bytes)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise RowError(
            Reason.IMAGE_TOO_LARGE, f"the image inside the row has {size:,} bytes, more than the {max_bytes:,} accepted"
        )
