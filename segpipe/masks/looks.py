"""What a photograph looks like in a few integers: colour sums for a dataset's mean, a hash that survives re-encoding.

The hash is the sign pattern of the lowest frequencies ("pHash": Zauner 2010, chapter 3.2). All arithmetic is in
integers, so that the same pixels give the same numbers on every machine. Part of the room `masks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from segpipe.types import ImageLook

Hashes = Sequence[int] | npt.NDArray[np.uint64]
# Photographs of different things differ in 32 of 64 bits on average; copies at half the size or JPEG quality in a few.
COPY_DISTANCE = 6
_SIDE, _KEPT = 32, 8
_BLOCK = 1024
_FREQUENCY, _PLACE = np.mgrid[0:_KEPT, 0:_SIDE]
# The first rows of a cosine transform, in units of 2**-10.
_COSINES = np.round(1024 * np.cos(np.pi * _FREQUENCY * (2 * _PLACE + 1) / (2 * _SIDE))).astype(np.int64)


def look_at(image: Image.Image) -> ImageLook:
    """The look of a decoded image; grey counts as three equal channels, alpha is dropped."""
    image.info.pop("transparency", None)  # of a palette, Pillow would warn that RGB cannot say it
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    counts = np.array(rgb.histogram(), dtype=np.int64).reshape(3, 256)
    levels = np.arange(256, dtype=np.int64)
    sums, squares = counts @ levels, counts @ levels**2
    return ImageLook(
        height=rgb.height,
        width=rgb.width,
        perceptual_hash=_perceptual_hash(rgb),
        rgb_sum=(int(sums[0]), int(sums[1]), int(sums[2])),
        rgb_square_sum=(int(squares[0]), int(squares[1]), int(squares[2])),
    )


def near_copies(first: Hashes, second: Hashes) -> list[tuple[int, int]]:
    """The places (i, j) of perceptual hashes first[i] and second[j] that differ in at most 6 bits; the first j of i.

    One for each i, since all frames of a fixed camera are alike. A hash of 0 is that of an image without structure,
    and matches nothing. Costs len(first) * len(second) steps of a nanosecond.
    """
    left, right = np.asarray(first, dtype=np.uint64), np.asarray(second, dtype=np.uint64)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(left), _BLOCK):
        block = left[start : start + _BLOCK, None]
        near = (np.bitwise_count(block ^ right[None, :]) <= COPY_DISTANCE) & (block != 0) & (right != 0)
        pairs.extend((start + int(i), int(near[i].argmax())) for i in np.flatnonzero(near.any(axis=1)))
    return pairs


def _perceptual_hash(rgb: Image.Image) -> int:
    grey = rgb.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    pixels: npt.NDArray[np.int64] = np.asarray(grey, dtype=np.int64)
    # Without the mean, which is the same for every image up to its brightness.
    spectrum = (_COSINES @ pixels @ _COSINES.T).ravel()[1:]
    bits = spectrum > np.median(spectrum)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
