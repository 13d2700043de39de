"""Points at which masks are compared, instead of all pixels: reading them, and drawing them where a model is unsure.

PointRend, Kirillov, Wu, He, Girshick, 2020, arXiv:1912.08193, section 3.1.
Letter legend: M masks, P points, h w size of the masks' maps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

OVERSAMPLED, UNCERTAIN_SHARE = 3, 0.75


def read_points(maps_Mhw: Tensor, points_MP2: Tensor, *, share: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """(M, P) float32: each map at its points, bilinear.

    `points_MP2` are x, y in 0..1 of an image, which covers the `share` (of height, of width) of the maps that starts at
    their first cell. Beyond the outermost cell centres the map goes on as it is there: read as zero, a mask that
    reaches the image's border would be half a mask there. Points (1, P, 2) are the same for every map.
    """
    height_share, width_share = share
    grid_MP2 = points_MP2 * points_MP2.new_tensor([width_share, height_share]) * 2 - 1
    if len(points_MP2) == 1:
        found = F.grid_sample(
            maps_Mhw[None].float(), grid_MP2[:, None], mode="bilinear", padding_mode="border", align_corners=False
        )
        return found[0, :, 0]
    found = F.grid_sample(
        maps_Mhw[:, None].float(), grid_MP2[:, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[:, 0, 0]


@torch.no_grad()
def uncertain_points(logits_Mhw: Tensor, num_points: int, *, share: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """(M, num_points, 2) x, y in 0..1, for each mask its own, drawn with torch's generator of the logits' device.

    Three times as many are drawn evenly; the three quarters of `num_points` whose logit is closest to 0 are kept, and
    the rest are drawn evenly anew. What is asked is the logit at the point itself: between cells of -1 and 1 it is 0.
    """
    device = logits_Mhw.device
    num_uncertain = int(UNCERTAIN_SHARE * num_points)
    drawn_MD2 = torch.rand(len(logits_Mhw), num_points * OVERSAMPLED, 2, device=device)
    doubt_MD = -read_points(logits_Mhw, drawn_MD2, share=share).abs()
    chosen_MU = doubt_MD.topk(num_uncertain, dim=1).indices
    uncertain_MU2 = drawn_MD2.gather(1, chosen_MU[..., None].expand(-1, -1, 2))
    even_MR2 = torch.rand(len(logits_Mhw), num_points - num_uncertain, 2, device=device)
    return torch.cat((uncertain_MU2, even_MR2), dim=1)
