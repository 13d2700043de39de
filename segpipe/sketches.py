"""What pages show of a prediction: a map of at most `predictions.SMALL_SIDE` either way and, where it has objects or
segments, what these are and which of the truth's they found. Of the truth, in the same form.

    evaluate -> Packed -> predictions.zip beside the report -> Sketch -> card, page of a night

Found, missed and false are settled at the image's own size, where the measure counts them: in a map that was shrunk,
small objects are a pixel. Objects that overlap lie as `tasks/thing_maps.py` has them, the smaller one on top.

Legend: N objects, H W size of the image, h w of its sketch, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segpipe import masks
from segpipe.errors import BadSampleError, InputError
from segpipe.metrics.matching import matches, segment_matches
from segpipe.predictions import (
    SURE_SCORE,
    Detections,
    Integers,
    LabelMap,
    PanopticMap,
    Prediction,
    shrunk,
    shrunk_size,
    surest,
)

FRAME = 2  # pixels of a sketch; where there are no masks, an object is the frame of its box


@dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """The objects or segments of a sketch by number, from 1: the class of each. Beside a truth also the pairs (truth's
    number, own one) that match, the truth's that were missed, and the own that are false."""

    class_ids: tuple[int, ...]
    found: tuple[tuple[int, int], ...] = ()
    missed: tuple[int, ...] = ()
    false: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sketch:
    """`ids_hw` are class ids, in a truth also the ignored one; with `objects` their numbers, 0 where there is none."""

    ids_hw: Integers
    objects: Objects | None = None


class Packed(NamedTuple):
    """A sketch whose map is a PNG of 8 or 16 bits."""

    png: bytes
    objects: Objects | None


def sketch(prediction: Prediction, truth: Prediction | None = None, *, num_classes: int, what: str) -> Sketch | None:
    """The sketch of a prediction, beside its truth, or of a truth; None of keypoints.

    Of detections it has those of `SURE_SCORE` and above. Raises InputError, which calls the image `what`, where masks
    do not decode or maps and segments do not fit together.
    """
    if isinstance(prediction, LabelMap):
        return Sketch(ids_hw=shrunk(prediction.ids_HW))
    if isinstance(prediction, Detections):
        sure = surest(prediction, SURE_SCORE)
        ids_hw = _framed(sure) if sure.masks is None else _laid(sure, sure.masks, what)
        return Sketch(ids_hw=ids_hw, objects=_objects(sure, truth if isinstance(truth, Detections) else None))
    if isinstance(prediction, PanopticMap):
        known = truth if isinstance(truth, PanopticMap) else None
        ids_hw = numbered(shrunk(prediction.ids_HW), prediction)
        return Sketch(ids_hw=ids_hw, objects=segments_of(prediction, known, num_classes=num_classes, what=what))
    return None


def pack(found: Sketch) -> Packed:
    """As an evaluation stores it."""
    ids_hw = found.ids_hw
    is_wide = ids_hw.itemsize > 1 if found.objects is None else len(found.objects.class_ids) > 255
    return Packed(masks.encode_png(ids_hw.astype(np.uint16 if is_wide else np.uint8), quickly=True), found.objects)


def unpack(packed: Packed, *, file: str) -> Sketch:
    """Raises BadSampleError where the PNG does not decode."""
    return Sketch(ids_hw=masks.read_label_image(packed.png, file=file), objects=packed.objects)


def _objects(sure: Detections, truth: Detections | None) -> Objects:
    class_ids = tuple(sure.class_ids_N.tolist())
    if truth is None:
        return Objects(class_ids=class_ids)
    taken = matches(sure, truth).tolist()
    return Objects(
        class_ids=class_ids,
        found=tuple((m + 1, n + 1) for n, m in enumerate(taken) if m >= 0),
        missed=tuple(m + 1 for m in range(len(truth)) if m not in taken),
        false=tuple(n + 1 for n, m in enumerate(taken) if m < 0),
    )


def segments_of(said: PanopticMap, truth: PanopticMap | None, *, num_classes: int, what: str) -> Objects:
    """The segments of a map, numbered as they come. Raises InputError where maps and segments do not fit together."""
    class_ids = tuple(segment.class_id for segment in said.segments)
    if truth is None:
        return Objects(class_ids=class_ids)
    matched = segment_matches(said, truth, num_classes=num_classes, what=what)
    own, theirs = (
        {segment.segment_id: n for n, segment in enumerate(each.segments, start=1)} for each in (said, truth)
    )
    return Objects(
        class_ids=class_ids,
        found=tuple((theirs[t], own[p]) for t, p in matched.ious),
        missed=tuple(theirs[t] for t in matched.missed),
        false=tuple(sorted(own[p] for p in matched.spurious)),
    )


def numbered(ids_hw: Integers, found: PanopticMap) -> Integers:
    """Segment ids (h, w) of a map as the numbers of its segments: a table by id would be as long as the largest one,
    and COCO's have 24 bits."""
    ids = np.array([segment.segment_id for segment in found.segments], dtype=np.int64)
    order = np.argsort(ids)
    numbers_hw: Integers = np.concatenate(([0], order + 1))[np.searchsorted(ids[order], ids_hw, side="right")]
    return numbers_hw


def _laid(found: Detections, rles: tuple[bytes, ...], what: str) -> Integers:
    """The number of the object at each pixel (h, w), small ones over large ones; one that lies between the pixels that
    are picked still has one."""
    height, width = found.size
    try:
        runs_N = [masks.rle_runs(rle, height, width, file=what) for rle in rles]
    except BadSampleError as error:
        raise InputError(f"{what}: a mask does not decode: {error.detail}") from None
    crops = [(n, *masks.crop_of_runs(runs, height)) for n, runs in enumerate(runs_N, start=1) if runs[1::2].any()]
    ids_HW = np.zeros((height, width), dtype=np.int32)
    for n, top, left, inside_hw in sorted(crops, key=lambda crop: -int(np.count_nonzero(crop[3]))):
        ids_HW[top : top + inside_hw.shape[0], left : left + inside_hw.shape[1]][inside_hw] = n
    ids_hw = shrunk(ids_HW)
    seen, (h, w) = set(np.unique(ids_hw).tolist()), ids_hw.shape
    for n, top, left, inside_hw in crops:
        if n not in seen:
            rows, columns = np.nonzero(inside_hw)
            middle = len(rows) // 2
            ids_hw[(top + rows[middle]) * h // height, (left + columns[middle]) * w // width] = n
    return ids_hw


def _framed(found: Detections) -> Integers:
    """The number of the object whose box's frame a pixel (h, w) belongs to, small ones over large ones."""
    (height, width), (h, w) = found.size, shrunk_size(*found.size)
    scale_4 = np.array([w / width, h / height, w / width, h / height])
    corners_N4 = np.clip((found.boxes_N4 * scale_4).round().astype(np.int64), 0, [w - 1, h - 1, w, h])
    x0_N, y0_N, x1_N, y1_N = corners_N4.T
    ids_hw = np.zeros((h, w), dtype=np.int32)
    for n in np.argsort(-(x1_N - x0_N) * (y1_N - y0_N), kind="stable").tolist():
        box_hw = ids_hw[y0_N[n] : max(y1_N[n], y0_N[n] + 1), x0_N[n] : max(x1_N[n], x0_N[n] + 1)]
        for edge_hw in (box_hw[:FRAME], box_hw[-FRAME:], box_hw[:, :FRAME], box_hw[:, -FRAME:]):
            edge_hw[:] = n + 1
    return ids_hw
