"""Colour thresholds: of each class one range in each channel, and a pixel within all three is of that class.

Fast and Inexpensive Color Image Segmentation for Interactive Robots, Bruce, Balch, Veloso, 2000, IROS: a class is a box
of colours, given by six thresholds. Their boxes are drawn by hand; these are the best there are: of all boxes, the one
whose pixels in the training split have the highest IoU with the pixels of the class.

Letter legend: K classes, H W image size, B colours that are told apart, s sides of the boxes, i intervals of sides.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from segpipe.classical.appearance import COLOURS, SIDES, Appearance, Floats, Integers, colours_of, lab_of

# In logarithms, what a step of one box away from a class's own costs: further away is always less likely than within.
STEP, OUTSIDE = 1.0, 30.0


def segment(image_HW3: npt.NDArray[np.uint8], known: Appearance) -> npt.NDArray[np.float32]:
    """(K, H, W) scores: where a pixel is within a class's thresholds, how often that is right there.

    Outside of all of them it is of the class whose box is nearest.
    """
    return scores_of_colours(known)[:, colours_of(lab_of(image_HW3))].astype(np.float32)


@lru_cache(maxsize=8)  # by the object: these are some hundredths of a second a class
def scores_of_colours(known: Appearance) -> Floats:
    """(K, B): the logarithm of the share of the class among all pixels in its box; beyond, `OUTSIDE` less, and less for
    each step away from the box."""
    all_B = known.colours_KB.sum(axis=0)
    all_iii = sums_of_boxes(all_B)
    steps_3B = np.indices((SIDES,) * 3).reshape(3, COLOURS)
    scores_KB = np.empty(known.colours_KB.shape)
    for k, own_B in enumerate(known.colours_KB):
        box_32 = thresholds(own_B, all_iii)
        away_3B = np.maximum(np.maximum(box_32[:, :1] - steps_3B, steps_3B - box_32[:, 1:] + 1), 0)
        inside_B = (away_3B == 0).all(axis=0)
        share = (own_B[inside_B].sum() + 1) / (all_B[inside_B].sum() + len(scores_KB))
        scores_KB[k] = np.log(share) - np.where(inside_B, 0, OUTSIDE + STEP * np.sqrt((away_3B**2).sum(axis=0)))
    return scores_KB


def thresholds(own_B: Integers, all_iii: Integers) -> Integers:
    """(3, 2) the first step of each channel and the one behind the last, of the box of colours with the best IoU.

    `own_B` are the pixels of the class with each colour, `all_iii` those of all classes in each box (`sums_of_boxes`).
    Of equals the smallest, of these the first. All boxes are looked at, but for a class without pixels, to which all
    are equal.
    """
    if not own_B.any():
        return np.array([[0, 1]] * 3)
    own_iii = sums_of_boxes(own_B)
    union_iii = np.maximum(own_B.sum() + all_iii - own_iii, 1)
    iou_iii = own_iii / union_iii
    first_i, last_i = np.triu_indices(SIDES)
    sides_i = last_i + 1 - first_i
    volumes_iii = sides_i[:, None, None] * sides_i[:, None] * sides_i
    best_3 = np.unravel_index(np.where(iou_iii == iou_iii.max(), volumes_iii, SIDES**3 + 1).argmin(), iou_iii.shape)
    intervals_i2: Integers = np.stack((first_i, last_i + 1), axis=1)
    box_32: Integers = intervals_i2[np.array(best_3)]
    return box_32


def sums_of_boxes(counts_B: Integers) -> Integers:
    """(i, i, i) the sum within every box, by its interval along each axis, in the order of `np.triu_indices`.

    Summed over the intervals of one channel after the other.
    """
    first_i, last_i = np.triu_indices(SIDES)
    sums = counts_B.reshape((SIDES,) * 3)
    for axis in range(3):
        running = np.insert(sums.cumsum(axis=axis), 0, 0, axis=axis)
        sums = running.take(last_i + 1, axis=axis) - running.take(first_i, axis=axis)
    return sums
