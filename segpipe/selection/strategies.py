"""Query strategies of active learning: how much a person's labels of an image would tell, in 0..1.

Uncertainty sampling asks one model for the probabilities of a pixel, query by committee asks several for their votes
(Settles 2009, sections 3.1 and 3.2). Every segmentation is unsure along the borders of what it finds, so that the mean
over all pixels ranks images by how long their borders are; what a person can teach is in regions that a model does not
know. So the score of an image is that of its worst patch: the highest mean over a window of an eighth of each side, as
"patch-level aggregation" of Kahl et al. 2024 (ValUES, arXiv 2401.08501), who find the aggregation crucial and the mean
misleading. The size of the window is ours.

Legend: K classes, P pixels at which probabilities are kept, M models, H W size of the image, h w of a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from segpipe.predictions import Floats, Integers, grid, level_probabilities

# By the names under which they are asked for; the first of each is the default.
UNCERTAINTY: Mapping[str, str] = {
    "entropy": "how evenly the probability is spread over the classes",
    "margin": "how near the second likeliest class comes to the likeliest",
    "least-confidence": "how unlikely the likeliest class is",
}
COMMITTEE: Mapping[str, str] = {
    "vote-entropy": "how evenly the models' votes are spread, pixel by pixel",
    "pairwise-miou": "1 - mIoU of each model's map on each other's, the mean over the pairs",
}
PATCH = 8  # a window is this part of each side


def uncertainty(levels_KP: Integers, height: int, width: int) -> dict[str, float]:
    """The score of each of UNCERTAINTY, 0..1, of an image of this size, whose probabilities are kept as levels.

    Raises ValueError where there are fewer than two classes, or the levels of a pixel say nothing: not a number.
    """
    probabilities_K = level_probabilities()
    probabilities_K[0] = 0  # the lowest level means "at most": of 150 classes, its middle would add up to a twentieth
    found_KP = probabilities_K[levels_KP]
    sums_P = found_KP.sum(axis=0)
    num_classes = len(found_KP)
    if num_classes < 2 or not sums_P.all():
        raise ValueError(f"{num_classes} classes, probabilities that sum to {sums_P.min():g}; expected two, and 1")
    found_KP = found_KP / sums_P
    second_P, first_P = np.partition(found_KP, num_classes - 2, axis=0)[-2:]
    information_KP = -found_KP * np.log(found_KP, out=np.zeros_like(found_KP), where=found_KP > 0)
    by_name = {
        "entropy": information_KP.sum(axis=0) / np.log(num_classes),
        "margin": 1 - (first_P - second_P),
        "least-confidence": (1 - first_P) * num_classes / (num_classes - 1),
    }
    rows, columns = grid(height, width)
    return {name: worst_patch(by_name[name].reshape(rows.size, columns.size)) for name in UNCERTAINTY}


def disagreement(strategy: str, maps_Mhw: Sequence[Integers]) -> float:
    """The score of one of COMMITTEE, 0..1, of an image of which each model gives a map of class ids."""
    stacked_Mhw = np.stack(maps_Mhw)
    if strategy == "vote-entropy":
        return worst_patch(_vote_entropy(stacked_Mhw))
    return float(np.mean([1 - _miou(first, second) for first, second in combinations(stacked_Mhw, 2)]))


def worst_patch(scores_hw: Floats) -> float:
    """The highest mean over all windows of an eighth of each side, at least one pixel."""
    h, w = (max(1, side // PATCH) for side in scores_hw.shape)
    sums = np.pad(scores_hw.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    windows = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    return float(np.clip(windows.max() / (h * w), 0, 1))


def _vote_entropy(maps_Mhw: Integers) -> Floats:
    """(h, w) entropy of the votes (Dagan & Engelson 1995), 1 where each model says something else."""
    models = len(maps_Mhw)
    entropy_hw: Floats = np.zeros(maps_Mhw.shape[1:])
    for k in np.unique(maps_Mhw):
        share_hw = (maps_Mhw == k).mean(axis=0)
        entropy_hw -= share_hw * np.log(share_hw, out=np.zeros_like(share_hw), where=share_hw > 0)
    return entropy_hw / float(np.log(models))


def _miou(first_hw: Integers, second_hw: Integers) -> float:
    """The mean over the classes that either has."""
    ious = []
    for k in np.union1d(first_hw, second_hw):
        one, other = first_hw == k, second_hw == k
        ious.append((one & other).sum() / (one | other).sum())
    return float(np.mean(ious))
