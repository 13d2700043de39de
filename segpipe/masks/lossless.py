"""Pixels that no file of ours holds yet -> PNG, without losing a bit. Part of the room `masks`.

For the few datasets that ship no JPEG or PNG: Windows bitmaps (SegTrack), arrays (NYU Depth v2).
Letter legend: H W image size in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from PIL import BmpImagePlugin, Image

from segpipe.errors import BadSampleError
from segpipe.masks.headers import MAX_PIXELS, decoding

BITMAP_START = b"BM"
_BITMAP_MODES = ("1", "L", "P", "RGB")


def encode_png(pixels: npt.NDArray[Any], *, quickly: bool = False) -> bytes:
    """uint8 (H, W, 3) as RGB, uint8 or uint16 (H, W) as grey; `quickly` in a quarter of the time, somewhat larger."""
    return _png(Image.fromarray(pixels), compress_level=1 if quickly else 6)


def encode_ids(ids_HW: npt.NDArray[Any], colours: Sequence[tuple[int, int, int]] | None) -> bytes:
    """uint8 ids (H, W) as a PNG of indices into `colours`, white beyond these; without colours as grey, of 8 or, of
    uint16, 16 bits. Compressed for speed: ids become no smaller for more time."""
    image = Image.fromarray(ids_HW)
    if colours is not None:
        table = [channel for colour in colours for channel in colour]
        image.putpalette(table + [255] * (768 - len(table)))
    return _png(image, compress_level=1)


def png_of_bitmap(data: bytes, *, file: str, max_pixels: int = MAX_PIXELS) -> bytes:
    """A Windows bitmap as PNG of the same mode and pixels; every other file is given back as it is.

    Raises BadSampleError(truncated | unreadable | mask_mode | too_large).
    """
    if not data.startswith(BITMAP_START):
        return data
    with decoding(file):
        image = BmpImagePlugin.BmpImageFile(io.BytesIO(data))
        width, height = image.size
        if not 0 < width * height <= max_pixels:
            raise BadSampleError(
                "too_large", file, f"{width}x{height} pixels; allowed are 1 to {max_pixels}: scale it down"
            )
        if image.mode not in _BITMAP_MODES:
            raise BadSampleError("mask_mode", file, f"a bitmap of mode {image.mode}; expected grey or RGB: convert it")
        image.load()
    return _png(image)


def _png(image: Image.Image, compress_level: int = 6) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=compress_level)
    return stream.getvalue()
