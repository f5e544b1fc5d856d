"""GIF files that cost far more than they look."""

from __future__ import annotations

from tests.images.pictures import drawn, encoded


def gif_of_many_extensions(size: int) -> bytes:
    """Return a GIF with ``size`` bytes of empty extension blocks before its first frame."""
    return _with_blocks(b"!\1\0\0" * (size // 4))


def gif_of_many_comments(size: int) -> bytes:
    """Return a GIF with a comment of ``size`` bytes in pieces of two, which are objects of their own until it ends."""
    return _with_blocks(b"!\xfe" + b"\2xy" * (size // 3) + b"\0")


def _with_blocks(blocks: bytes) -> bytes:
    gif = encoded(drawn("P"), "GIF")
    frame = 13 + 3 * 2 ** (gif[10] % 8 + 1)  # behind the header and the palette of all frames
    return gif[:frame] + blocks + gif[frame:]
