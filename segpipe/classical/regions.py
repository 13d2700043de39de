"""From regions to classes: what a method without any learning has found in an image gets the names that fit it best.

Letter legend: K classes, H W image size, R regions of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def region_scores(
    regions_HW: npt.NDArray[np.integer[Any]], scores_KHW: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(K, H, W) of each pixel the mean scores of its region, which is numbered in 0..R-1; numbers may be missing.

    The class with the highest mean is the one with the highest sum: of log-likelihoods, the one that explains the whole
    region best.
    """
    flat_n = regions_HW.ravel()
    pixels_R = np.maximum(np.bincount(flat_n), 1)
    means_KR = np.stack([np.bincount(flat_n, weights=scores_HW.ravel()) / pixels_R for scores_HW in scores_KHW])
    return means_KR[:, regions_HW].astype(np.float32)
