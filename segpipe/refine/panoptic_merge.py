"""Instances of one image, and perhaps a label map, which contradict each other, as one panoptic map that does not.

The heuristic of Kirillov et al. 2019 (Panoptic Segmentation, arXiv 1801.00868, section 6; Panoptic Feature Pyramid
Networks, arXiv 1901.02446, section 4), with the rules of panopticapi's `combine_semantic_and_instance_predictions.py`
where the papers leave them open. `tasks/panoptic/` calls it, and `tasks/thing_maps.py`, where there are things alone.

Legend: M instances of an image, K classes, H W size in pixels, P all of the pixels in one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe import masks
from segpipe.predictions import Detections, PanopticMap
from segpipe.types import Segment

VOID = 0
# panopticapi's limits for COCO.
OVERLAP_LIMIT, STUFF_AREA_LIMIT = 0.5, 64 * 64
SCORE_THRESHOLD = 0.5  # Detectron2's; the paper searches one on a grid

Integers = npt.NDArray[np.integer[Any]]


def merge(
    places_of: Callable[[int], Integers],
    class_ids_M: npt.ArrayLike,
    scores_M: npt.ArrayLike,
    labels_HW: Integers,
    is_thing_K: Sequence[bool],
    *,
    score_threshold: float = SCORE_THRESHOLD,
    overlap_limit: float = OVERLAP_LIMIT,
    stuff_area_limit: int = STUFF_AREA_LIMIT,
) -> PanopticMap:
    """One segment a pixel, from instances and class ids (H, W) of the same image.

    `places_of(m)` are the places of instance m's pixels in the image read row by row. They are asked for once, and then
    forgotten: a hundred masks of a large photograph would take gigabytes.

    Instances are looked at by falling score (equal ones in the order given). One below `score_threshold` is left out;
    so is one of which more than `overlap_limit` of the pixels are taken already; any other takes its free pixels. What
    is free then goes to the stuff that `labels_HW` names, a segment a class, unless that has fewer than
    `stuff_area_limit` free pixels. Free pixels of anything else, things that no instance covers among it, are void.
    """
    order = _by_score(scores_M, score_threshold)
    ids_P, kept = stack((places_of(int(m)) for m in order), labels_HW.size, overlap_limit=overlap_limit)
    classes: list[int] = np.asarray(class_ids_M, dtype=np.int64)[order[kept]].tolist()
    ids_HW = ids_P.reshape(labels_HW.shape)
    add_stuff(ids_HW, classes, labels_HW, is_thing_K, stuff_area_limit=stuff_area_limit)
    return panoptic_map(ids_HW, classes)


def merge_detections(found: Detections) -> PanopticMap:
    """`merge` of detections with masks, by the limits above and without stuff.

    Raises BadSampleError where a mask does not decode.
    """
    if found.masks is None:
        raise ValueError("merge_detections: detections without masks say nothing of a pixel")
    height, width = found.size
    order = _by_score(found.scores_N, SCORE_THRESHOLD)
    runs = (masks.rle_runs(found.masks[m], height, width, file="detection") for m in order)
    ids_P, kept = stack(map(masks.pixels_of_runs, runs), height * width, overlap_limit=OVERLAP_LIMIT)
    # Run lengths go down the columns.
    return panoptic_map(ids_P.reshape(width, height).T, found.class_ids_N[order[kept]].tolist())


def stack(
    places_M: Iterable[Integers], num_pixels: int, *, overlap_limit: float = 1.0
) -> tuple[npt.NDArray[np.int32], list[int]]:
    """(ids_P, kept): each instance, as the places of its pixels, takes those that none before it took.

    One of which more than `overlap_limit` is taken is left out, as is one without a free pixel. What is left of the
    i-th of `kept`, by their places in `places_M`, has the id i + 1.
    """
    ids_P = np.full(num_pixels, VOID, dtype=np.int32)
    kept: list[int] = []
    for m, places in enumerate(places_M):
        free = places[ids_P[places] == VOID]
        if free.size and (places.size - free.size) / places.size <= overlap_limit:
            kept.append(m)
            ids_P[free] = len(kept)
    return ids_P, kept


def _by_score(scores_M: npt.ArrayLike, score_threshold: float) -> npt.NDArray[np.int64]:
    """The instances that are sure enough, by falling score."""
    scores = np.asarray(scores_M, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    return order[scores[order] >= score_threshold]


def add_stuff(
    ids_HW: npt.NDArray[np.int32],
    classes: list[int],
    labels_HW: Integers,
    is_thing_K: Sequence[bool],
    *,
    stuff_area_limit: int,
) -> None:
    """Gives free pixels to the stuff that `labels_HW` names, in place; `classes[i]` is the class of id i + 1.

    A label that is no class, such as the ignored one, stays void.
    """
    free_HW = ids_HW == VOID
    for k in np.unique(labels_HW[free_HW]).tolist():
        if k >= len(is_thing_K) or is_thing_K[k]:
            continue
        stuff_HW = free_HW & (labels_HW == k)
        if np.count_nonzero(stuff_HW) >= stuff_area_limit:
            classes.append(k)
            ids_HW[stuff_HW] = len(classes)


def panoptic_map(ids_HW: npt.NDArray[np.int32], classes: Sequence[int]) -> PanopticMap:
    """The map of ids 0..S, where id i + 1 is of class `classes[i]`; ids without a pixel are left out."""
    areas = np.bincount(ids_HW.ravel(), minlength=len(classes) + 1)
    return PanopticMap(
        ids_HW=ids_HW,
        segments=tuple(
            Segment(segment_id=number, class_id=class_id, area=float(areas[number]))
            for number, class_id in enumerate(classes, start=1)
            if areas[number]
        ),
    )
