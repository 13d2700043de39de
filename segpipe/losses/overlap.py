"""Losses of overlap: one minus Dice, Jaccard (IoU) or Tversky's index of probabilities with the truth.

All three are one index, with false alarms and misses weighed differently:

    index = (hits + s) / (hits + alpha x false alarms + beta x misses + s)     Dice: both 1/2, Jaccard: both 1

where hits = sum of p over the pixels of the class, false alarms = sum of p over the others, misses = sum of 1 - p over
those of the class. Letter legend: N batch, K classes (1: one logit for two classes, see `reading.py`), H W image size.
"""

from __future__ import annotations

from torch import Tensor

from segpipe.losses.reading import members_of, never_zero, probabilities_of


def dice_loss(
    logits_NKHW: Tensor, labels_NHW: Tensor, *, smooth: float = 0.0, per_image: bool = False, ignore_index: int = 255
) -> Tensor:
    """1 - mean over classes of (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth): a float32 scalar in 0..1.

    Milletari et al., 2016, arXiv:1606.04797, with plain sums in the divisor (as nnU-Net and
    segmentation_models.pytorch) where the paper squares. For the rest see `tversky_loss`.
    """
    return _overlap_loss(logits_NKHW, labels_NHW, 0.5, 0.5, smooth / 2, per_image, ignore_index)


def jaccard_loss(
    logits_NKHW: Tensor, labels_NHW: Tensor, *, smooth: float = 0.0, per_image: bool = False, ignore_index: int = 255
) -> Tensor:
    """1 - mean over classes of (sum(p t) + smooth) / (sum(p) + sum(t) - sum(p t) + smooth): a float32 scalar in 0..1.

    Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation", 2016, ISVC.
    For the rest see `tversky_loss`.
    """
    return _overlap_loss(logits_NKHW, labels_NHW, 1.0, 1.0, smooth, per_image, ignore_index)


def tversky_loss(
    logits_NKHW: Tensor,
    labels_NHW: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 0.0,
    per_image: bool = False,
    ignore_index: int = 255,
) -> Tensor:
    """1 - mean over classes of Tversky's index, `alpha` for false alarms and `beta` for misses: float32 in 0..1.

    Salehi et al., 2017, arXiv:1706.05721, whose best numbers are the defaults. Probabilities are the softmax's, or the
    sigmoid's of one logit; then class 1 is the only class. Sums go over the batch, or with `per_image` over each image,
    and the mean over images that have a class to count. Without `smooth` that is a class with a labelled pixel; with
    it, which says what the index of nothing is, all are counted. Ignored pixels belong to no sum; where no class is
    counted the loss is 0 with a zero gradient. Raises ValueError on numbers below 0.
    """
    return _overlap_loss(logits_NKHW, labels_NHW, alpha, beta, smooth, per_image, ignore_index)


def _overlap_loss(
    logits_NKHW: Tensor,
    labels_NHW: Tensor,
    alpha: float,
    beta: float,
    smooth: float,
    per_image: bool,
    ignore_index: int,
) -> Tensor:
    if min(alpha, beta, smooth) < 0 or alpha + beta == 0:
        raise ValueError(
            f"expected alpha and beta of at least 0, one of them above, and smooth of at least 0, found {alpha}, "
            f"{beta}, {smooth}"
        )
    probabilities_NKHW = probabilities_of(logits_NKHW)
    members_NKHW, counted_N1HW = members_of(labels_NHW, probabilities_NKHW, ignore_index)
    over = (2, 3) if per_image else (0, 2, 3)
    hits = (probabilities_NKHW * members_NKHW).sum(over)
    said = (probabilities_NKHW * counted_N1HW).sum(over)
    true = members_NKHW.sum(over)
    index = (hits + smooth) / never_zero(hits + alpha * (said - hits) + beta * (true - hits) + smooth)
    counts = (true > 0) | (smooth > 0)
    loss_1 = ((1 - index) * counts).sum(-1) / counts.sum(-1).clamp(min=1)
    has_class = counts.any(-1) & counted_N1HW.any() if not per_image else counts.any(-1) & counted_N1HW.any((1, 2, 3))
    return (loss_1 * has_class).sum() / has_class.sum().clamp(min=1)
