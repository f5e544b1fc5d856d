"""Photographs of phones, as HEIF files (HEIC): their decoder is a package of its own, which not everybody needs."""

from __future__ import annotations

import functools

from clip_operator.errors import Reason, RowError

_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_SEVERAL_KINDS = frozenset({b"mif1", b"msf1"})
_OF_AVIF = frozenset({b"avif", b"avis"})
_MOST_BRANDS_BYTES = 256


def is_heif(data: bytes) -> bool:
    """Tell whether a file's first box (ISO/IEC 14496-12) says that it is HEIF; AVIF, which is alike, is not."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), _MOST_BRANDS_BYTES)
    others = {data[at : at + 4] for at in range(16, end, 4)}
    return data[8:12] in _BRANDS or (data[8:12] in _SEVERAL_KINDS and others.isdisjoint(_OF_AVIF))


@functools.cache
def load_decoder() -> str:
    """Register the decoder, in one thread and without embedded previews; return Pillow's name of the format.

    :raises RowError: ``IMAGE_UNREADABLE``: it is not installed.
    """
    try:
        import pillow_heif
    except ImportError:
        raise RowError(
            Reason.IMAGE_UNREADABLE,
            "the image is a HEIF file (HEIC), and its decoder is not installed where the scoring runs: install the "
            "extra heif there",
        ) from None
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    return str(pillow_heif.HeifImageFile.format)
