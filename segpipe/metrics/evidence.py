"""What an `EvalReport` holds of every image, as arrays, and what follows from it beside the score itself: how sure the
score of each class is, and how good the model was on each image. Pure.

Legend: n images, K classes, C counts of a class in an image, D detections, R resamples, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from segpipe.metrics.bootstrap import bounds, draw_weights, group_numbers, resampled_sums
from segpipe.metrics.bootstrap_ap import ApEvidence, resampled_ap
from segpipe.types import EvalReport

Floats = npt.NDArray[np.float64]
DETECTIONS = ("truths",)
PIXELS = ("intersection", "truth", "predicted")
SEGMENTS = ("iou", "true_positives", "false_positives", "false_negatives")
KEYPOINTS = ("correct", "labelled")


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


def class_intervals(report: EvalReport, *, resamples: int = 1000) -> list[tuple[float, float]]:
    """The 95 % bounds of the score of each class, nan where there is nothing of it: the bootstrap of the report's own
    interval, class by class."""
    groups = report.groups if report.resampled == "groups" else None
    if report.count_names == DETECTIONS:
        drawn_RK = _resampled_ap(report, groups, resamples)
    else:
        drawn_RK = _scores(report)(resampled_sums(sample_counts(report), groups=groups, resamples=resamples, seed=0))
    return [bounds(drawn_R, 0.95) for drawn_R in drawn_RK.T]


def image_scores(report: EvalReport) -> Floats | None:
    """The score (n,) of each image by itself, the mean over the classes that are in it or were found in it; nan where
    nothing is. None of a task that detects, whose measure ranks the detections of all images together."""
    if report.count_names == DETECTIONS:
        return None
    scores_nK = _scores(report)(sample_counts(report))
    found = ~np.isnan(scores_nK)
    total, classes = np.where(found, scores_nK, 0).sum(axis=1), found.sum(axis=1)
    means: Floats = np.divide(total, classes, out=np.full(len(total), np.nan), where=classes > 0)
    return means


def _scores(report: EvalReport) -> Callable[[Floats], Floats]:
    """What makes the score of each class (..., K) of summed counts (..., K, C)."""
    return {PIXELS: _iou, SEGMENTS: _quality, KEYPOINTS: _share}[report.count_names]


def _iou(counts: Floats) -> Floats:
    intersection, truth, predicted = np.moveaxis(counts, -1, 0)
    return _ratio(intersection, truth + predicted - intersection)


def _quality(counts: Floats) -> Floats:
    overlap, right, false, missed = np.moveaxis(counts, -1, 0)
    return _ratio(overlap, right + (false + missed) / 2)


def _share(counts: Floats) -> Floats:
    return _ratio(counts[..., 0], counts[..., 1])


def _ratio(above: Floats, below: Floats) -> Floats:
    ratio: Floats = np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
    return ratio


def _resampled_ap(report: EvalReport, groups: tuple[str, ...] | None, resamples: int) -> Floats:
    evidence, numbers = ap_evidence(report), group_numbers(groups, report.num_samples)
    blocks = draw_weights(int(numbers.max()) + 1, resamples, 0)
    return np.concatenate([resampled_ap(evidence, weights_RG[:, numbers]).mean(axis=2) for weights_RG in blocks])
