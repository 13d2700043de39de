"""Precision and recall over a falling score: the curve, what each score threshold buys, and the areas called AP.

VOC and COCO differ in which detections match (`voc.py`, `coco.py`) and in how the area is taken (`average_precision`).
Letter legend: n detections, U distinct scores among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.arrays import as_array

FloatArray = npt.NDArray[np.float64]

# MATLAB makes 0:0.1:1 from both ends, so that 0.3 alone is a little more than the nearest double; three of ten objects
# therefore do not reach it. `numpy.arange(0, 1.1, 0.1)`, of the well-known ports, is off at 0.6 and 0.7 too.
_ELEVEN = tuple([0.1 * step for step in range(6)] + [1 - 0.1 * (10 - step) for step in range(6, 11)])
_RECALLS: dict[int, FloatArray] = {
    5: np.linspace(0, 1, 5),
    11: np.array(_ELEVEN),
    101: np.linspace(0, 1, 101),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecisionRecall:
    """What remains above each threshold: precision, recall and F1, float64 (U,) in 0..1, by falling threshold.

    `thresholds` are the distinct scores; at each, every detection of that score or a higher one is kept. Recall and F1
    are nan where there is no truth.
    """

    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray


def precision_recall(scores: Any, matched: Any, num_truths: int) -> PrecisionRecall:
    """The trade-off of a score threshold, from detections that were matched with the truth.

    `scores` (n,) are finite floats in any order, `matched` (n,) booleans: whether the detection took a truth of its
    own; leave out those that count neither way. Equal scores fall together, since no threshold parts them (a protocol's
    AP does part them, by order: it is not the area under this curve when there are ties). Raises InputError on unequal
    lengths, scores that are not finite, and more matches than truths.
    """
    score, hit = _vector("scores", scores), as_array(matched)
    if hit.shape != score.shape or hit.dtype.kind != "b":
        raise InputError(f"precision and recall: expected {score.size} booleans, found {hit.dtype} {hit.shape}")
    if isinstance(num_truths, bool) or num_truths < int(hit.sum()):
        raise InputError(
            f"precision and recall: {int(hit.sum())} detections match {num_truths} truths; one each at most"
        )
    order = np.argsort(-score, kind="stable")
    score, right = score[order], np.cumsum(hit[order])
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if score.size else np.zeros(0, dtype=np.int64)
    right, kept = right[last], last + 1.0
    with np.errstate(invalid="ignore"):
        recall = right / np.float64(num_truths)
    f1 = 2 * right / (kept + num_truths)
    return PrecisionRecall(
        thresholds=score[last],
        precision=right / kept,
        recall=recall,
        f1=f1 if num_truths else np.full(len(last), np.nan),
    )


def average_precision(recall: Any, precision: Any, points: int | None = None) -> float:
    """The area under a curve of recall (n,), not falling, and precision (n,), both in 0..1; 0.0 for an empty curve.

    The curve has one point for each detection by falling score. `points` says whose area: 11 is VOC 2007's mean over
    recalls 0, 0.1, ..., 1 of the best precision at that recall or a higher one (0 where none is); 5 and 101 the same at
    steps of 1/4 and of 1/100 (COCO's); None the whole area under the falling envelope, VOC 2010's and later. Raises
    InputError on anything else.
    """
    recall_n, precision_n = _vector("recall", recall), _vector("precision", precision)
    if recall_n.shape != precision_n.shape:
        raise InputError(
            f"average precision: {recall_n.size} recalls and {precision_n.size} precisions; one each per detection"
        )
    for name, values in (("recall", recall_n), ("precision", precision_n)):
        if values.size and not 0 <= values.min() <= values.max() <= 1:
            raise InputError(f"average precision: {name} goes from {values.min()} to {values.max()}; expected 0..1")
    if (np.diff(recall_n) < 0).any():
        at = int(np.flatnonzero(np.diff(recall_n) < 0)[0]) + 1
        raise InputError(f"average precision: recall falls at point {at}; sort the detections by falling score")
    if points is not None and points not in _RECALLS:
        raise InputError(
            f"average precision: points = {points!r}; expected 5, 11 (VOC 2007), 101 (COCO) or None (VOC 2010)"
        )
    envelope = np.append(np.maximum.accumulate(precision_n[::-1])[::-1], 0.0)
    if points is None:
        return float(np.sum(np.diff(recall_n, prepend=0.0) * envelope[:-1]))
    return float(np.mean(envelope[np.searchsorted(recall_n, _RECALLS[points], side="left")]))


def finite(value: object) -> float | None:
    """A real number as a float; None for anything else, a boolean, nan, inf, or a whole number that no float holds."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _vector(name: str, values: Any) -> FloatArray:
    array = as_array(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "fiu"):
        raise InputError(f"{name}: expected one row of numbers, found {array.dtype} {array.shape}")
    vector: FloatArray = array.astype(np.float64)
    if not np.isfinite(vector).all():
        at = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise InputError(f"{name}: entry {at} is {vector[at]}; expected finite numbers")
    return vector
