"""The objects of an image or of a crop: masks, boxes, keypoints. Decoded late, and only where a crop wants them.

Sits beside `decode.py`; `window.py`, `warp.py` and `copy_paste.py` move them. The lazy form of objects is the `Sample`
itself, whose run lengths and id map cost nothing until `decode_objects` is asked for a region.

Legend: N objects, P keypoints of an object, H W size of the image or crop in pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segpipe import masks
from segpipe.types import ClassInfo, Sample, Segment


class Region(NamedTuple):
    """Rows top..bottom and columns left..right of an image, the last ones excluded."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """N objects that show at least one pixel, in the order stored. Masks may overlap.

    `class_ids_N` and `segment_ids_N` are int64, `is_crowd_N` and `masks_NHW` bool. `boxes_N4` float32 are x0, y0, x1,
    y1 tight around the mask, so that x1 - x0 counts columns. `keypoints_NP3` float32 are x, y, visibility as COCO has
    them: (0, 0) is the middle of the first pixel; 0 is not labelled (then x and y are 0, too), 1 hidden, 2 seen. None
    where no object has any; an object with fewer than P is filled up with such as are not labelled.
    """

    class_ids_N: Tensor
    segment_ids_N: Tensor
    is_crowd_N: Tensor
    masks_NHW: Tensor
    boxes_N4: Tensor
    keypoints_NP3: Tensor | None

    def __len__(self) -> int:
        return len(self.class_ids_N)


def decode_objects(sample: Sample, region: Region | None = None) -> Objects:
    """The objects of which `region` (default: all of the image) shows a pixel, in coordinates of the region.

    Keypoints outside of it are kept, with coordinates that say so: what resizes or turns the region decides about
    them. Raises CorruptError when the stored masks are not what ingest had checked.
    """
    region = region or Region(0, sample.height, 0, sample.width)
    ids_HW = _ids(sample, region)
    shown: list[tuple[Segment, npt.NDArray[np.bool_]]] = []
    for segment in sample.segments:
        mask_HW = _mask(sample, segment, ids_HW, region)
        if mask_HW is not None and mask_HW.any():
            shown.append((segment, mask_HW))
    size = (region.bottom - region.top, region.right - region.left)
    stack = [mask_HW for _, mask_HW in shown]
    masks_NHW = torch.from_numpy(np.stack(stack)) if stack else torch.zeros((0, *size), dtype=torch.bool)
    return Objects(
        class_ids_N=torch.tensor([segment.class_id for segment, _ in shown], dtype=torch.int64),
        segment_ids_N=torch.tensor([segment.segment_id for segment, _ in shown], dtype=torch.int64),
        is_crowd_N=torch.tensor([segment.is_crowd for segment, _ in shown], dtype=torch.bool),
        masks_NHW=masks_NHW,
        boxes_N4=boxes_of(masks_NHW),
        keypoints_NP3=_keypoints(sample, [segment.segment_id for segment, _ in shown], region),
    )


def wanted(sample: Sample, classes: Sequence[ClassInfo], *, with_keypoints: bool) -> Sample:
    """The sample with only those objects that some task trains on: things, crowds, and what has keypoints, if asked
    for. Stuff is learnt from labels, and there is most of it."""
    keypoints = sample.keypoints if with_keypoints else ()
    posed = {each.segment_id for each in keypoints}
    segments = tuple(
        each for each in sample.segments if classes[each.class_id].is_thing or each.is_crowd or each.segment_id in posed
    )
    return dataclasses.replace(sample, segments=segments, keypoints=keypoints)


def boxes_of(masks_NHW: Tensor) -> Tensor:
    """(N, 4) float32 x0, y0, x1, y1 tight around bool masks (N, H, W); zeros for a mask without a pixel."""
    if not masks_NHW.numel():
        return torch.zeros((len(masks_NHW), 4))
    inside_NHW = masks_NHW.numpy()  # NumPy's any() is 20 to 40 times faster than torch's on a bool tensor
    (x0, x1), (y0, y1) = (_ends(np.logical_or.reduce(inside_NHW, axis=axis)) for axis in (1, 2))
    return torch.from_numpy(np.stack([x0, y0, x1, y1], axis=1).astype(np.float32))


def moved(objects: Objects, masks_NHW: Tensor, keypoints_NP3: Tensor | None) -> Objects:
    """The same objects at another place: boxes follow the masks."""
    return dataclasses.replace(objects, masks_NHW=masks_NHW, boxes_N4=boxes_of(masks_NHW), keypoints_NP3=keypoints_NP3)


def take(objects: Objects, kept_N: Tensor) -> Objects:
    """The objects where bool (N,) `kept_N` holds."""
    keypoints_NP3 = objects.keypoints_NP3
    return Objects(
        class_ids_N=objects.class_ids_N[kept_N],
        segment_ids_N=objects.segment_ids_N[kept_N],
        is_crowd_N=objects.is_crowd_N[kept_N],
        masks_NHW=objects.masks_NHW[kept_N],
        boxes_N4=objects.boxes_N4[kept_N],
        keypoints_NP3=None if keypoints_NP3 is None else keypoints_NP3[kept_N],
    )


def visible(objects: Objects, *, min_area: int) -> Objects:
    """What a finished crop shows: objects of at least `min_area` pixels, and the keypoints inside of it.

    A crowd is kept down to its last pixel: it says what must not be counted as background.
    """
    area_N = torch.tensor([np.count_nonzero(mask_HW) for mask_HW in objects.masks_NHW.numpy()], dtype=torch.int64)
    kept = take(objects, (area_N >= min_area) | (objects.is_crowd_N & (area_N > 0)))
    if kept.keypoints_NP3 is None:
        return kept
    height, width = kept.masks_NHW.shape[1:]
    column_NP, row_NP = pixel_of(kept.keypoints_NP3)
    inside_NP = (column_NP >= 0) & (column_NP < width) & (row_NP >= 0) & (row_NP < height)
    labelled_NP = inside_NP & (kept.keypoints_NP3[..., 2] > 0)
    return dataclasses.replace(kept, keypoints_NP3=kept.keypoints_NP3 * labelled_NP[..., None])


def pixel_of(keypoints_NP3: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row, int64 (N, P), of the pixel that each keypoint lies in."""
    column_NP, row_NP = (keypoints_NP3[..., :2] + 0.5).floor().long().unbind(-1)
    return column_NP, row_NP


