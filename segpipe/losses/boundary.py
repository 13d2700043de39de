"""The boundary loss: how far from a class's outline its probability lies on the wrong side.

Kervadec et al., "Boundary loss for highly unbalanced segmentation", 2019, arXiv:1812.07032, with distances
as the authors' code counts them. Letter legend: N batch, K classes (1: one logit for two classes, see `reading.py`),
H W image size.
"""

from __future__ import annotations

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from segpipe.losses.reading import members_of, probabilities_of


def boundary_loss(logits_NKHW: Tensor, labels_NHW: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Mean over pixels and classes of probability x signed distance to the outline, in pixels: a float32 scalar.

    Distances are above 0 outside of a class and below inside, so that the loss can be below 0. A class that an image
    lacks, or that fills it, has no outline there and adds nothing; ignored pixels add nothing, and outlines are looked
    for beyond them. Where all are ignored the loss is 0 with a zero gradient.

    The paper adds it to a loss of regions, such as Dice, at 0.01 of its weight; alone it can end where nothing is found
    at all. Distances are computed on the CPU: about 30 ms for each class that an image of 512 x 512 has.
    """
    probabilities_NKHW = probabilities_of(logits_NKHW)
    members_NKHW, counted_N1HW = members_of(labels_NHW, probabilities_NKHW, ignore_index)
    inside_NKHW = members_NKHW.bool().cpu()
    outside_NKHW = counted_N1HW.cpu() & ~inside_NKHW
    distances_NKHW = torch.zeros(inside_NKHW.shape, dtype=probabilities_NKHW.dtype)
    for n, k in (inside_NKHW.any((2, 3)) & outside_NKHW.any((2, 3))).nonzero().tolist():
        inside_HW, outside_HW = inside_NKHW[n, k], outside_NKHW[n, k]
        to_class_HW, to_others_HW = (
            torch.from_numpy(distance_transform_edt(~each.numpy())).to(distances_NKHW)
            for each in (inside_HW, outside_HW)
        )
        # The outline lies on the class's own outermost pixels, as in the authors' code: they are at 0.
        distances_NKHW[n, k] = to_class_HW * outside_HW - (to_others_HW - 1) * inside_HW
    total = (probabilities_NKHW * distances_NKHW.to(probabilities_NKHW.device)).sum()
    return total / (counted_N1HW.sum().clamp(min=1) * probabilities_NKHW.shape[1])
