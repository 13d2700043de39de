"""How sure a COCO average precision is: the bootstrap of `bootstrap.py` over the matches that a meter has kept.

A resample is how often it holds each image. Every detection then counts as often as its image, which gives to the last
digit what pycocotools gives for images repeated that often: copies of a true positive only raise precision on the way
to the last of them, and the curve is its own maximum from there on. So nothing is matched or sorted twice. Precision is
asked for at true positives alone, of which there are no more than objects, however many detections a model makes.

Letter legend: n images, D detections, R resamples, K classes, T IoU thresholds 0.5:0.05:0.95, M true positives.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.bootstrap import bounds, check_draws, draw_weights, group_numbers, mean_of_defined
from segpipe.metrics.coco import IOU_THRESHOLDS, RECALLS, FloatArray

IntArray = npt.NDArray[np.int64]

# Cells (resamples x detections of a class) worked on at once.
BLOCK_CELLS = 1_000_000
_NEXT_RECALLS = np.append(RECALLS[1:], np.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class ApEvidence:
    """What COCO's matching says of D detections in n images, for objects of all sizes; equal scores count as they come.

    `images_D` are places below n, `classes_D` below K. Bit t of `matched_D` (uint16) tells whether a detection matched
    at threshold t, of `ignored_D` whether it is left uncounted there. `truths_nK` are the objects to be found.
    """

    images_D: IntArray
    classes_D: IntArray
    scores_D: FloatArray
    matched_D: npt.NDArray[np.uint16]
    ignored_D: npt.NDArray[np.uint16]
    truths_nK: IntArray


def ap_interval(
    evidence: ApEvidence,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bounds of AP, both in 0..1: (low, high) at the two-sided `level`; nan where there is no object.

    Images that share an entry of `groups` are drawn together. A class that a resample does not hold drops out of its
    mean, as COCO has it.
    """
    check_draws(resamples, level)
    return bounds(resampled_mean_ap(evidence, groups=groups, resamples=resamples, seed=seed), level)


def resampled_mean_ap(
    evidence: ApEvidence, *, groups: Sequence[Hashable] | None, resamples: int, seed: int
) -> FloatArray:
    """The AP (R,) of each resample, as `ap_interval` takes them."""
    return mean_of_defined(resampled_class_ap(evidence, groups=groups, resamples=resamples, seed=seed))


def resampled_class_ap(
    evidence: ApEvidence, *, groups: Sequence[Hashable] | None, resamples: int, seed: int
) -> FloatArray:
    """The AP (R, K) of each class in each resample, drawn as `bootstrap.resampled_scores` draws; nan where a resample
    has no object of it."""
    numbers = group_numbers(groups, len(evidence.truths_nK))
    if not numbers.size:
        raise InputError("bootstrap: no image to resample; expected at least one")
    by_class = _by_class(evidence)
    blocks = draw_weights(int(numbers.max()) + 1, resamples, seed)
    return np.concatenate([_resampled(evidence, by_class, each_RG[:, numbers]).mean(axis=2) for each_RG in blocks])


def mean_ap(evidence: ApEvidence) -> float:
    """The AP of the images themselves; nan where there is no object."""
    ap_1KT = resampled_ap(evidence, np.ones((1, len(evidence.truths_nK)), np.int64))
    return float(mean_of_defined(ap_1KT.mean(axis=2))[0])


def resampled_ap(evidence: ApEvidence, weights_Rn: npt.ArrayLike) -> FloatArray:
    """AP (R, K, T) of resamples that hold each image `weights_Rn` times (whole numbers); nan for a class without
    objects. Weights of 1 give the AP of the images themselves."""
    weights = np.asarray(weights_Rn)
    num_images = len(evidence.truths_nK)
    if weights.ndim != 2 or weights.shape[1] != num_images:
        raise InputError(f"bootstrap: weights of shape {weights.shape} for {num_images} images; expected one of each")
    return _resampled(evidence, _by_class(evidence), weights)