def _ends(any_NL: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First place and one behind the last where a bool (N, L) holds; 0, 0 where it never does."""
    some_N = any_NL.any(1)
    return any_NL.argmax(1) * some_N, (any_NL.shape[1] - any_NL[:, ::-1].argmax(1)) * some_N


def _ids(sample: Sample, region: Region) -> npt.NDArray[Any] | None:
    """The region of the segment map, as narrow as it is stored; None where the sample has none."""
    if sample.segment_map is None:
        return None
    ids_HW = masks.read_map(sample.segment_map, sample, what="segment map")
    region_HW: npt.NDArray[Any] = ids_HW[region.top : region.bottom, region.left : region.right]
    return region_HW


def _mask(
    sample: Sample, segment: Segment, ids_HW: npt.NDArray[Any] | None, region: Region
) -> npt.NDArray[np.bool_] | None:
    """One object in the region, or None where it has no pixels of its own."""
    if segment.rle is None:
        return None if ids_HW is None else ids_HW == segment.segment_id
    strip = masks.mask_of(segment, sample, columns=(region.left, region.right))
    return strip[region.top : region.bottom].astype(np.bool_)


def _keypoints(sample: Sample, segment_ids: list[int], region: Region) -> Tensor | None:
    """(N, P, 3), relative to the region; None where none of these objects has any."""
    points = {each.segment_id: each.points for each in sample.keypoints if each.points}
    most = max((len(points[each]) for each in segment_ids if each in points), default=0)
    if not most:
        return None
    keypoints_NP3 = torch.zeros(len(segment_ids), most, 3)
    for number, segment_id in enumerate(segment_ids):
        if segment_id in points:
            keypoints_NP3[number, : len(points[segment_id])] = torch.tensor(points[segment_id])
    keypoints_NP3[..., 0] -= region.left
    keypoints_NP3[..., 1] -= region.top
    return keypoints_NP3
