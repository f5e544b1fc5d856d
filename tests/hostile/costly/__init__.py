"""Image files within all limits of bytes and pixels whose decoding takes seconds or gigabytes."""

from __future__ import annotations

from collections.abc import Callable

from tests.hostile.costly.avif import avif_of_many_frames
from tests.hostile.costly.bmp import bmp_of_nibbles, bmp_of_short_rows
from tests.hostile.costly.gif import gif_of_many_comments, gif_of_many_extensions
from tests.hostile.costly.jpeg import (
    jpeg_of_many_exif_segments,
    jpeg_of_many_scans,
    jpeg_of_many_segments,
    jpeg_of_padding,
)
from tests.hostile.costly.jpeg2000 import jpeg_2000_of_many_packets, jpeg_2000_of_tiny_precincts
from tests.hostile.costly.netpbm import plain_ppm_of_comments, ppm_of_header_comments, ppm_of_odd_depth
from tests.hostile.costly.png import (
    interlaced_png_of_zeros,
    png_of_colour_profiles,
    png_of_empty_data_chunks,
    png_of_many_chunks,
)
from tests.hostile.costly.tiff import tiff_of_many_strips, tiff_of_one_large_tile, tiff_of_tall_tiles
from tests.hostile.costly.webp import webp_of_large_canvas

SLOW: dict[str, Callable[[], bytes]] = {
    "scans.jpg": lambda: jpeg_of_many_scans(8_000, 1_000),
    "exif.jpg": lambda: jpeg_of_many_exif_segments(5_000_000),
    "profiles.png": lambda: png_of_colour_profiles(2_500),
    "comments.ppm": lambda: plain_ppm_of_comments(1 << 20),
    "rows.bmp": lambda: bmp_of_short_rows(8_000),
    "nibbles.bmp": lambda: bmp_of_nibbles(9_900),
    "tiles.tif": lambda: tiff_of_tall_tiles(200, 64 << 20),
    "strips.tif": lambda: tiff_of_many_strips(500_000),  # more take more memory than time
    "packets.jp2": lambda: jpeg_2000_of_many_packets(1_000, 32),
    "frames.avif": lambda: avif_of_many_frames(4_096, 300),
}
"""Files of which each takes more than 2 seconds of a processor and little memory, by names of such files."""

LARGE: dict[str, Callable[[], bytes]] = {
    "precincts.jp2": lambda: jpeg_2000_of_tiny_precincts(3_000),
    "tile.tif": lambda: tiff_of_one_large_tile(16, 26_000),
}
"""Files of a few hundred bytes of which each takes more than 1.5 GiB of memory."""

AT_THE_LIMITS: dict[str, Callable[[], bytes]] = {
    "scans.jpg": lambda: jpeg_of_many_scans(13_376, 1_000),
    "exif.jpg": lambda: jpeg_of_many_exif_segments(60 << 20),
    "segments.jpg": lambda: jpeg_of_many_segments(63 << 20),
    "padding.jpg": lambda: jpeg_of_padding(63 << 20),
    "profiles.png": lambda: png_of_colour_profiles(60_000),
    "chunks.png": lambda: png_of_many_chunks(63 << 20),
    "empty.png": lambda: png_of_empty_data_chunks(63 << 20),
    "interlaced.png": lambda: interlaced_png_of_zeros(13_376),
    "comments.ppm": lambda: plain_ppm_of_comments(60 << 20),
    "header.ppm": lambda: ppm_of_header_comments(60 << 20),
    "depth.ppm": lambda: ppm_of_odd_depth(4_700, 4_700),
    "rows.bmp": lambda: bmp_of_short_rows(13_376),
    "nibbles.bmp": lambda: bmp_of_nibbles(13_376),
    "extensions.gif": lambda: gif_of_many_extensions(63 << 20),
    "comments.gif": lambda: gif_of_many_comments(63 << 20),
    "tile.tif": lambda: tiff_of_one_large_tile(16, 26_000),
    "tiles.tif": lambda: tiff_of_tall_tiles(200, 640 << 20),
    "strips.tif": lambda: tiff_of_many_strips(30 << 20),
    "precincts.jp2": lambda: jpeg_2000_of_tiny_precincts(13_376),
    "packets.jp2": lambda: jpeg_2000_of_many_packets(13_000, 52),
    "frames.avif": lambda: avif_of_many_frames(8_192, 1_000),
    "canvas.webp": lambda: webp_of_large_canvas(13_376),
}
"""Each kind nearly as costly as 64 MiB and 178,956,970 pixels allow, and some that then are not cheap either."""
