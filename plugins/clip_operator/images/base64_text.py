"""Texts that are no name of an image but the image itself, in base64."""

from __future__ import annotations

import binascii
import re

_WHITE_SPACE = b" \t\r\n\f"

# A text has one alphabet (RFC 4648, sections 4 and 5): beside the characters of one, the other's are none.
_FROM_URL_SAFE = bytes.maketrans(b"-_+/", b"+/!!")

_CHARACTERS_OF_HEAD = 96

# How files of the formats that are decoded begin, with enough of what every such header has that no name spells one by
# chance: at least six bytes, where a name of random letters hits each with 1 in 256. The name would have to have no
# dot, either, and as many characters as the smallest files. A JPEG's own mark is three bytes, which read "/9j/", so
# what comes first in it is looked at, too. TGA has no mark.
_HEAD = re.compile(
    rb"""
      P[1-6][\r\n\t\x20]\d+[\r\n\t\x20]\d+[\r\n\t\x20]
    | (?: \x89PNG\r\n\x1a\n
        | \xff\xd8\xff [\xe0-\xef] .. (?:JFIF|JFXX|Exif|http|ICC_|MPF\0|Phot|Adob|Duck)
        | \xff\xd8\xff (?: \xdb\0[\x43\x84\xc5] | \xc0\0[\x0b\x11]\x08 | \xdd\0\x04 ) .
        | GIF8[79]a
        | RIFF....WEBP
        | \0\0\0.ftyp
        | BM....\0\0\0\0..\0\0 [\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0
        | II\*\0...[\0-\x0f] | MM\0\*[\0-\x0f]
        | \0\0\0\x0c (?:jP\x20\x20|JXL\x20) \r\n\x87\n
        | \xff\x4f\xff\x51\0
      ) .{20}
    """,
    re.VERBOSE | re.DOTALL,
)

LONGEST_NAME = 4096
"""The most characters of what may be a name: no path of Linux and no key of S3, GCS or Azure has more."""

# Of what is longer than names, the mark alone is enough.
_MARK = re.compile(rb"\xff\xd8\xff|\xff\x0a")


def decoded(text: bytes) -> bytes:
    """Return what base64 says, in either alphabet; white space and missing padding are forgiven, nothing else.

    :raises binascii.Error: it is not base64.
    """
    data = text.translate(None, _WHITE_SPACE).rstrip(b"=")
    if b"-" in data or b"_" in data:
        data = data.translate(_FROM_URL_SAFE)
    return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)


def decoded_size(text: str) -> int:
    """Return how many bytes base64 says, or up to two fewer, without a copy of it."""
    return (len(text) - sum(map(text.count, _WHITE_SPACE.decode()))) * 3 // 4 - 2


def begins_as_image(text: str) -> bool:
    """Tell whether a text's first characters are, in base64, the header of an image file, and so no name."""
    head = "".join(text[:_CHARACTERS_OF_HEAD].split())
    try:
        data = decoded(head[: len(head) // 4 * 4].encode())
    except (binascii.Error, UnicodeEncodeError):
        return False
    return bool(_HEAD.match(data) or (len(text) > LONGEST_NAME and _MARK.match(data)))
