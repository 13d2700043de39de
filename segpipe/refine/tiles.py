"""Maps of an image too large for one forward pass, from overlapping tiles that each fit.

Used by `tasks/` for whatever a model answers with maps. Letter legend: N batch, C channels of the image, P of the maps,
H W size of the image in pixels, h w of the maps in cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def tiled_maps(
    run: Callable[[Tensor], Tensor], images_NCHW: Tensor, *, tile: int, overlap: int, stride: int, divisor: int
) -> Tensor:
    """What `run` says of the whole images, (N, P, ceil(H / stride), ceil(W / stride)), made tile by tile.

    `run` maps any window of the images to maps of `stride`. Windows are `tile` pixels long and share `overlap` with the
    next one; those at the right and lower edge may be shorter, but longer than the overlap. The outer quarter of an
    overlap is the other tile's alone, between them both fade into each other. So for a model that answers the same
    wherever an image lies by multiples of `divisor`, and looks no further than a quarter of the overlap, the result is
    that of one pass; never is more than a tile and the maps in memory. Raises ValueError where `tile` and `overlap` are
    not multiples of `divisor`, that not of `stride`, or the overlap is more than half of a tile.
    """
    if divisor % stride or tile % divisor or overlap % divisor or not 0 <= 2 * overlap <= tile:
        raise ValueError(
            f"tiles: expected tile {tile} and overlap {overlap} in multiples of {divisor}, that a multiple of stride "
            f"{stride}, and at most half a tile of overlap"
        )
    H, W = images_NCHW.shape[-2:]
    maps_NPhw: Tensor | None = None
    for top, bottom in _spans(H, tile, overlap):
        for left, right in _spans(W, tile, overlap):
            part_NPhw = run(images_NCHW[..., top:bottom, left:right])
            if maps_NPhw is None:
                size = (-(-H // stride), -(-W // stride))
                maps_NPhw = part_NPhw.new_zeros((*part_NPhw.shape[:2], *size), dtype=torch.float32)
            h, w = part_NPhw.shape[-2:]
            fade_h = _fade(h, top > 0, bottom < H, overlap // stride, part_NPhw.device)
            fade_w = _fade(w, left > 0, right < W, overlap // stride, part_NPhw.device)
            y, x = top // stride, left // stride
            maps_NPhw[..., y : y + h, x : x + w] += part_NPhw.float() * fade_h[:, None] * fade_w
    assert maps_NPhw is not None
    return maps_NPhw


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """First and last-but-one pixel of the tiles along one axis."""
    starts = [0]
    while starts[-1] + tile < length:
        starts.append(starts[-1] + tile - overlap)
    return [(start, min(start + tile, length)) for start in starts]


def _fade(cells: int, before: bool, behind: bool, overlap: int, device: torch.device) -> Tensor:
    """(cells,) weights of a tile along one axis: 1, and towards a neighbour down to 0. Those of neighbours add to 1."""
    outer = overlap // 4
    cell = torch.arange(cells, device=device) + 0.5
    rising = ((cell - outer) / max(1, overlap - 2 * outer)).clamp(0, 1)
    weight = torch.ones(cells, device=device)
    if before and overlap:
        weight = weight * rising
    if behind and overlap:
        weight = weight * rising.flip(0)
    return weight
