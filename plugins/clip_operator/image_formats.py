"""The formats of images that are read, and what their files are called: alone, in folders and in tars."""

from __future__ import annotations

IMAGE_FORMATS = {
    "JPEG": ("JpegImagePlugin", ("jpg", "jpeg", "jpe", "jfif")),
    "PNG": ("PngImagePlugin", ("png", "apng")),
    "WEBP": ("WebPImagePlugin", ("webp",)),
    "GIF": ("GifImagePlugin", ("gif",)),
    "AVIF": ("AvifImagePlugin", ("avif",)),
    "BMP": ("BmpImagePlugin", ("bmp",)),
    "TIFF": ("TiffImagePlugin", ("tif", "tiff")),
    "JPEG2000": ("Jpeg2KImagePlugin", ("jp2", "j2k", "j2c", "jpc", "jpf", "jpx")),
    "PPM": ("PpmImagePlugin", ("ppm", "pgm", "pbm", "pnm", "pfm")),
    "TGA": ("TgaImagePlugin", ("tga",)),
}
"""Pillow's plugin of each format, and the endings of its files.

These are the formats that image data sets are made of. Everything else stays out of reach of untrusted bytes: EPS
starts Ghostscript, QOI is decoded in Python pixel by pixel, ICO holds whole images of another size than its directory
says, and PSD, FLI, FITS, … are seldom-used parsers. TGA has no signature, so it is asked last."""

HEIF_ENDINGS = ("heic", "heif", "hif")
"""Of the files whose decoder is a package of its own."""

IMAGE_ENDINGS = frozenset(HEIF_ENDINGS).union(*(endings for _, endings in IMAGE_FORMATS.values()))
"""What the names of image files end in, in lower case and without the dot."""
