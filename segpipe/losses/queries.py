"""The loss of mask classification: queries are matched with objects, and each learns its object's class and mask.

Mask2Former, Cheng et al., 2022, arXiv:2112.01527, sections 3.2 and 3.3, after DETR and MaskFormer (arXiv:2005.12872,
arXiv:2107.06278). Letter legend: N batch, Q queries, M objects of an image, K classes, P points, H W size of the image,
h w of the masks' maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from segpipe.losses.points import read_points, uncertain_points

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0
NOTHING_WEIGHT = 0.1
MOST_POINTS = 112 * 112
# Of a pair whose logits are not finite: more than any other's, as long as the model has not diverged.
_HIGHEST_COST = 1e6


def query_losses(
    class_logits_NQK: Tensor,
    mask_logits_NQhw: Tensor,
    class_ids: Sequence[Tensor],
    masks: Sequence[Tensor],
    *,
    stride: int,
) -> dict[str, Tensor]:
    """{"class", "mask", "dice"}: the weighted terms of one prediction, float32 scalars.

    Of each image `class_ids` holds (M,) int64 and `masks` (M, H, W) 0 or 1, as float32 for the least work; a cell of
    the masks' maps is `stride` pixels long. Objects beyond Q are left unmatched. Logits have K + 1 classes, the last is
    "nothing", which every query without an object learns at a tenth of the weight. "mask" and "dice" are means over the
    batch's objects (binary cross entropy, and 1 - Dice), and 0 where there are none. Both are taken at points: a
    quarter as many as the image has pixels, 12,544 at most, as in the paper.

    Draws from torch's generator: the same seed gives the same points. Logits that are not finite give a loss that is
    not, and no exception.
    """
    height, width = masks[0].shape[-2:]
    share = (height / (stride * mask_logits_NQhw.shape[2]), width / (stride * mask_logits_NQhw.shape[3]))
    num_points = min(MOST_POINTS, max(1, height * width // 4))
    nothing = class_logits_NQK.shape[2] - 1
    wanted_NQ = torch.full(class_logits_NQK.shape[:2], nothing, device=class_logits_NQK.device)
    logits, truths = [], []
    for image, (class_ids_M, masks_MHW) in enumerate(zip(class_ids, masks, strict=True)):
        points_1P2 = torch.rand(1, num_points, 2, device=mask_logits_NQhw.device)
        with torch.no_grad():
            seen_QP = read_points(mask_logits_NQhw[image], points_1P2, share=share)
            truth_MP = read_points(masks_MHW, points_1P2)
            cost_QM = matching_cost(class_logits_NQK[image], seen_QP, class_ids_M, truth_MP)
        queries, objects = match_queries(cost_QM)
        wanted_NQ[image, queries] = class_ids_M[objects]
        logits.append(mask_logits_NQhw[image, queries])
        # Objects come in order: where all are matched, as nearly always, their masks need no copy.
        truths.append(masks_MHW if len(objects) == len(masks_MHW) else masks_MHW[objects])
    weights_K = class_logits_NQK.new_ones(nothing + 1, dtype=torch.float32)
    weights_K[nothing] = NOTHING_WEIGHT
    class_loss = F.cross_entropy(class_logits_NQK.float().transpose(1, 2), wanted_NQ, weights_K)
    mask_loss_M, dice_loss_M = _mask_losses(logits, truths, num_points, share)
    num_objects = max(1, sum(len(each) for each in class_ids))
    return {
        "class": CLASS_WEIGHT * class_loss,
        "mask": MASK_WEIGHT * mask_loss_M.sum() / num_objects,
        "dice": DICE_WEIGHT * dice_loss_M.sum() / num_objects,
    }


def matching_cost(class_logits_QK: Tensor, logits_QP: Tensor, class_ids_M: Tensor, truth_MP: Tensor) -> Tensor:
    """(Q, M) float32: what each query would cost as each object; lower is better.

    2 x (- probability of the class) + 5 x mean binary cross entropy + 5 x (1 - Dice) over the P points, whose truth is
    in 0..1. What is not finite costs most.
    """
    class_cost = -class_logits_QK.float().softmax(1)[:, class_ids_M]
    logits_QP, truth_MP = logits_QP.float(), truth_MP.float()
    # BCE(x, t) = softplus(x) - x t, so that one product of matrices does for all pairs.
    mask_cost = (F.softplus(logits_QP).sum(1)[:, None] - logits_QP @ truth_MP.T) / logits_QP.shape[1]
    inside_QP = logits_QP.sigmoid()
    common = inside_QP @ truth_MP.T
    dice_cost = 1 - (2 * common + 1) / (inside_QP.sum(1)[:, None] + truth_MP.sum(1) + 1)
    cost = CLASS_WEIGHT * class_cost + MASK_WEIGHT * mask_cost + DICE_WEIGHT * dice_cost
    return cost.nan_to_num(nan=_HIGHEST_COST, posinf=_HIGHEST_COST, neginf=_HIGHEST_COST)


def match_queries(cost_QM: Tensor) -> tuple[Tensor, Tensor]:
    """(queries, objects): the pairs of the lowest total cost, as int64 indices on the cost's device.

    Every object has a query of its own, or every query an object where there are fewer queries. Pairs are in the order
    of the objects: the points that are then drawn for them do not depend on which query it is that matched.
    """
    objects, queries = linear_sum_assignment(cost_QM.T.cpu().numpy())
    return torch.from_numpy(queries).to(cost_QM.device), torch.from_numpy(objects).to(cost_QM.device)


def _mask_losses(
    logits: Sequence[Tensor], truths: Sequence[Tensor], num_points: int, share: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """(M,) mean binary cross entropy, and (M,) 1 - Dice of the probabilities, smoothed by one point, of all pairs.

    Of each image `logits` (M, h, w) and `truths` (M, H, W) of its matched pairs.
    """
    logits_Mhw = torch.cat(list(logits))
    points_MP2 = uncertain_points(logits_Mhw, num_points, share=share)
    logits_MP = read_points(logits_Mhw, points_MP2, share=share)
    points_by_image = torch.split(points_MP2, [len(each) for each in logits])
    truth_MP = torch.cat([read_points(*each) for each in zip(truths, points_by_image, strict=True)])
    entropy_M = F.binary_cross_entropy_with_logits(logits_MP, truth_MP, reduction="none").mean(1)
    inside_MP = logits_MP.sigmoid()
    common_M = (inside_MP * truth_MP).sum(1)
    dice_M = 1 - (2 * common_M + 1) / (inside_MP.sum(1) + truth_MP.sum(1) + 1)
    return entropy_M, dice_M
