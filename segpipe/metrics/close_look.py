"""What a semantic evaluation counts beside the confusion matrix, for those who want to know where a model fails: how
sure it was, how well borders agree, and how IoU depends on the size of a region. Sums of integers, as everywhere.

It must cost little beside a forward pass. So probabilities are counted at a grid of pixels (`predictions.grid`), in
`LEVELS` steps; borders and regions on maps of at most `MAP_PIXELS`, thinned evenly: their sizes
are shares of the image.

Letter legend: K classes, H W image size, P pixels of the grid, L levels of probability, R regions of an
image, S sizes of these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segpipe.metrics.boundary import segment_boundaries
from segpipe.predictions import LEVELS, grid

IntArray = npt.NDArray[np.int64]
MAP_PIXELS = 1 << 18
# Of the image: regions below the first are tiny, from the last one on vast.
SIZE_EDGES = (0.0001, 0.001, 0.01, 0.1)


class CloseLook:
    """Gathers over a split; those of its parts merge in any order to the same state.

    `confidence_L2` counts pixels, and right ones, by the probability of the class that was predicted. `levels_KL2` are
    pixels by the probability of class k: of other classes, and of class k. `borders_K3` are pixels within 2 % of the
    image's diagonal of a border: in both maps and of one class, in the truth, in the prediction (Boundary IoU: Cheng et
    al. 2021). `regions_KS4` are pixels by the size of the region that they are in: in regions of the truth, found ones
    of these, in regions of the prediction, right ones of these.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        sizes = len(SIZE_EDGES) + 1
        self.confidence_L2: IntArray = np.zeros((LEVELS, 2), dtype=np.int64)
        self.levels_KL2: IntArray = np.zeros((num_classes, LEVELS, 2), dtype=np.int64)
        self.borders_K3: IntArray = np.zeros((num_classes, 3), dtype=np.int64)
        self.regions_KS4: IntArray = np.zeros((num_classes, sizes, 4), dtype=np.int64)

    def update(self, ids_HW: Any, labels_HW: Any, levels_KP: Any = None) -> None:
        """Counts one image: class ids of prediction and truth, and the levels of the grid's pixels, if any."""
        predicted_HW, truth_HW = np.asarray(ids_HW), np.asarray(labels_HW)
        if levels_KP is not None:
            rows, columns = grid(*truth_HW.shape)
            self._count_levels(levels_KP, predicted_HW[rows, columns].ravel(), truth_HW[rows, columns].ravel())
        step = int(np.ceil(np.sqrt(truth_HW.size / MAP_PIXELS)))
        truth_hw, predicted_hw = truth_HW[::step, ::step], predicted_HW[::step, ::step]
        valid_hw = truth_hw != self.ignore_index
        # What is not labelled is one more class of both, which ends their regions alike.
        truth_hw = np.where(valid_hw, truth_hw, self.num_classes).astype(np.int32)
        predicted_hw = np.where(valid_hw, predicted_hw, self.num_classes).astype(np.int32)
        right_hw = valid_hw & (truth_hw == predicted_hw)
        self._count_borders(truth_hw, predicted_hw, right_hw)
        self._count_regions(truth_hw, right_hw, 0)
        self._count_regions(predicted_hw, right_hw, 2)

    def merge(self, other: CloseLook) -> None:
        """Adds what `other` counted."""
        self.confidence_L2 += other.confidence_L2
        self.levels_KL2 += other.levels_KL2
        self.borders_K3 += other.borders_K3
        self.regions_KS4 += other.regions_KS4

    def _count_levels(self, levels_KP: npt.NDArray[np.uint8], predicted_P: Any, truth_P: Any) -> None:
        valid_P = truth_P != self.ignore_index
        levels, predicted, truth = levels_KP[:, valid_P], predicted_P[valid_P], truth_P[valid_P]
        places = np.arange(len(truth))
        said, right = levels[predicted, places], predicted == truth
        self.confidence_L2[:, 0] += np.bincount(said, minlength=LEVELS)
        self.confidence_L2[:, 1] += np.bincount(said[right], minlength=LEVELS)
        cells = self.num_classes * LEVELS
        keys = levels + np.arange(self.num_classes, dtype=np.int32)[:, None] * LEVELS
        own = np.bincount(keys[truth, places], minlength=cells).reshape(-1, LEVELS)
        self.levels_KL2[..., 0] += np.bincount(keys.ravel(), minlength=cells).reshape(-1, LEVELS) - own
        self.levels_KL2[..., 1] += own

    def _count_borders(self, truth_hw: IntArray, predicted_hw: IntArray, right_hw: npt.NDArray[np.bool_]) -> None:
        true_hw, said_hw = segment_boundaries(truth_hw), segment_boundaries(predicted_hw)
        for column, ids in enumerate(
            (truth_hw[true_hw & said_hw & right_hw], truth_hw[true_hw], predicted_hw[said_hw])
        ):
            self.borders_K3[:, column] += np.bincount(ids, minlength=self.num_classes + 1)[:-1]

    def _count_regions(self, ids_hw: IntArray, right_hw: npt.NDArray[np.bool_], column: int) -> None:
        regions_hw, num_regions = _regions(ids_hw)
        classes_R = np.empty(num_regions + 1, dtype=np.int64)
        classes_R[regions_hw] = ids_hw
        pixels_R = np.bincount(regions_hw.ravel(), minlength=num_regions + 1)
        found_R = np.bincount(regions_hw[right_hw], minlength=num_regions + 1)
        sizes_R = np.searchsorted(SIZE_EDGES, pixels_R / ids_hw.size, side="right")
        named_R = classes_R < self.num_classes
        named_R[0] = False  # no region is called 0
        cells_R = classes_R[named_R] * self.regions_KS4.shape[1] + sizes_R[named_R]
        for place, counts_R in ((column, pixels_R), (column + 1, found_R)):
            # Floats hold whole numbers below 2^53, and no image has so many pixels.
            sums = np.bincount(cells_R, weights=counts_R[named_R], minlength=self.regions_KS4[..., 0].size)
            self.regions_KS4[..., place] += sums.astype(np.int64).reshape(self.num_classes, -1)


def _regions(ids_hw: IntArray) -> tuple[IntArray, int]:
    """The region (h, w) that each pixel is in, numbered from 1, and how many there are: neighbours of one id.

    scipy labels what is set in one mask. Of a mask twice as fine, in which neighbours are joined where they are of one
    id, it labels all classes at once, in half the time that it takes class by class.
    """
    height, width = ids_hw.shape
    joined: npt.NDArray[np.uint8] = np.zeros((2 * height - 1, 2 * width - 1), dtype=np.uint8)
    joined[::2, ::2] = 1
    joined[1::2, ::2] = ids_hw[1:] == ids_hw[:-1]
    joined[::2, 1::2] = ids_hw[:, 1:] == ids_hw[:, :-1]
    labelled, num_regions = ndimage.label(joined)
    return labelled[::2, ::2], num_regions
