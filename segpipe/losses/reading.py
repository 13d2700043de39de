"""What every loss of pixels reads of logits and labels: probabilities, who belongs to a class, which pixels count.

Of K classes a model gives K logits a pixel, of which a softmax makes probabilities. Of two it may give one, that of
class 1 against class 0 (`train.sigmoid`): labels are still 0 and 1, and a sigmoid makes the probability of class 1.

Letter legend: N batch, K classes (1 where a model has one logit for two), P pixels that count, H W image size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def precise(logits: Tensor) -> Tensor:
    """Float32 at least, which is what losses are computed in; float64 stays, so that gradients can be checked."""
    return logits if logits.dtype == torch.float64 else logits.float()


def logits_of_classes(logits_NKHW: Tensor) -> Tensor:
    """Logits of every class, `precise`: one logit z becomes (0, z), whose softmax is its sigmoid."""
    logits_NKHW = precise(logits_NKHW)
    return F.pad(logits_NKHW, (0, 0, 0, 0, 1, 0)) if logits_NKHW.shape[1] == 1 else logits_NKHW


def resized(logits_NKhw: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Logits of height and width `size`, bilinearly, pixel centres aligned at the corners of the image's area."""
    if size in (None, tuple(logits_NKhw.shape[2:])):
        return logits_NKhw
    return F.interpolate(logits_NKhw, size=size, mode="bilinear", align_corners=False)


def probabilities_of(logits_NKHW: Tensor) -> Tensor:
    """(N, K, H, W) in 0..1, `precise`; of one logit the probability of class 1 alone."""
    logits_NKHW = precise(logits_NKHW)
    return logits_NKHW.sigmoid() if logits_NKHW.shape[1] == 1 else logits_NKHW.softmax(1)


def members_of(labels_NHW: Tensor, like_NKHW: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """1 where a pixel belongs to a class, else 0: (N, K, H, W) as `like_NKHW`; and which pixels count, (N, 1, H, W).

    Ignored pixels belong to no class. Of one logit the class is class 1.
    """
    labels_N1HW = labels_NHW.long()[:, None]
    counted_N1HW = labels_N1HW != ignore_index
    num_logits = like_NKHW.shape[1]
    shape = (len(labels_N1HW), max(2, num_logits), *labels_N1HW.shape[2:])
    members_NKHW = like_NKHW.new_zeros(shape).scatter_(
        1, labels_N1HW.masked_fill(~counted_N1HW, 0), counted_N1HW.to(like_NKHW.dtype)
    )
    return members_NKHW[:, 1:] if num_logits == 1 else members_NKHW, counted_N1HW


def never_zero(divisor: Tensor) -> Tensor:
    """What a sum of nothing is divided by: 1, so that the loss is 0 with a zero gradient instead of no number."""
    return torch.where(divisor > 0, divisor, 1.0)
