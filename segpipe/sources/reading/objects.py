"""Objects in every spelling of the field -> segments: polygons, run lengths, masks, id maps. Part of `reading`.

Letter legend: H W image size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segpipe import masks
from segpipe.errors import BadSampleError
from segpipe.types import Segment

# 16 bits of ids in one image; the densest public images hold a few thousand objects.
MAX_REGIONS = 65535


class Regions(NamedTuple):
    """An id map with small ids: `segment_map[y, x]` is 1 + the place in `raw_ids`, 0 where there is nothing.

    `areas` are the pixels of each.
    """

    segment_map: npt.NDArray[Any]
    raw_ids: tuple[int, ...]
    areas: tuple[int, ...]


def segment_of_mask(
    mask: npt.ArrayLike,
    *,
    segment_id: int,
    class_id: int,
    is_crowd: bool = False,
    area: float | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> Segment:
    """A segment with run lengths of its own, as objects that may overlap need. `mask` is (H, W), not 0 = inside.

    `area` and `box` (x, y, width, height) are what the dataset states; without an area, the pixels are counted.
    """
    counts: bytes = masks.encode_rle(mask)["counts"]
    pixels = float(np.count_nonzero(mask)) if area is None else area
    return Segment(segment_id=segment_id, class_id=class_id, area=pixels, is_crowd=is_crowd, rle=counts, box=box)


def mask_of_segmentation(segmentation: Any, height: int, width: int, *, file: str) -> masks.Mask:
    """COCO's `segmentation` (a list of polygons, or run lengths, compressed or not) as a (H, W) mask of 0 and 1.

    Raises BadSampleError(bad_annotation).
    """
    if isinstance(segmentation, Mapping):
        return masks.decode_rle(segmentation, height, width, file=file)
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str) and segmentation:
        return masks.polygon_to_mask(segmentation, height, width, file=file)
    raise BadSampleError(
        "bad_annotation", file, f"segmentation is {segmentation!r:.80}; expected polygons or run lengths: draw it again"
    )


def regions(ids: npt.NDArray[Any], *, nothing: Sequence[int] = (0,), file: str) -> Regions:
    """Numbers the regions of an id map (H, W) from 1 in the order of their raw ids; `nothing` are ids of no region.

    Raises BadSampleError(bad_annotation) above 65535 regions.
    """
    raw_ids, places, pixels = np.unique(ids, return_inverse=True, return_counts=True)
    kept = ~np.isin(raw_ids, nothing)
    if (count := int(kept.sum())) > MAX_REGIONS:
        raise BadSampleError(
            "bad_annotation", file, f"{count} different ids; at most {MAX_REGIONS} objects: is this an id map?"
        )
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint8 if count < 256 else np.uint16)
    return Regions(numbers[places.reshape(ids.shape)], tuple(raw_ids[kept].tolist()), tuple(pixels[kept].tolist()))
