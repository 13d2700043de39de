"""The truth of the panoptic task: a stored image as the map that a perfect model would give of it.

Letter legend: H W size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segpipe import masks
from segpipe.predictions import PanopticMap
from segpipe.types import ClassInfo, Sample, Segment

Ids = npt.NDArray[np.int32]


def panoptic_truth(sample: Sample, classes: Sequence[ClassInfo]) -> PanopticMap | None:
    """One segment a pixel, 0 = void; None for a sample without a label map.

    The segment map is taken as it is. Segments with run lengths (nuclei, one mask each) take what is free, crowds last.
    Stuff that only the label map tells becomes a segment of its class. Things that only the label map tells are void:
    how many there are, nobody said. The latter two kinds of segments are numbered here.
    """
    if sample.label_map is None:
        return None
    if sample.segment_map is None:
        ids_HW: Ids = np.zeros((sample.height, sample.width), dtype=np.int32)
    else:
        ids_HW = masks.read_map(sample.segment_map, sample, what="segment map").astype(np.int32)
    segments = [each for each in sample.segments if each.rle is None]
    for segment in sorted((each for each in sample.segments if each.rle is not None), key=lambda each: each.is_crowd):
        _add(ids_HW, segments, masks.mask_of(segment, sample) != 0, segment.class_id, is_crowd=segment.is_crowd)
    labels_HW = masks.read_map(sample.label_map, sample, what="label map")
    for class_id in np.unique(labels_HW[ids_HW == 0]).tolist():
        if class_id < len(classes) and not classes[class_id].is_thing:
            _add(ids_HW, segments, labels_HW == class_id, class_id, is_crowd=False)
    return PanopticMap(ids_HW=ids_HW, segments=tuple(segments))


def _add(
    ids_HW: Ids, segments: list[Segment], mask_HW: npt.NDArray[np.bool_], class_id: int, *, is_crowd: bool
) -> None:
    """One more segment of the free pixels of a mask, in place; none where there are none."""
    free_HW = mask_HW & (ids_HW == 0)
    area = np.count_nonzero(free_HW)
    if area:
        number = max((each.segment_id for each in segments), default=0) + 1
        ids_HW[free_HW] = number
        segments.append(Segment(segment_id=number, class_id=class_id, area=float(area), is_crowd=is_crowd))