def _by_class(evidence: ApEvidence) -> list[IntArray]:
    """The detections of each class by falling score, equal ones as they come."""
    order = np.argsort(-evidence.scores_D, kind="stable")
    order = order[np.argsort(evidence.classes_D[order], kind="stable")]
    ends = np.searchsorted(evidence.classes_D[order], np.arange(evidence.truths_nK.shape[1] + 1))
    return [order[start:end] for start, end in pairwise(ends.tolist())]


def _resampled(evidence: ApEvidence, by_class: Sequence[IntArray], weights_Rn: npt.NDArray[np.int64]) -> FloatArray:
    weights = weights_Rn.astype(np.int32)
    truths_RK = weights.astype(np.float64) @ evidence.truths_nK
    ap_RKT = np.zeros((len(weights), len(by_class), len(IOU_THRESHOLDS)))
    for k, mine in enumerate(by_class):
        step = max(1, BLOCK_CELLS // max(1, len(mine)))
        for at in range(0, len(weights) if len(mine) else 0, step):
            rows = slice(at, at + step)
            weights_RD = np.take(weights[rows], evidence.images_D[mine], axis=1)
            matched, ignored = evidence.matched_D[mine], evidence.ignored_D[mine]
            ap_RKT[rows, k] = _class_ap(weights_RD, matched, ignored, truths_RK[rows, k])
    ap_RKT[truths_RK == 0] = np.nan
    return ap_RKT


def _class_ap(
    weights_RD: npt.NDArray[np.int32],
    matched_D: npt.NDArray[np.uint16],
    ignored_D: npt.NDArray[np.uint16],
    truths_R: FloatArray,
) -> FloatArray:
    """AP (R, T) of the detections of one class by falling score."""
    seen_RD = np.cumsum(weights_RD, axis=1, dtype=np.int32)
    ap_RT = np.zeros((len(weights_RD), len(IOU_THRESHOLDS)))
    known: dict[bytes, FloatArray] = {}  # neighbouring thresholds often accept the same detections
    for t in range(len(IOU_THRESHOLDS)):
        hit_D, skipped_D = (bits >> t & 1 > 0 for bits in (matched_D, ignored_D))
        right_M, skipped = np.flatnonzero(hit_D & ~skipped_D), np.flatnonzero(skipped_D)
        key = right_M.tobytes() + b"|" + skipped.tobytes()
        if key not in known:
            found_RM = np.cumsum(np.take(weights_RD, right_M, axis=1), axis=1, dtype=np.int32)
            counted_RM = np.take(seen_RD, right_M, axis=1)
            if skipped.size:
                left_out = np.cumsum(np.take(weights_RD, skipped, axis=1), axis=1, dtype=np.int32)
                left_out = np.pad(left_out, ((0, 0), (1, 0)))
                counted_RM = counted_RM - left_out[:, np.searchsorted(skipped, right_M)]
            known[key] = _area(found_RM, counted_RM, truths_R)
        ap_RT[:, t] = known[key]
    return ap_RT


def _area(found_RM: npt.NDArray[np.int32], counted_RM: npt.NDArray[np.int32], truths_R: FloatArray) -> FloatArray:
    """The mean (R,) of the precision envelope at COCO's 101 recalls, from the counts at each true positive."""
    if not found_RM.shape[1]:
        return np.zeros(len(found_RM))
    precision_RM = found_RM / np.maximum(counted_RM, 1)
    envelope_RM = np.maximum.accumulate(precision_RM[:, ::-1], axis=1)[:, ::-1]
    recall_RM = found_RM / np.maximum(truths_R, 1)[:, None]
    # How many of the 101 are at most this recall. They are i / 100 only up to a rounding, which decides at equality.
    at_RM = (recall_RM * (len(RECALLS) - 1)).astype(np.int16)
    reached_RM = at_RM + (RECALLS[at_RM] <= recall_RM) + (_NEXT_RECALLS[at_RM] <= recall_RM)
    fresh_RM = np.diff(reached_RM, axis=1, prepend=0)
    area_R: FloatArray = np.einsum("rm,rm->r", envelope_RM, fresh_RM) / len(RECALLS)
    return area_R
