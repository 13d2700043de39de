"""Which detections of one image match a truth by COCO's rules, at every IoU threshold and for every area range at once.

One image says all that it ever will to COCO's scores, whichever worker looks at it; `coco_meter.py` gathers what is
made here. Letter legend: D detections (at most 100 of a category), G truths, T IoU thresholds, A area ranges, J joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.metrics.boundary import rle_boundary
from segpipe.metrics.coco import AREAS, IOU_THRESHOLDS, MAX_DETECTIONS, FloatArray
from segpipe.metrics.coco_entries import MASKS, NUM_KEYPOINTS, Entry

BoolArray = npt.NDArray[np.bool_]

# A perfect overlap may come out a rounding below 1, so that a threshold is never asked to be closer to it.
_LEAST = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
# COCO's tolerance of each joint, in tenths of the person's size: nose, then in pairs eyes, ears, shoulders, elbows,
# wrists, hips, knees and ankles. OKS counts with twice that, squared.
_PAIRS = (0.25, 0.35, 0.79, 0.72, 0.62, 1.07, 0.87, 0.89)
_TOLERANCE = np.array([0.26, *(joint for pair in _PAIRS for joint in (pair, pair))])
_VARIANCE_J: FloatArray = (_TOLERANCE / 10 * 2) ** 2
_BITS = 1 << np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageMatches:
    """What one image adds to the scores, by category and within it by falling score; equal scores in their order.

    `categories` (D,) int32 places, `scores` (D,) float64; `matched` and `ignored` (D, A) uint16, whose bit t is that of
    threshold t; `truths` (categories here, 1 + A) int32: a place, and how many truths each area range has to find.
    """

    categories: npt.NDArray[np.int32]
    scores: FloatArray
    matched: npt.NDArray[np.uint16]
    ignored: npt.NDArray[np.uint16]
    truths: npt.NDArray[np.int32]


def match_image(truths: Sequence[Entry], detections: Sequence[Entry], iou_type: str) -> ImageMatches:
    """Matches the checked entries of one image within each "place", that of their category."""
    areas, most = np.array(list(AREAS[iou_type].values())), MAX_DETECTIONS[iou_type][-1]
    # Without categories, pycocotools still goes through them in their order.
    here = sorted(truths, key=lambda entry: (entry["place"], entry["category_id"]))
    found = sorted(detections, key=lambda entry: (entry["place"], -entry["score"], entry["category_id"]))
    places_D = np.array([entry["place"] for entry in found], dtype=np.int32)
    kept_D = np.arange(len(found)) - np.searchsorted(places_D, places_D) < most
    found, places_D = [entry for entry, kept in zip(found, kept_D.tolist(), strict=True) if kept], places_D[kept_D]
    places_G = np.array([entry["place"] for entry in here], dtype=np.int32)
    ignored_AG = _outside([truth["area"] for truth in here], areas)
    ignored_AG |= np.array([truth["ignore"] for truth in here], dtype=bool)
    crowd_G = np.array([truth["iscrowd"] for truth in here], dtype=bool)
    hits_DAT = np.zeros((len(found), len(areas), len(_LEAST)), dtype=bool)
    skipped_DAT = np.zeros_like(hits_DAT)
    # Of the categories that a model finds in an image, most are not there: only where both are is there work.
    for place in np.intersect1d(places_D, places_G):
        mine, theirs = (slice(*np.searchsorted(each, (place, place + 1))) for each in (places_D, places_G))
        overlaps_DG = overlaps(here[theirs], found[mine], iou_type)
        hits_DAT[mine], skipped_DAT[mine] = match(overlaps_DG, ignored_AG[:, theirs], crowd_G[theirs])
    skipped_DAT |= ~hits_DAT & _outside([entry["area"] for entry in found], areas).T[:, :, None]
    every = np.unique(np.concatenate((places_D, places_G)))
    counting = np.zeros((len(every), len(areas)), dtype=np.int32)
    np.add.at(counting, np.searchsorted(every, places_G), ~ignored_AG.T)
    return ImageMatches(
        categories=places_D,
        scores=np.array([entry["score"] for entry in found], dtype=np.float64),
        matched=np.sum(hits_DAT * _BITS, axis=2, dtype=np.uint16),
        ignored=np.sum(skipped_DAT * _BITS, axis=2, dtype=np.uint16),
        truths=np.concatenate((every[:, None], counting), axis=1, dtype=np.int32),
    )


def match(overlaps_DG: FloatArray, ignored_AG: BoolArray, crowd_G: BoolArray) -> tuple[BoolArray, BoolArray]:
    """(matched, and matched with a truth that does not count), both (D, A, T).

    Detections go by falling score. Each takes the truth that it overlaps most of those free and close enough, one that
    counts before any that does not, of equals the last; crowds stay free.
    """
    num_areas, num_thresholds = len(ignored_AG), len(_LEAST)
    matched = np.zeros((len(overlaps_DG), num_areas, num_thresholds), dtype=bool)
    skipped = np.zeros_like(matched)
    free_GAT = np.ones((ignored_AG.shape[1], num_areas, num_thresholds), dtype=bool)
    near_DG = overlaps_DG >= _LEAST[0]
    for d in np.flatnonzero(near_DG.any(axis=1)):
        near = np.flatnonzero(near_DG[d])
        open_nAT = (overlaps_DG[d, near, None] >= _LEAST)[:, None] & free_GAT[near]
        if near.size > 1:
            open_nAT = _chosen(open_nAT, overlaps_DG[d, near], ignored_AG[:, near])
        matched[d] = open_nAT.any(axis=0)
        skipped[d] = (open_nAT & ignored_AG[:, near].T[..., None]).any(axis=0)
        free_GAT[near] &= ~open_nAT | crowd_G[near, None, None]
    return matched, skipped


def _chosen(open_nAT: BoolArray, overlap_n: FloatArray, ignored_An: BoolArray) -> BoolArray:
    """Of the open truths the one that is taken, at each area range and threshold: at most one is left."""
    counting_nAT = open_nAT & ~ignored_An.T[..., None]
    pool_nAT = np.where(counting_nAT.any(axis=0), counting_nAT, open_nAT)
    best_AT = len(overlap_n) - 1 - np.where(pool_nAT, overlap_n[:, None, None], -1)[::-1].argmax(axis=0)
    taken_nAT: BoolArray = pool_nAT & (np.arange(len(overlap_n))[:, None, None] == best_AT)
    return taken_nAT


def overlaps(truths: Sequence[Entry], found: Sequence[Entry], iou_type: str) -> FloatArray:
    """(D, G) in 0..1: IoU of masks or boxes, for a crowd the share of the detection inside it; OKS of keypoints.

    By boundary the smaller of the IoU of masks and of boundaries; where no threshold is reached by masks, theirs.
    """
    if not truths or not found:
        return np.zeros((len(found), len(truths)))
    if iou_type == "keypoints":
        return np.stack([object_keypoint_similarity(truth, found) for truth in truths], axis=1)
    from faster_coco_eval.core import mask as compiled

    field = "rle" if iou_type in MASKS else "bbox"
    crowds = [truth["iscrowd"] for truth in truths]
    overlaps_DG = np.asarray(
        compiled.iou([entry[field] for entry in found], [truth[field] for truth in truths], crowds)
    )
    if iou_type == "boundary":
        # Boundaries cost more than all the rest: only those that decide are looked at.
        near_DG = (overlaps_DG >= _LEAST[0]) & (np.array(crowds) == 0)
        near_d, near_g = np.flatnonzero(near_DG.any(axis=1)), np.flatnonzero(near_DG.any(axis=0))
        edges_d = [rle_boundary(found[d]["rle"]) for d in near_d.tolist()]
        edges_g = [rle_boundary(truths[g]["rle"]) for g in near_g.tolist()]
        edges_dg = np.asarray(compiled.iou(edges_d, edges_g, [0] * len(edges_g))).reshape(len(edges_d), len(edges_g))
        overlaps_DG[np.ix_(near_d, near_g)] = np.minimum(overlaps_DG[np.ix_(near_d, near_g)], edges_dg)
    return overlaps_DG


def object_keypoint_similarity(truth: Entry, found: Sequence[Entry]) -> FloatArray:
    """COCO's OKS (D,) of detections with one person, over the joints that are labelled.

    A person without any is as near as the joints are to twice its box: this tells which detections to leave uncounted.
    """
    x_J, y_J, visible_J = np.array(truth["keypoints"]).reshape(NUM_KEYPOINTS, 3).T
    points_DJ3 = np.array([entry["keypoints"] for entry in found]).reshape(-1, NUM_KEYPOINTS, 3)
    dx, dy = points_DJ3[..., 0] - x_J, points_DJ3[..., 1] - y_J
    labelled = visible_J > 0
    if not labelled.any():
        left, top, width, height = truth["bbox"]
        dx = _beyond(points_DJ3[..., 0], left - width, left + width * 2)
        dy = _beyond(points_DJ3[..., 1], top - height, top + height * 2)
        labelled = ~labelled
    error_DJ = (dx**2 + dy**2) / _VARIANCE_J / (truth["area"] + np.spacing(1)) / 2
    # Row by row: a sum along an axis adds in another order, and the last digit is pycocotools'.
    return np.array([np.sum(row) / row.size for row in np.exp(-error_DJ[:, labelled])])


def _beyond(values: FloatArray, low: float, high: float) -> FloatArray:
    return np.maximum(0, low - values) + np.maximum(0, values - high)


def _outside(sizes: Sequence[float], areas: FloatArray) -> BoolArray:
    """(A, n): sizes in pixels that are not within each range, whose bounds belong to it."""
    size = np.array(sizes, dtype=np.float64)
    return (size < areas[:, :1]) | (size > areas[:, 1:])
