"""Centres and offsets of one image as a panoptic map: each thing pixel joins the centre that it points at.

Panoptic-DeepLab, Cheng et al. 2020, arXiv 1911.10194, section 3.2: centres are the maxima of the heatmap, a thing pixel
belongs to the centre nearest to where its offset leads, and the pixels of a centre vote on its class. `tasks/panoptic/`
calls it. Computed on the device on which the tensors lie, in float32.

Legend: C centres, K classes, H W size in pixels, P thing pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe.predictions import PanopticMap
from segpipe.refine.panoptic_merge import add_stuff, panoptic_map

# Distances (pixels x centres) computed at once: 64 MiB in float32.
DISTANCES_AT_ONCE = 2**24


def group_by_centre(
    labels_HW: Tensor,
    heat_HW: Tensor,
    offsets_2HW: Tensor,
    is_thing_K: Sequence[bool],
    *,
    threshold: float = 0.1,
    window: int = 7,
    most: int = 200,
    stuff_area_limit: int = 0,
) -> PanopticMap:
    """One segment a pixel, from class ids, how much of a centre each pixel is, and (rows, columns) from it to its own.

    Thing pixels of an image without a centre are void, as is stuff of fewer than `stuff_area_limit` pixels.
    """
    K = len(is_thing_K)
    thing_HW = torch.tensor([*is_thing_K, False], device=labels_HW.device)[labels_HW.long().clamp(max=K)]
    centres_C2 = find_centres(heat_HW, threshold=threshold, window=window, most=most)
    ids_HW = torch.zeros(labels_HW.shape, dtype=torch.int64, device=labels_HW.device)
    classes: list[int] = []
    if len(centres_C2):
        places_P2 = thing_HW.nonzero()
        centre_P = nearest_centre(places_P2 + offsets_2HW[:, thing_HW].T.float(), centres_C2)
        # The vote, among the thing classes that the pixels of a centre have; a centre without pixels is none.
        votes_CK = torch.bincount(centre_P * K + labels_HW[thing_HW].long(), minlength=len(centres_C2) * K).view(-1, K)
        chosen_C = votes_CK.any(1)
        number_C = chosen_C.cumsum(0) * chosen_C
        ids_HW[thing_HW] = number_C[centre_P]
        classes = votes_CK.argmax(1)[chosen_C].tolist()
    ids = ids_HW.to(torch.int32).cpu().numpy()
    add_stuff(ids, classes, labels_HW.cpu().numpy(), is_thing_K, stuff_area_limit=stuff_area_limit)
    return panoptic_map(ids, classes)


def find_centres(heat_HW: Tensor, *, threshold: float, window: int, most: int) -> Tensor:
    """(C, 2) int64 rows and columns, highest first: above `threshold` and nowhere exceeded in `window` around them.

    Of equal ones that touch, as bilinear resizing makes them out of one, the first in reading order is kept; others
    come in reading order. At most `most` are kept.
    """
    heat_11HW = heat_HW[None, None].float()
    highest_11HW = F.max_pool2d(heat_11HW, window, stride=1, padding=window // 2)
    peak_HW = ((heat_11HW == highest_11HW) & (heat_11HW > threshold))[0, 0]
    around = F.pad(peak_HW, (1, 1, 1, 0))
    earlier_HW = around[:-1, :-2] | around[:-1, 1:-1] | around[:-1, 2:] | around[1:, :-2]
    places_C2 = (peak_HW & ~earlier_HW).nonzero()
    order_C = heat_HW[places_C2[:, 0], places_C2[:, 1]].float().sort(descending=True, stable=True).indices
    return places_C2[order_C[:most]]


def nearest_centre(led_to_P2: Tensor, centres_C2: Tensor) -> Tensor:
    """(P,) int64: the centre nearest to each place (rows, columns), the first of equally near ones."""
    at_once = max(1, DISTANCES_AT_ONCE // len(centres_C2))
    found = []
    for places_P2 in torch.split(led_to_P2, at_once):
        rows_PC, columns_PC = (places_P2[:, None, axis] - centres_C2[None, :, axis] for axis in (0, 1))
        found.append((rows_PC.square() + columns_PC.square()).argmin(1))
    return torch.cat(found)
