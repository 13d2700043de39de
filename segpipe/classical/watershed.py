"""Watershed of the gradient: regions grow from the flat parts of an image until they meet at its edges.

Watersheds in Digital Spaces: An Efficient Algorithm Based on Immersion Simulations, Vincent, Soille, 1991, IEEE TPAMI
13(6), by scikit-image (which floods with a queue, after Meyer, and draws no lines). Minima that are less than `depth`
deep are no regions of their own: the h-minima of Soille's Morphological Image Analysis, 6.3.

Letter legend: K classes, H W image size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segpipe.classical.appearance import Appearance, Floats, Integers, lab_of, pixel_scores
from segpipe.classical.regions import region_scores


def segment(
    image_HW3: npt.NDArray[np.uint8], known: Appearance, *, smoothing: float, depth: float
) -> npt.NDArray[np.float32]:
    """(K, H, W) scores: of each pixel those of its basin."""
    found_HW = basins(gradient(image_HW3, smoothing), depth)
    return region_scores(found_HW, pixel_scores(image_HW3, known))


def gradient(image_HW3: npt.NDArray[np.uint8], smoothing: float) -> Floats:
    """(H, W) how fast L*a*b* changes, a pixel, after a Gaussian of standard deviation `smoothing` in pixels."""
    lab_HW3 = lab_of(image_HW3)
    slopes = [ndimage.gaussian_gradient_magnitude(lab_HW3[..., channel], smoothing) for channel in range(3)]
    steepness_HW: Floats = np.sqrt(np.square(slopes).sum(axis=0))
    return steepness_HW


def basins(heights_HW: Floats, depth: float) -> Integers:
    """(H, W) the basin of each pixel, 0..R-1: one for each minimum that is at least `depth` deep."""
    from skimage.morphology import local_minima, reconstruction
    from skimage.segmentation import watershed

    filled_HW = reconstruction(heights_HW + depth, heights_HW, method="erosion") if depth else heights_HW
    # Rounded: heights that are equal but for the last bit are one flat ground, and not minima within it.
    filled_HW = filled_HW.round(6)
    minima_HW = local_minima(filled_HW, connectivity=2, allow_borders=True)
    if not minima_HW.any():  # it is flat everywhere
        return np.zeros(heights_HW.shape, dtype=np.int64)
    markers_HW, _ = ndimage.label(minima_HW, structure=np.ones((3, 3)))
    found_HW: Integers = watershed(heights_HW, markers_HW, connectivity=2).astype(np.int64) - 1
    return found_HW
