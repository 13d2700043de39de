"""The maps that a `Sample` carries, as arrays, and the masks of its segments. Part of the room `masks`.

Letter legend: H W image size in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import CorruptError
from segpipe.masks.coco import Mask, decode_rle
from segpipe.types import Sample, Segment


def read_map(stored: bytes, sample: Sample, *, what: str = "map") -> npt.NDArray[Any]:
    """The ids (H, W) of a label map or segment map as `sample` stores it: little-endian, 1, 2 or 4 bytes an id.

    A view of the bytes. Raises CorruptError, which calls it `what`, where they are not H * W ids.
    """
    pixels = sample.height * sample.width
    width = len(stored) // pixels
    if width not in (1, 2, 4) or width * pixels != len(stored):
        raise CorruptError(
            f"sample {sample.sample_id}: a {what} of {len(stored)} bytes for {sample.height} x {sample.width} pixels; "
            "expected 1, 2 or 4 for each: ingest again"
        )
    return np.frombuffer(stored, dtype=f"<u{width}").reshape(sample.height, sample.width)


def mask_of(segment: Segment, sample: Sample) -> Mask:
    """The (H, W) mask of 0 and 1 of one of the sample's segments: its run lengths, or its id in the segment map.

    Raises BadSampleError, CorruptError.
    """
    if segment.rle is not None:
        return decode_rle(segment.rle, sample.height, sample.width, file=sample.sample_id)
    inside: Mask = (read_map(sample.segment_map or b"", sample) == segment.segment_id).astype(np.uint8)
    return inside
