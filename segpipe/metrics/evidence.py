"""What an `EvalReport` holds of every image, as arrays, and how good the model was on each image. Pure.

Legend: n images, K classes, C counts of a class in an image, D detections.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from segpipe.metrics.bootstrap import dataset_miou, mean_ratio
from segpipe.metrics.bootstrap_ap import ApEvidence
from segpipe.metrics.davis import dataset_jf
from segpipe.metrics.panoptic import dataset_pq
from segpipe.predictions import SURE_SCORE
from segpipe.types import ClassInfo, EvalReport

Floats = npt.NDArray[np.float64]
DETECTIONS = ("truths",)
PIXELS = ("intersection", "truth", "predicted")
SEGMENTS = ("iou", "true_positives", "false_positives", "false_negatives")
KEYPOINTS = ("correct", "labelled")
VIDEOS = ("region", "contour", "objects")  # of a sequence, which stands where other tasks have an image
# What the numbers of an image are called -> what is made of their sums (..., K, C): the mean over K of a class's score.
# Those of what detects are its detections.
STATISTICS: dict[tuple[str, ...], Callable[[npt.ArrayLike], Floats]] = {
    PIXELS: dataset_miou,
    SEGMENTS: dataset_pq,
    KEYPOINTS: mean_ratio,
    VIDEOS: dataset_jf,
}
IMAGE_F1 = "f1/0.5"
_CLASS_SCORES = {DETECTIONS: "ap", PIXELS: "iou", SEGMENTS: "pq", VIDEOS: "jf"}


def sample_counts(report: EvalReport) -> Floats:
    """The counts (n, K, C) of every image."""
    return np.asarray(report.sample_counts, dtype=np.float64)


def ap_evidence(report: EvalReport) -> ApEvidence:
    """What was found in the images of a task that detects."""
    images_D = np.repeat(np.arange(len(report.detections)), [len(found) for found in report.detections])
    rows = np.array([each for found in report.detections for each in found], dtype=np.float64).reshape(-1, 4)
    return ApEvidence(
        images_D=images_D,
        classes_D=rows[:, 0].astype(np.int64),
        scores_D=rows[:, 1],
        matched_D=rows[:, 2].astype(np.uint16),
        ignored_D=rows[:, 3].astype(np.uint16),
        truths_nK=sample_counts(report)[..., 0].astype(np.int64),
    )


def class_score(report: EvalReport) -> str:
    """The name of what `per_class` says of each class, by which classes are told apart. Keypoints have it under that of
    their primary metric."""
    return _CLASS_SCORES.get(report.count_names, report.primary)


def image_score(report: EvalReport) -> str:
    """The name of what `image_scores` are."""
    return IMAGE_F1 if report.count_names == DETECTIONS else class_score(report)


def image_scores(report: EvalReport) -> Floats:
    """The score (n,) of each image by itself, the mean over the classes that are in it or were found in it; nan where
    nothing is.

    A measure that ranks the detections of all images together says nothing of one: there it is F1, of the objects that
    were found at an IoU of 0.5, those that are there, and those that are said to be with at least `SURE_SCORE`.
    """
    if report.count_names == DETECTIONS:
        found_nK, there_nK, said_nK = _sure_counts(report)
        return mean_ratio(np.stack([2 * found_nK, there_nK + said_nK], axis=-1))
    return STATISTICS[report.count_names](sample_counts(report))


def found_objects(report: EvalReport) -> tuple[float, float, float] | None:
    """How many objects, or segments, were found at an IoU of 0.5, how many there are, and how many the model says there
    are; None of a task that has no such."""
    if report.count_names == DETECTIONS:
        found_nK, there_nK, said_nK = _sure_counts(report)
        return float(found_nK.sum()), float(there_nK.sum()), float(said_nK.sum())
    if report.count_names == SEGMENTS:
        _, right, false, missed = sample_counts(report).sum(axis=(0, 1)).tolist()
        return right, right + missed, right + false
    return None


def is_scored(report: EvalReport, info: ClassInfo) -> bool:
    """Whether its task has a score of such a class: what detects looks for things alone."""
    return info.is_thing or report.count_names != DETECTIONS


def _sure_counts(report: EvalReport) -> tuple[Floats, Floats, Floats]:
    """Of each image and class (n, K): objects found, there, and said to be there with at least `SURE_SCORE`."""
    evidence = ap_evidence(report)
    # Those below would not change what the others match, each of which chose before them.
    counted_D = (evidence.scores_D >= SURE_SCORE) & (evidence.ignored_D & 1 == 0)
    places = (evidence.images_D[counted_D], evidence.classes_D[counted_D])
    found_nK, said_nK = np.zeros(evidence.truths_nK.shape), np.zeros(evidence.truths_nK.shape)
    np.add.at(found_nK, places, evidence.matched_D[counted_D] & 1)
    np.add.at(said_nK, places, 1)
    return found_nK, evidence.truths_nK.astype(np.float64), said_nK
