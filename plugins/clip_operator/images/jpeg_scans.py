"""Whether a JPEG file can be decoded strip by strip, or only as a whole."""

from __future__ import annotations

_FRAMES_WITHOUT_REFINEMENT = frozenset({0xC0, 0xC1, 0xC9})  # baseline, extended, arithmetic; not progressive
_START_OF_SCAN = 0xDA
_BARE_MARKERS = frozenset({*range(0xC0), *range(0xD0, 0xDA), 0xFF})  # no length follows them


def is_one_scan(data: bytes) -> bool:
    """Say whether the first scan of a JPEG file holds all there is of the image (ITU-T T.81, annex B).

    libjpeg decodes such a file strip by strip. Of any other, a progressive one or one with a scan for each colour, it
    keeps the coefficients of the whole image, 2 bytes each, at whatever size the pixels are wanted.

    :returns: False also for a file whose header is written in an unusual way, such as with bytes between segments.
    """
    components = b""
    position = 2  # after the start-of-image marker
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        if marker in _BARE_MARKERS:
            return False
        if marker == _START_OF_SCAN:
            return data[position + 4 : position + 5] == components
        if marker in _FRAMES_WITHOUT_REFINEMENT:
            components = data[position + 9 : position + 10]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False
