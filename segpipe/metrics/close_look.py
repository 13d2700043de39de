"""What a semantic evaluation counts beside the confusion matrix, for those who want to know where a model fails: how
sure it was, how well borders agree, and how IoU depends on the size of a region. Sums of integers, as everywhere.

It must cost little beside a forward pass. So probabilities are counted at a grid of pixels (`predictions.grid`), in
`LEVELS` steps; borders and regions on maps of at most `MAP_PIXELS`, thinned evenly: their sizes
are shares of the image.

Letter legend: K classes, H W image size, P pixels of the grid, L levels of probability, M runs of one id in the rows of
an image, R regions of it, S sizes of these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
        small = np.min_scalar_type(self.num_classes)
        truth_hw = np.where(valid_hw, truth_hw, self.num_classes).astype(small)
        predicted_hw = np.where(valid_hw, predicted_hw, self.num_classes).astype(small)
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
        starts_M, regions_M = _regions(ids_hw)
        pixels_M = np.diff(starts_M, append=ids_hw.size)
        found_M = np.add.reduceat(right_hw.ravel(), starts_M, dtype=np.int64)
        # Floats hold whole numbers below 2^53, and no image has so many pixels.
        pixels_R, found_R = (np.bincount(regions_M, weights=each_M) for each_M in (pixels_M, found_M))
        classes_R = np.empty(len(pixels_R), dtype=np.int64)
        classes_R[regions_M] = ids_hw.ravel()[starts_M]
        sizes_R = np.searchsorted(SIZE_EDGES, pixels_R / ids_hw.size, side="right")
        named_R = classes_R < self.num_classes
        cells_R = classes_R[named_R] * self.regions_KS4.shape[1] + sizes_R[named_R]
        for place, counts_R in ((column, pixels_R), (column + 1, found_R)):
            sums = np.bincount(cells_R, weights=counts_R[named_R], minlength=self.regions_KS4[..., 0].size)
            self.regions_KS4[..., place] += sums.astype(np.int64).reshape(self.num_classes, -1)


def _regions(ids_hw: IntArray) -> tuple[IntArray, IntArray]:
    """Where the runs of one id in the rows of a map start, as places in the flat map, and which region each run is in,
    numbered from 0. A region is neighbours of one id, above, below and beside each other.

    Runs are some hundredths of the pixels: finding what hangs together among them takes a fifth of the time of scipy's
    labels of pixels.
    """
    begins_hw = np.ones(ids_hw.shape, dtype=np.bool_)
    np.not_equal(ids_hw[:, 1:], ids_hw[:, :-1], out=begins_hw[:, 1:])
    starts_M = np.flatnonzero(begins_hw)
    runs_hw = (np.cumsum(begins_hw, dtype=np.int32) - 1).reshape(ids_hw.shape)
    # Two runs above each other touch in one stretch, and it begins where one of them does.
    touch_hw = (ids_hw[1:] == ids_hw[:-1]) & (begins_hw[1:] | begins_hw[:-1])
    above, below = runs_hw[:-1][touch_hw], runs_hw[1:][touch_hw]
    edges = coo_array((np.ones(len(above), dtype=np.bool_), (above, below)), shape=(len(starts_M), len(starts_M)))
    _, regions_M = connected_components(edges, directed=False)
    return starts_M, regions_M
