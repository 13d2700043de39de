"""Cross entropy that looks at hard pixels: bootstrapped, which leaves the easy ones out, and focal, which fades them.

Letter legend: N batch, K classes (1: one logit for two classes, see `reading.py`), P pixels that count, H W image size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe.losses.pixels import mean_over
from segpipe.losses.reading import logits_of_classes, never_zero


def bootstrapped_cross_entropy(
    logits_NKHW: Tensor,
    labels_NHW: Tensor,
    *,
    threshold: float | None = None,
    top_k: int | None = None,
    per_image: bool = False,
    ignore_index: int = 255,
) -> Tensor:
    """Mean cross entropy over the hard pixels of a batch: a float32 scalar (float64 of such logits), in nats.

    Hard are pixels whose true class has a probability below `threshold` (0..1), and at least the `top_k` hardest of the
    batch, or with `per_image` of each image; with `top_k` alone just these, with neither all. Where no pixel is hard,
    or all are ignored, the loss is 0 with a zero gradient. Wu, Shen and van den Hengel, 2016, arXiv:1604.04339 (online
    bootstrapping, the hardest of a crop); with both numbers it is the OhemCrossEntropy of the released HRNet. Raises
    ValueError on numbers out of range.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected a probability above 0 and at most 1, found {threshold}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: expected a number of pixels of at least 1, found {top_k}")
    labels_NHW = labels_NHW.long()
    errors_NHW = F.cross_entropy(
        logits_of_classes(logits_NKHW), labels_NHW, ignore_index=ignore_index, reduction="none"
    )
    counted_NHW = labels_NHW != ignore_index
    if threshold is None and top_k is None:
        return mean_over(errors_NHW, counted_NHW)
    chosen_NHW = counted_NHW & (errors_NHW > (math.inf if threshold is None else -math.log(threshold)))
    if top_k is not None:
        ranked_NHW = errors_NHW.detach().masked_fill(~counted_NHW, -1.0)
        # G groups, each with T hardest pixels of its P: images, or the batch alone.
        ranked_GP = ranked_NHW.reshape(len(ranked_NHW) if per_image else 1, -1)
        hardest_GT = ranked_GP.topk(min(top_k, ranked_GP.shape[1])).indices
        among_GP = torch.zeros_like(ranked_GP, dtype=torch.bool).scatter_(1, hardest_GT, True)
        chosen_NHW |= among_GP.view_as(counted_NHW) & counted_NHW
    return mean_over(errors_NHW, chosen_NHW)


def focal_loss(
    logits_NKHW: Tensor,
    labels_NHW: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    weight: Tensor | None = None,
    ignore_index: int = 255,
) -> Tensor:
    """Mean of (1 - p)^gamma x cross entropy, p the probability of the true class: a float32 scalar, in nats.

    Lin et al., 2017, arXiv:1708.02002, equations 4 and 5, with a softmax in place of the sigmoid where there are more
    than two classes; gamma 0 is cross entropy. `weight` (K,) are class weights, by whose sum the mean divides, as in
    `cross_entropy`. `alpha`, of two classes, weighs class 1 by itself and class 0 by 1 - alpha, and the mean is that
    over pixels, as in the paper. Ignored pixels do not count; of a batch without others the loss is 0 with a zero
    gradient. Raises ValueError on numbers out of range and on alpha beside weights or more classes.
    """
    if not gamma >= 0 or (alpha is not None and not 0 <= alpha <= 1):
        raise ValueError(f"expected gamma of at least 0 and alpha in 0..1, found gamma {gamma}, alpha {alpha}")
    logits_NCHW, labels_NHW = logits_of_classes(logits_NKHW), labels_NHW.long()
    if alpha is not None and (weight is not None or logits_NCHW.shape[1] != 2):
        raise ValueError(
            f"alpha weighs one of two classes against the other, without other weights; found {logits_NCHW.shape[1]} "
            f"classes{' and weights' * (weight is not None)}: give weight instead"
        )
    errors_NHW = F.cross_entropy(logits_NCHW, labels_NHW, ignore_index=ignore_index, reduction="none")
    counted_NHW = labels_NHW != ignore_index
    # Of a pixel that is surely right nothing is left to take a root of, whose slope would be infinite.
    doubt_NHW = -torch.expm1(-errors_NHW).clamp(max=-torch.finfo(errors_NHW.dtype).tiny)
    share_NHW = counted_NHW.to(errors_NHW)
    if alpha is not None:
        errors_NHW = errors_NHW * torch.where(labels_NHW == 1, alpha, 1 - alpha)
    elif weight is not None:
        share_NHW = share_NHW * weight.to(errors_NHW)[labels_NHW.masked_fill(~counted_NHW, 0)]
    return (share_NHW * doubt_NHW**gamma * errors_NHW).sum() / never_zero(share_NHW.sum())
