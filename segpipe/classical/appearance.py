"""What is counted of a training split: how often each class has each colour, and lies at each place. See `__init__.py`.

Colours are those of CIE L*a*b*, where distances are about as large as they look (sRGB, D65 white), in boxes of equal
size; places are the cells of a grid over the image, whatever its size. Both are counted with the class alone and not
with each other: that would be B x P numbers a class, most of which no training split fills. So the scores are those of
naive Bayes, log p(class) + log p(colour | class) + log p(place | class).

Letter legend: K classes, H W image size, B colours that are told apart, P places that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]

SIDES = 16  # boxes along each of L*, a*, b*
COLOURS = SIDES**3
CELLS = 16  # of the grid of places, along each side
PLACES = CELLS**2
# L* is 0..100. Of a* and b* sRGB reaches -86..98 and -108..95, but photographs seldom leave -64..64: what lies beyond
# shares the outermost boxes.
LOWEST = (0.0, -64.0, -64.0)
HIGHEST = (100.0, 64.0, 64.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Appearance:
    """Numbers of pixels: `colours_KB` of each class with each colour, `places_KP` at each place; int64, all >= 0."""

    colours_KB: Integers
    places_KP: Integers


def lab_of(image_HW3: npt.NDArray[np.uint8]) -> Floats:
    """(H, W, 3) L*, a*, b* of an RGB image, float64."""
    from skimage.color import rgb2lab

    lab_HW3: Floats = rgb2lab(image_HW3)
    return lab_HW3


def colours_of(lab_HW3: Floats) -> Integers:
    """(H, W) which of the B boxes each colour lies in; the one of b* varies fastest."""
    low_3, high_3 = np.array(LOWEST), np.array(HIGHEST)
    sides_HW3 = np.floor((lab_HW3 - low_3) / (high_3 - low_3) * SIDES).astype(np.int64).clip(0, SIDES - 1)
    found_HW: Integers = sides_HW3 @ np.array([SIDES**2, SIDES, 1])
    return found_HW


def places_of(height: int, width: int) -> Integers:
    """(H, W) which cell of the grid each pixel lies in."""
    rows_H, columns_W = (np.arange(side) * CELLS // side for side in (height, width))
    return rows_H[:, None] * CELLS + columns_W


def count(image_HW3: npt.NDArray[np.uint8], labels_HW: npt.NDArray[Any], num_classes: int) -> Appearance:
    """What one image adds. Labels outside of 0..K-1 are not counted."""
    known_HW = (labels_HW >= 0) & (labels_HW < num_classes)
    labels_n = labels_HW[known_HW].astype(np.int64)
    counted = []
    for found_HW, kinds in ((colours_of(lab_of(image_HW3)), COLOURS), (places_of(*labels_HW.shape), PLACES)):
        counts_x = np.bincount(labels_n * kinds + found_HW[known_HW], minlength=num_classes * kinds)
        counted.append(counts_x.reshape(num_classes, kinds).astype(np.int64))
    return Appearance(colours_KB=counted[0], places_KP=counted[1])


def pixel_scores(image_HW3: npt.NDArray[np.uint8], known: Appearance) -> npt.NDArray[np.float32]:
    """(K, H, W) log p(class, colour, place) of each pixel, up to what all classes have in common.

    Each count is taken as one more than it is (Laplace's rule), so that nothing is impossible. Between the middles of
    cells the place's logarithm is interpolated: a grid is not to be seen in the result.
    """
    height, width = image_HW3.shape[:2]
    pixels_K = known.colours_KB.sum(axis=1)
    prior_K = np.log((pixels_K + 1) / (pixels_K.sum() + len(pixels_K)))
    scores_KB = _log_shares(known.colours_KB) + prior_K[:, None]
    places_Krc = _log_shares(known.places_KP).reshape(-1, CELLS, CELLS)
    rows_Hr, columns_Wc = _between_cells(height), _between_cells(width)
    places_KHW = rows_Hr @ places_Krc @ columns_Wc.T
    scores_KHW: npt.NDArray[np.float32] = (scores_KB[:, colours_of(lab_of(image_HW3))] + places_KHW).astype(np.float32)
    return scores_KHW


def _log_shares(counts_Kx: Integers) -> Floats:
    shares_Kx: Floats = (counts_Kx + 1) / (counts_Kx.sum(axis=1, keepdims=True) + counts_Kx.shape[1])
    return np.log(shares_Kx)


def _between_cells(side: int) -> Floats:
    """(side, CELLS) how much each cell of the grid has a part in each pixel along one side; rows sum to 1."""
    at_s = ((np.arange(side) + 0.5) * CELLS / side - 0.5).clip(0, CELLS - 1)
    below_s = np.minimum(at_s.astype(np.int64), CELLS - 2)
    parts_sC = np.zeros((side, CELLS))
    parts_sC[np.arange(side), below_s] = 1 - (at_s - below_s)
    parts_sC[np.arange(side), below_s + 1] = at_s - below_s
    return parts_sC
