"""What lies beyond the border of an image, its mirror image, and the middle of a map that is larger than wanted.

For networks whose convolutions are not padded. Below the architectures of `models/`.

Letter legend: N batch, C channels, H W size of an image or map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Margins = tuple[int, int]


class Mirrored(nn.Module):
    """Maps images_NCHW to what they are with mirrored pixels around them.

    A module without anything in it, so that `profiles` can tell what a cell of its result sees: which pixels indices
    mean is not known to whoever looks at shapes.
    """

    def forward(self, images_NCHW: Tensor, rows: Margins, columns: Margins) -> Tensor:
        """With as many more `rows` above and below, and `columns` to the left and right."""
        for dim, (before, behind) in ((2, rows), (3, columns)):
            size = images_NCHW.shape[dim]
            places = torch.tensor(mirrored_places(size, -before, size + behind), device=images_NCHW.device)
            images_NCHW = images_NCHW.index_select(dim, places)
        return images_NCHW


def mirrored_places(size: int, first: int, stop: int) -> list[int]:
    """The pixels 0..size - 1 of a side that stand at `first` and on, before `stop`, where the side is followed by its
    mirror image on either end, without its edge pixel twice in a row.

    As often as it takes, so that a side may be shorter than what is to be put beside it (`reflect` of torch refuses).
    No tensor's work: torch 2.15's compiler ends with an error where remainders are indices.
    """
    last = size - 1
    return [last - abs(place % (2 * last) - last) if last else 0 for place in range(first, stop)]


def middle(maps_NCHW: Tensor, height: int, width: int) -> Tensor:
    """The `height` x `width` cells in the middle; where that lies between two cells, the one above or to the left."""
    top, left = ((have - want) // 2 for have, want in zip(maps_NCHW.shape[-2:], (height, width), strict=True))
    return maps_NCHW[..., top : top + height, left : left + width]
