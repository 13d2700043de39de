"""PCK, the percentage of correct keypoints: a function of arrays, and the meter of a split, with COCO's OKS beside it.

A keypoint is correct when it lies within a share of a length of its object. Which length names the measure: the longer
side of the object's box (PCK, Yang and Ramanan 2013), the head's (PCKh, Andriluka et al. 2014). COCO's AP by object
keypoint similarity is defined for the 17 joints of a person alone, whose tolerances COCO measured; `coco_meter.py` has
it, and no other set of keypoints is given one with tolerances made up.

Letter legend: N objects, P keypoints, K classes, T thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.coco_meter import DetectionMeter
from segpipe.metrics.once import in_order, refuse_twice, refuse_unlike

IntArray = npt.NDArray[np.int64]

THRESHOLDS = (0.05, 0.1, 0.2)  # of the longer side of the box; the middle one decides
DECIDING = 1
PERSON, COCO_JOINTS = 1, 17  # the one category of COCO's keypoints, and how many its objects have
# A peak of a heatmap, 1 at its best, that is no higher says little: as the authors of HRNet evaluate, the score of an
# object is the mean of the others.
DOUBT = 0.2
NO_SIZE = (0, 0)  # of images: keypoints are measured without


def pck(
    points_NP2: npt.ArrayLike, truths_NP3: npt.ArrayLike, lengths_N: npt.ArrayLike, *, alpha: float = 0.1
) -> dict[str, Any]:
    """{"pck": correct / labelled over all objects and keypoints, "per_keypoint": the same of each (P,), "correct" and
    "labelled": int64 (N, P)}; nan where nothing is labelled.

    `points_NP2` are x, y in pixels, `truths_NP3` x, y, visibility, of which 0 means that nobody marked it: such
    keypoints do not count, hidden ones do. One is correct within `alpha` times its object's length, that included.
    `lengths_N` in pixels are the longer sides of boxes for PCK (`alpha` 0.05 to 0.2), for PCKh (0.5) those of heads: in
    MPII 0.6 times the diagonal of the head's box. Raises InputError on shapes that do not fit, lengths that are not
    above 0 and numbers that are not finite.
    """
    points, truths, lengths = (np.asarray(each, dtype=np.float64) for each in (points_NP2, truths_NP3, lengths_N))
    fits = points.ndim == 3 and points.shape[2] == 2 and truths.shape == (*points.shape[:2], 3)
    if not fits or lengths.shape != points.shape[:1]:
        raise InputError(
            f"PCK: expected points (N, P, 2), truths (N, P, 3) and lengths (N,), found {points.shape}, {truths.shape} "
            f"and {lengths.shape}"
        )
    finite = np.isfinite(points).all() and np.isfinite(truths).all() and np.isfinite(lengths).all()
    if not finite or (lengths <= 0).any() or not 0 < alpha < np.inf:
        raise InputError("PCK: expected finite points, and lengths and alpha above 0")
    labelled_NP = truths[..., 2] > 0
    distance_NP = np.hypot(*np.moveaxis(points - truths[..., :2], -1, 0))
    correct_NP = labelled_NP & (distance_NP <= alpha * lengths[:, None])
    found, all_P = correct_NP.sum(axis=0), labelled_NP.sum(axis=0)
    return {
        "pck": float(found.sum() / all_P.sum()) if all_P.sum() else float("nan"),
        "per_keypoint": np.divide(found, all_P, out=np.full(len(all_P), np.nan), where=all_P > 0),
        "correct": correct_NP.astype(np.int64),
        "labelled": labelled_NP.astype(np.int64),
    }


class KeypointMeter:
    """Gathers correct and labelled keypoints of a split by image and class, and of COCO's persons what AP needs.

    Every image counts exactly once. `per_sample[sample_id]` is int64 (K, T + 1): correct at each of THRESHOLDS, and
    labelled; `per_keypoint[p]` (T + 1,) the same of keypoint p over all classes. Meters of parts of a split merge in
    any order to the same state.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.per_sample: dict[str, IntArray] = {}
        self.per_keypoint: dict[int, IntArray] = {}
        self.persons = DetectionMeter([PERSON], "keypoints")

    def update(
        self,
        sample_id: str,
        class_ids_N: Sequence[int] | npt.NDArray[Any],
        points_NP2: npt.NDArray[Any],
        truths_NP3: npt.NDArray[Any],
        lengths_N: npt.NDArray[Any],
        *,
        annotations: Sequence[Mapping[str, Any]] = (),
        detections: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Counts one image, also one without objects: what each keypoint is, where it is said to be, and for COCO's
        persons `annotations` and `detections` as in COCO's files (category 1). Raises InputError naming the sample."""
        refuse_twice([sample_id], self.per_sample)
        counts = np.zeros((self.num_classes, len(THRESHOLDS) + 1), dtype=np.int64)
        try:
            measured = [pck(points_NP2, truths_NP3, lengths_N, alpha=alpha) for alpha in THRESHOLDS]
        except InputError as error:
            raise InputError(f"sample {sample_id}: {error}") from None
        table_NPT = np.stack([*(each["correct"] for each in measured), measured[0]["labelled"]], axis=-1)
        self.persons.update(sample_id, NO_SIZE, annotations, detections)
        np.add.at(counts, np.asarray(class_ids_N, dtype=np.int64), table_NPT.sum(axis=1))
        self.per_sample[sample_id] = counts
        self._add({place: counts for place, counts in enumerate(table_NPT.sum(axis=0)) if counts[-1]})

    def merge(self, other: KeypointMeter) -> None:
        """Adds what `other` counted. Raises InputError on another number of classes, or a sample in both."""
        refuse_unlike({"classes": self.num_classes}, {"classes": other.num_classes})
        refuse_twice(other.per_sample, self.per_sample)
        self.per_sample.update(other.per_sample)
        self._add(other.per_keypoint)
        self.persons.merge(other.persons)

    def totals(self) -> IntArray:
        """(K, T + 1) over all images."""
        empty = np.zeros((self.num_classes, len(THRESHOLDS) + 1), dtype=np.int64)
        return sum(self.per_sample.values(), start=empty)

    def counts(self, sample_ids: Sequence[str]) -> IntArray:
        """(n, K, 2): correct at the deciding threshold, and labelled, in the order of `sample_ids`. Raises InputError
        unless these are the samples that were counted."""
        wanted = in_order(sample_ids, self.per_sample)
        if not wanted:
            return np.zeros((0, self.num_classes, 2), dtype=np.int64)
        return np.stack([self.per_sample[sample_id][:, [DECIDING, -1]] for sample_id in wanted])

    def _add(self, per_keypoint: Mapping[int, IntArray]) -> None:
        for place, counts in per_keypoint.items():
            self.per_keypoint[place] = self.per_keypoint.get(place, 0) + counts
