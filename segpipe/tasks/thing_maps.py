"""Panoptic quality of things alone, beside the AP of a task whose masks may overlap: both sides as maps of segments.

Each pixel then belongs to one object or to the background, by these rules:

* Of what was found, masks that score at least 0.5 are laid down by falling score. Each takes the pixels that are free;
  one of which more than half is taken already is left out (`refine/panoptic_merge.py`, Panoptic FPN's heuristic and
  Detectron2's limits for COCO). Pixels that nothing takes are void of the prediction, and lower nobody's IoU but that
  of the true object that they were to cover.
* Of true objects that overlap the smaller one lies on top, as in `painting.py`: the other way round, what is carried,
  worn or in front would have no pixel. The first stored of equals does. An object without a free pixel is not asked
  for. Crowds come last and are one segment a class, as in COCO's panoptic files: what lies by more than half on that of
  its class is no false positive.
* Pixels of the truth that no object covers are background, and not void: sets of objects label all there are of their
  classes. What is found there is a false positive, and its pixels there are part of the union. The background, which
  is also what stuff is here, is a segment of a class of its own, which is not scored.

So masks that overlap are no perfect answer: the truth of 79 photographs of COCO, fed back with equal scores, has PQ
0.85 where its AP is 1; that of nuclei, which do not overlap, has PQ 1.

Matching and counting are those of `metrics/panoptic.py`. No task itself. Legend: H W size of the image, P its pixels in
one row, down its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe import masks
from segpipe.metrics import PanopticMeter, panoptic_item
from segpipe.predictions import Detections
from segpipe.refine.panoptic_merge import VOID, merge_detections, stack
from segpipe.types import Segment

Runs = npt.NDArray[np.int64]


def thing_meter(things: Sequence[int], *, background: int) -> PanopticMeter:
    """The meter of these classes; `background` is an id that no class has."""
    return PanopticMeter([*({"id": k, "isthing": 1} for k in things), {"id": background, "isthing": 0}])


def count_things(
    meter: PanopticMeter,
    sample_id: str,
    truths: Sequence[tuple[Segment, Runs]],
    found: Detections,
    *,
    background: int,
) -> None:
    """Counts one image: its true things with their runs (`masks.segment_runs`), crowds among them, and what was found,
    with masks. Raises InputError as the meter does, BadSampleError where a mask of `found` does not decode."""
    merged = merge_detections(found)
    truth = true_item(sample_id, truths, found.size, background=background)
    meter.update([truth], [panoptic_item(sample_id, merged.ids_HW.T, merged.segments)])


def true_item(
    sample_id: str, truths: Sequence[tuple[Segment, Runs]], size: tuple[int, int], *, background: int
) -> dict[str, Any]:
    """The true side of an image of `size` (H, W) as an item of `panoptic_quality`, without a pixel of void.

    Its map is (W, H), as run lengths lie in memory: what is counted does not depend on it, and turning costs a copy.
    """
    objects = [(each.class_id, masks.pixels_of_runs(runs)) for each, runs in truths if not each.is_crowd]
    objects.sort(key=lambda one: one[1].size)
    crowds: dict[int, list[Runs]] = {}
    for each, runs in truths:
        if each.is_crowd:
            crowds.setdefault(each.class_id, []).append(masks.pixels_of_runs(runs))
    layers = [*objects, *((class_id, np.unique(np.concatenate(parts))) for class_id, parts in crowds.items())]
    ids_P, kept = stack((places for _, places in layers), size[0] * size[1])
    infos = [
        {"id": number, "category_id": layers[m][0], "iscrowd": int(m >= len(objects))}
        for number, m in enumerate(kept, start=1)
    ]
    if (free_P := ids_P == VOID).any():
        ids_P[free_P] = len(kept) + 1
        infos.append({"id": len(kept) + 1, "category_id": background, "iscrowd": 0})
    return {"image_id": sample_id, "map": ids_P.reshape(size[1], size[0]), "segments_info": infos}
