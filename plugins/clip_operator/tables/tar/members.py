"""Finds the files in a tar without unpacking any, one header at a time, so that memory stays bounded."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from clip_operator.errors import JobError
from clip_operator.machine.stopping import check_not_stopped

MAX_HEADER_BYTES = 1024 * 1024
"""The longest extended header that is read: it holds a name."""

_BLOCK = tarfile.BLOCKSIZE
_REST_BYTES = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
# What is not UTF-8 in a name is spelt out, so that the name is text and no two names become one.
_ENCODING, _ERRORS = "utf-8", "backslashreplace"
_PAX_RECORD = re.compile(rb"(\d{1,10}) ([^=]+)=")
_SHOWN_CHARACTERS = 80
_LONG_NAME = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_PAX = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}


class TarMember(NamedTuple):
    """A file in a tar: its name as it stands there, where its bytes begin, and how many they are."""

    name: str
    offset: int
    size: int


def shown(name: str) -> str:
    """Return the start of a member's name on one line, for an error message."""
    start = "".join(char if char.isprintable() else " " for char in name[:_SHOWN_CHARACTERS])
    return f"{start}…" if len(name) > _SHOWN_CHARACTERS else start


def tar_members(file: BinaryIO) -> Iterator[TarMember]:
    """Yield the regular files in a tar, in order. Folders, links and devices are passed over.

    :param file: the tar; what else is read from it between two members does not matter.
    :raises JobError: if the tar is damaged, cut off or joined to another one, or has a member that cannot be read.
    """
    end = file.seek(0, io.SEEK_END)
    position = 0
    previous = "its beginning"
    name: str | None = None
    size: int | None = None
    while True:
        check_not_stopped()
        header = _header(file, position, end, previous)
        if header is None:
            _check_rest(file, position, previous)
            return
        data = position + _BLOCK
        if header.type in _LONG_NAME or header.type in _PAX or header.type == tarfile.XGLTYPE:
            text = _extended(file, data, header.size, end, previous)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = text.rstrip(b"\0").decode(_ENCODING, _ERRORS)
            elif header.type in _PAX:
                name, size = _pax(text, name, previous)
            position = _next_block(data + header.size)
            continue
        member = TarMember(name or header.name, data, header.size if size is None else size)
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _sparse(member.name)
        name = size = None
        previous = f"the member {shown(member.name)!r}"
        # A link and the like state a size, too, in some tars, but have no data.
        has_data = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        position = _next_block(data + member.size) if has_data else data
        if has_data and data + member.size > end:
            raise JobError(f"The tar is cut off inside of {previous}. Write or upload it again.")
        if header.isreg() and not header.issparse():
            yield member


def _header(file: BinaryIO, position: int, end: int, previous: str) -> tarfile.TarInfo | None:
    """Return the header at a position; None for the block of zeros that ends a tar."""
    if position + _BLOCK > end:
        raise JobError(f"The tar is cut off behind {previous}: it has no end marker. Write or upload it again.")
    file.seek(position)
    block = file.read(_BLOCK)
    if not block.strip(b"\0"):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, _ENCODING, _ERRORS)
    except tarfile.HeaderError as error:
        hint = " It is gzip-compressed; unpack it once." if position == 0 and block.startswith(_GZIP_MAGIC) else ""
        raise _damaged(previous, str(error), hint) from error
    if header.size < 0:
        raise _damaged(previous, "a size below zero")
    return header


def _damaged(previous: str, problem: str, hint: str = "") -> JobError:
    return JobError(f"Behind {previous} the file is not a tar ({problem}).{hint or ' Write or upload it again.'}")


def _sparse(name: str) -> JobError:
    return JobError(
        f"The member {shown(name)!r} of the tar is stored with holes (as a sparse file), which is not read. "
        "Write the tar without --sparse."
    )


def _extended(file: BinaryIO, start: int, size: int, end: int, previous: str) -> bytes:
    if size > MAX_HEADER_BYTES:
        raise _damaged(previous, f"an extended header of {size:,} bytes")
    if start + size > end:
        raise JobError(f"The tar is cut off behind {previous}. Write or upload it again.")
    file.seek(start)
    return file.read(size)


def _pax(text: bytes, name: str | None, previous: str) -> tuple[str | None, int | None]:
    """Return the next member's name and size, as far as an extended header gives them."""
    size: int | None = None
    position = 0
    while position < len(text) and text[position]:
        match = _PAX_RECORD.match(text, position)
        length = int(match[1]) if match else 0
        if match is None or not match.end() < position + length <= len(text):
            raise _damaged(previous, "an extended header without records")
        key, value = match[2], text[match.end() : position + length - 1]
        position += length
        if key == b"path":
            name = value.decode(_ENCODING, _ERRORS)
        elif key == b"size":
            if not value.isdigit() or len(value) > len(str(1 << 63)):
                raise _damaged(previous, "a size that is not a number")
            size = int(value)
        elif key.startswith(b"GNU.sparse."):
            raise _sparse(name or "behind " + previous)
    return name, size


def _next_block(position: int) -> int:
    return -(-position // _BLOCK) * _BLOCK


def _check_rest(file: BinaryIO, position: int, previous: str) -> None:
    """Refuse anything but zeros behind the end marker; else rows would be lost without a word."""
    file.seek(position)
    while block := file.read(_REST_BYTES):
        check_not_stopped()
        if block.strip(b"\0"):
            raise JobError(
                f"There is more behind the end of the tar, which is behind {previous}: two tars were joined, perhaps. "
                "Join them with tar --concatenate, or leave them apart."
            )
