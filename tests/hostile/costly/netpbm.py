"""PBM, PGM and PPM files that cost far more than they look. Pillow reads their text forms in Python."""

from __future__ import annotations


def plain_ppm_of_comments(size: int) -> bytes:
    """Return a PPM of numbers in text, with ``size`` bytes of empty comments before them.

    Pillow takes comments out one by one, copying the rest of up to 1 MiB each time.
    """
    return b"P3\n24 16\n255\n" + b"#\n" * (size // 2) + b"9 " * (3 * 24 * 16)


def ppm_of_header_comments(size: int) -> bytes:
    """Return a PPM of bytes with a comment of ``size`` bytes before its width, which is read byte by byte."""
    return b"P6\n#" + b"x" * size + b"\n24 16\n255\n" + b"9" * (3 * 24 * 16)


def ppm_of_odd_depth(width: int, height: int) -> bytes:
    """Return a whole PPM with values up to 254, each of which is scaled to 255 in Python."""
    return b"P6\n%d %d\n254\n" % (width, height) + b"9" * (3 * width * height)
