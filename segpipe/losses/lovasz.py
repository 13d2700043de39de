"""The Lovasz losses: the IoU of classes as a loss, extended from yes and no to errors of any size.

Berman, Triki and Blaschko, 2018, arXiv:1705.08790. Letter legend: N batch, K classes (1: one logit for two classes, see
`reading.py`), P pixels that count, H W image size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe.losses.reading import members_of, precise


def lovasz_loss(logits_NKHW: Tensor, labels_NHW: Tensor, *, per_image: bool = False, ignore_index: int = 255) -> Tensor:
    """Lovasz-Softmax of K logits, the Lovasz hinge of one: a float32 scalar (float64 of such logits).

    Lovasz-Softmax is the mean over the classes that have a labelled pixel, and lies in 0..1. The hinge is of class 1,
    which need not be there, and has no upper end. Both are of the whole batch, or with `per_image` the mean over its
    images that have a labelled pixel. Where all are ignored the loss is 0 with a zero gradient.
    """
    logits_NKHW = precise(logits_NKHW)
    members_NKHW, counted_N1HW = members_of(labels_NHW, logits_NKHW, ignore_index)
    of_one_logit = logits_NKHW.shape[1] == 1
    parts = []
    for part in [slice(n, n + 1) for n in range(len(logits_NKHW))] if per_image else [slice(None)]:
        counted_NHW = counted_N1HW[part, 0]
        logits_PK = logits_NKHW[part].movedim(1, -1)[counted_NHW]
        if len(logits_PK):
            members_PK = members_NKHW[part].movedim(1, -1)[counted_NHW].bool()
            parts.append((_hinge if of_one_logit else _softmax)(logits_PK, members_PK))
    return torch.stack(parts).mean() if parts else logits_NKHW[:0].sum()


def _softmax(logits_PK: Tensor, members_PK: Tensor) -> Tensor:
    probabilities_PK = logits_PK.softmax(1)
    errors_PK = torch.where(members_PK, 1 - probabilities_PK, probabilities_PK)
    present = members_PK.any(0).nonzero()[:, 0].tolist()
    return torch.stack([_extension(errors_PK[:, k], members_PK[:, k]) for k in present]).mean()


def _hinge(logits_P1: Tensor, members_P1: Tensor) -> Tensor:
    return _extension(F.relu(1 - torch.where(members_P1, logits_P1, -logits_P1))[:, 0], members_P1[:, 0])


def _extension(errors_P: Tensor, members_P: Tensor) -> Tensor:
    """The Lovasz extension of 1 - IoU of the members, at these errors."""
    sorted_P, order_P = errors_P.sort(descending=True, stable=True)
    # Not a dot product: torch's sums add in pairs, and keep the digits of a million terms.
    return (sorted_P * _steps(members_P[order_P], sorted_P.dtype)).sum()


def _steps(members_P: Tensor, dtype: torch.dtype) -> Tensor:
    """By how much 1 - IoU grows with each further pixel that is wrong (algorithm 1 of the paper).

    The paper, and its code, subtract neighbouring values of 1 - IoU, of whose seven digits little is left where an
    image has a million pixels: there half of the differences are 2 % off or more. Here is the difference itself: a
    missed pixel takes 1 / union away; a false alarm makes the union one larger, and intersection / union falls by
    intersection / (union x (union - 1)).
    """
    wrong_P = torch.arange(1, len(members_P) + 1, device=members_P.device)
    missed_P = members_P.cumsum(0)
    total = missed_P[-1]
    common_P, union_P = (total - missed_P).to(dtype), (total + wrong_P - missed_P).to(dtype)
    steps_P = torch.where(members_P, 1 / union_P, common_P / (union_P * (union_P - 1).clamp(min=1)))
    # Without a member the first false alarm takes the IoU from 1 to 0, and the rest nothing.
    steps_P[0] = torch.where(total == 0, 1.0, steps_P[0])
    return steps_P
