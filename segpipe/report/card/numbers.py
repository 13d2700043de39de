"""What follows from the counts of a report's `details`: how sure a model was and how often right, precision and recall,
borders, sizes of regions. Pure.

Legend: K classes, L levels of probability, S sizes of regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.predictions import level_probabilities
from segpipe.types import PixelDetails

Floats = npt.NDArray[np.float64]
BINS = 10
MOST_POINTS = 60  # of a curve


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """`sure` and `right` are means of each of the bins of confidence that hold a pixel, `share` how many do; `error` is
    the expected calibration error: the mean of their distance over all pixels (Naeini et al. 2015)."""

    sure: tuple[float, ...]
    right: tuple[float, ...]
    share: tuple[float, ...]
    error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Precision over recall of one class, from the surest pixel on, and the area below."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]
    area: float


def calibration(details: PixelDetails) -> Calibration | None:
    """How sure the predicted class was against how often it was right; None of a model that says no probabilities."""
    counts_L2 = np.asarray(details.confidence, dtype=np.float64).reshape(-1, 2)
    if not counts_L2.any():
        return None
    levels_L = level_probabilities()
    bins_L = np.minimum((levels_L * BINS).astype(int), BINS - 1)
    pixels, right, sure = (
        np.bincount(bins_L, weights=weights, minlength=BINS)
        for weights in (counts_L2[:, 0], counts_L2[:, 1], counts_L2[:, 0] * levels_L)
    )
    held = pixels > 0
    means, rights = sure[held] / pixels[held], right[held] / pixels[held]
    share = pixels[held] / pixels.sum()
    return Calibration(
        sure=tuple(means.tolist()),
        right=tuple(rights.tolist()),
        share=tuple(share.tolist()),
        error=float((share * abs(means - rights)).sum()),
    )


def precision_recall(details: PixelDetails) -> list[Curve | None]:
    """The curve of each class; None of one without a pixel of truth, or of a model that says no probabilities."""
    return [_curve(np.asarray(counts, dtype=np.float64)) for counts in details.levels]


def _curve(counts_L2: Floats) -> Curve | None:
    others_L, own_L = counts_L2[::-1].cumsum(axis=0).T  # from the surest level down
    if not own_L[-1]:
        return None
    said_L = others_L + own_L
    held = said_L > 0
    recall, precision = own_L[held] / own_L[-1], own_L[held] / said_L[held]
    gained = np.diff(recall, prepend=0.0)
    area = float((gained * precision).sum())
    # A line is as good with a point every few hundredths.
    chosen = np.unique(np.searchsorted(recall, np.linspace(recall[0], 1.0, MOST_POINTS)).clip(max=len(recall) - 1))
    return Curve(recall=tuple(recall[chosen].tolist()), precision=tuple(precision[chosen].tolist()), area=area)


def boundary_ious(details: PixelDetails) -> list[float | None]:
    """Boundary IoU of each class; None where it has no border in truth and prediction."""
    both, true, said = np.asarray(details.borders, dtype=np.float64).reshape(-1, 3).T
    return [float(b / (t + s - b)) if t + s - b else None for b, t, s in zip(both, true, said, strict=True)]


def size_ious(details: PixelDetails) -> list[list[float | None]]:
    """IoU (K, S) by the size of regions; None where the truth has none of that class and size.

    A region of the truth is found in part, a region of the prediction is right in part: of all of one size these are
    recall r and precision p, and 1 / (1 / r + 1 / p - 1) is their IoU, as it is of all sizes together.
    """
    return [[_iou(*cell) for cell in sizes] for sizes in details.regions]


def _iou(true: float, found: float, said: float, right: float) -> float | None:
    if not true:
        return None
    if not (found and right):
        return 0.0
    return 1 / (true / found + said / right - 1)


def mean_of(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
