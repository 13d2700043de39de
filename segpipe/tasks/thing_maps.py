"""The truth of an image as a map of segments, for the tasks that have a panoptic quality: `pq/things` of the instance
task, whose masks may overlap, is that of the panoptic task. No task itself.

Each pixel of the truth belongs to one segment, by these rules:

* A stored segment map is taken as it is: nothing in it overlaps.
* Of things with run lengths that overlap the smaller one lies on top, as in `painting.py`: the other way round, what
  is carried, worn or in front would have no pixel. The first stored of equals does. A thing without a free pixel is not
  asked for. Crowds come last and are one segment a class, as in COCO's panoptic files: what lies by more than half on
  that of its class is no false positive.
* What is free then is stuff where the label map says so, a segment a class, and else void: pixels that are ignored, and
  things of which only the label map tells, since nobody said how many there are. What is found there by more than half
  is no false positive, and pixels there are no part of the union.
* Without a label map sets of objects label all there are of their classes. The instance task takes what is free for
  background then, a segment of a class of its own, which is not scored.

Of what the instance task finds, masks that score at least 0.5 are laid down by falling score. Each takes the pixels
that are free; one of which more than half is taken already is left out (`refine/panoptic_merge.py`, Panoptic FPN's
heuristic and Detectron2's limits for COCO). Pixels that nothing takes are void of the prediction, and lower nobody's
IoU but that of the true object that they were to cover.

So masks that overlap are no perfect answer: the truth of 79 photographs of COCO, fed back with equal scores, has PQ
0.85 where its AP is 1; that of nuclei, which do not overlap, has PQ 1.

Matching and counting are those of `metrics/panoptic.py`. Legend: H W size of the image, h w size of a crop of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe import masks
from segpipe.metrics import PanopticMeter, panoptic_item
from segpipe.predictions import Detections, PanopticMap
from segpipe.refine.panoptic_merge import VOID, merge_detections
from segpipe.types import ClassInfo, Sample, Segment

Ids = npt.NDArray[np.integer[Any]]
Runs = npt.NDArray[np.int64]


def true_map(
    sample: Sample, classes: Sequence[ClassInfo], runs: Iterable[tuple[Segment, Runs]] | None = None
) -> PanopticMap:
    """A stored image as the map that a perfect model would give of it.

    Segments of the segment map keep their ids, the others are numbered here. `runs` are those of its things
    (`masks.segment_runs`), where the caller has them already. Raises CorruptError where what is stored is damaged.
    """
    if sample.segment_map is None:
        ids_HW: Ids = np.full((sample.height, sample.width), VOID, dtype=np.int32)
    else:
        ids_HW = masks.read_map(sample.segment_map, sample, what="segment map").astype(np.int32)
    segments = [each for each in sample.segments if each.rle is None]
    if len(segments) < len(sample.segments):
        _add_things(ids_HW, segments, masks.segment_runs(sample) if runs is None else runs, classes)
    if sample.label_map is not None:
        labels_HW = masks.read_map(sample.label_map, sample, what="label map")
        for class_id in np.unique(labels_HW[ids_HW == VOID]).tolist():
            if class_id < len(classes) and not classes[class_id].is_thing:
                _add(ids_HW, segments, labels_HW == class_id, class_id)
    return PanopticMap(ids_HW=ids_HW, segments=tuple(segments))


def thing_meter(classes: Sequence[ClassInfo]) -> PanopticMeter:
    """The meter of the instance task: of these classes, and of the background, whose id is the one after theirs."""
    is_thing = (*(info.is_thing for info in classes), False)
    return PanopticMeter([{"id": k, "isthing": int(each)} for k, each in enumerate(is_thing)])


def count_things(
    meter: PanopticMeter,
    sample: Sample,
    runs: Iterable[tuple[Segment, Runs]],
    found: Detections,
    *,
    classes: Sequence[ClassInfo],
) -> None:
    """Counts one image: its true things with their runs, crowds among them, and what was found, with masks.

    Raises InputError as the meter does, BadSampleError where a mask of `found` does not decode.
    """
    merged = merge_detections(found)
    truth = true_map(sample, classes, runs)
    segments = list(truth.segments)
    if sample.label_map is None:
        _add(truth.ids_HW, segments, truth.ids_HW == VOID, len(classes))
    said = panoptic_item(sample.sample_id, merged.ids_HW, merged.segments)
    meter.update([panoptic_item(sample.sample_id, truth.ids_HW, segments)], [said])


def _add_things(
    ids_HW: Ids, segments: list[Segment], runs: Iterable[tuple[Segment, Runs]], classes: Sequence[ClassInfo]
) -> None:
    """The things with run lengths, in place."""
    things = [(each, its) for each, its in runs if each.rle is not None and classes[each.class_id].is_thing]
    for segment, its in sorted(things, key=lambda one: (one[0].is_crowd, int(one[1][1::2].sum()))):
        top, left, mask_hw = masks.crop_of_runs(its, len(ids_HW))
        within_hw = ids_HW[top : top + mask_hw.shape[0], left : left + mask_hw.shape[1]]
        _add(within_hw, segments, mask_hw, segment.class_id, is_crowd=segment.is_crowd)


def _add(
    ids_hw: Ids, segments: list[Segment], mask_hw: npt.NDArray[np.bool_], class_id: int, *, is_crowd: bool = False
) -> None:
    """One more segment of the free pixels of a mask, or more pixels of its class's crowd, in place."""
    free_hw = mask_hw & (ids_hw == VOID)
    area = float(np.count_nonzero(free_hw))
    if not area:
        return
    crowds = [m for m, each in enumerate(segments) if is_crowd and each.is_crowd and each.class_id == class_id]
    if crowds:
        crowd = segments[crowds[0]]
        segments[crowds[0]] = replace(crowd, area=crowd.area + area)
        ids_hw[free_hw] = crowd.segment_id
        return
    number = max((each.segment_id for each in segments), default=VOID) + 1
    ids_hw[free_hw] = number
    segments.append(Segment(segment_id=number, class_id=class_id, area=area, is_crowd=is_crowd))
