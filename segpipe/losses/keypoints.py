"""The loss of heatmaps of keypoints: a pure function on tensors. Letter legend: N regions, P keypoints, h w cells."""

from __future__ import annotations

from torch import Tensor

from segpipe.losses.reading import never_zero


def heatmap_loss(heatmaps_NPhw: Tensor, targets_NPhw: Tensor, weights_NP: Tensor) -> Tensor:
    """Mean squared error over the pixels of the heatmaps whose keypoint is labelled: a float32 scalar.

    `weights_NP` is 1 for a labelled keypoint, hidden ones included (COCO's v > 0), and 0 for one that nobody marked,
    whose map may say anything. Sun et al. 2019 (arXiv:1902.09212, section 3) with their released code's weights; it
    halves the sum and divides by unlabelled maps, too, so that a crop with few labels would hardly count. Where nothing
    is labelled the loss is 0 with a zero gradient.
    """
    errors_NP = (heatmaps_NPhw.float() - targets_NPhw.float()).square().mean((2, 3))
    weights_NP = weights_NP.to(errors_NP)
    return (errors_NP * weights_NP).sum() / never_zero(weights_NP.sum())
