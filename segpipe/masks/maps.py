"""The maps that a stored `Sample` carries, as arrays, and the masks of its segments. Part of the room `masks`.

What is damaged here had been checked by ingest: that is a CorruptError, and no BadSampleError.

Letter legend: H W image size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segpipe.errors import BadSampleError, CorruptError
from segpipe.masks.coco import Mask, decode_rle
from segpipe.types import IGNORE_8BIT, Sample, Segment

Decoded = TypeVar("Decoded")


def ids_type(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Of a map's class ids: one byte where that leaves 255 free for what is ignored, or for no class, else two."""
    return np.uint8 if num_classes <= IGNORE_8BIT else np.uint16


def stored(ids_HW: npt.NDArray[Any]) -> bytes:
    """Ids as a Sample holds them: row-major, little-endian. `read_map` reads them back."""
    return np.ascontiguousarray(ids_HW, dtype=ids_HW.dtype.newbyteorder("<")).tobytes()


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


def mask_of(segment: Segment, sample: Sample, *, columns: tuple[int, int] | None = None) -> Mask:
    """The (H, W) mask of 0 and 1 of one of the sample's segments: its run lengths, or its id in the segment map.

    Or its `columns` from the first to before the second. Raises CorruptError.
    """
    if segment.rle is not None:
        return decode_stored(segment, sample, partial(decode_rle, columns=columns))
    ids_HW = read_map(sample.segment_map or b"", sample)[:, slice(*columns or (None,))]
    inside: Mask = (ids_HW == segment.segment_id).astype(np.uint8)
    return inside


def decode_stored(segment: Segment, sample: Sample, decode: Callable[..., Decoded]) -> Decoded:
    """What `decode_rle` or `rle_runs` makes of a segment's run lengths. Raises CorruptError for a damaged one."""
    where = f"sample {sample.sample_id}, segment {segment.segment_id}"
    try:
        return decode(segment.rle, sample.height, sample.width, file=where)
    except BadSampleError as error:
        raise CorruptError(
            f"{where}: the stored mask does not decode ({error.detail}); expected run lengths of "
            f"{sample.height} x {sample.width} pixels: ingest again"
        ) from None
