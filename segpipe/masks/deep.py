"""PNGs of more than 8 bits a channel: depth, optical flow, ids in two channels. Part of the room `masks`.

Letter legend: H W image size in pixels.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import PngImagePlugin

from segpipe.errors import BadSampleError
from segpipe.masks.headers import decoding, read_image_header

EXTRA_MODES = ("L", "I;16", "RGB", "RGBA")
_TRUECOLOUR = 2


def check_extra(data: bytes, *, file: str, height: int, width: int) -> None:
    """Decodes a PNG of values such as depth or flow, and compares its size with its image's.

    Raises BadSampleError(size_mismatch | format_not_allowed | mask_mode | truncated | unreadable | too_large).
    """
    header = read_image_header(data, file=file)
    if header.format != "PNG":
        detail = f"a {header.format}, which changes values; expected a PNG: export it as one"
        raise BadSampleError("format_not_allowed", file, detail)
    if (header.height, header.width) != (height, width):
        raise BadSampleError(
            "size_mismatch",
            file,
            f"{header.width}x{header.height}, its image {width}x{height}; expected the same size: export it anew",
        )
    with decoding(file):
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        if image.mode not in EXTRA_MODES:
            raise BadSampleError(
                "mask_mode", file, f"mode {image.mode}; expected grey or colour of 8 or 16 bits: save it as such"
            )
        image.load()


def read_rgb16(data: bytes, *, file: str) -> npt.NDArray[np.uint16]:
    """The three channels (H, W, 3) of a PNG of 16 bits a channel, every bit of them.

    Raises BadSampleError(mask_mode | format_not_allowed | truncated | unreadable | too_large).
    """
    header = read_image_header(data, file=file)
    if header.format != "PNG" or (data[24], data[25]) != (16, _TRUECOLOUR):
        raise BadSampleError(
            "mask_mode", file, f"a {header.format}, not one of 3 channels of 16 bits each: fetch the file as published"
        )
    high_HW3, low_HW3 = _bytes_of(data, "RGB;16B", file), _bytes_of(data, "RGB;16L", file)
    return high_HW3.astype(np.uint16) * np.uint16(256) + low_HW3


def _bytes_of(data: bytes, rawmode: str, file: str) -> npt.NDArray[np.uint8]:
    """The first byte of every value as "RGB;16B", the second as "RGB;16L": Pillow itself keeps the first alone."""
    with decoding(file):
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        image.tile = [tile._replace(args=rawmode) for tile in image.tile]
        return np.array(image)
