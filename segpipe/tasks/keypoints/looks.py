"""Heatmaps of the objects of a batch, from one look at each, or from two of which one is a mirror image, or from tiles.

Part of the task of `__init__.py`. Legend: N images, n objects of the batch, P keypoints, H W
image size, h w size of a heatmap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from segpipe.heatmaps import mirrored
from segpipe.models.spec import HeatmapOutput
from segpipe.refine.tiles import tiled_maps

STRIDE, DIVISOR = 4, 32  # of the heatmaps, and of the places where a model answers the same


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """How a model looks at objects: at whole images, in tiles of `tile` pixels beyond that size, or at each by itself;
    with the keypoints that a mirror image exchanges, at that one, too."""

    whole: bool
    tile: int
    overlap: int
    pairs: Sequence[Sequence[int]] | None


def heatmaps_of(
    model: nn.Module, images_N3HW: Tensor, of_n: Sequence[int], boxes_n4: Tensor, looks: Looks
) -> HeatmapOutput:
    """What a model says of n objects: `of_n` the place of each one's image, rising, `boxes_n4` x0, y0, x1, y1 there.

    Of two looks the mean of the heatmaps. `images_N3HW` are normalised.
    """
    shown = sorted(set(of_n))
    boxes = [boxes_n4[[row for row, image in enumerate(of_n) if image == each]] for each in shown]
    images_N3HW = images_N3HW[shown]
    if looks.whole:
        # To whole cells, so that those of the mirror image are the same.
        H, W = images_N3HW.shape[-2:]
        images_N3HW = functional.pad(images_N3HW, (0, -W % STRIDE, 0, -H % STRIDE))
    output = _run(model, images_N3HW, boxes, looks)
    if looks.pairs is None:
        return output
    W = images_N3HW.shape[-1]
    turned = [torch.stack([W - b[:, 2], b[:, 1], W - b[:, 0], b[:, 3]], dim=1) for b in boxes]
    other = _run(model, images_N3HW.flip(-1), turned, looks)
    mean_nPhw = (output.heatmaps_NPhw.float() + mirrored(other.heatmaps_NPhw.float(), looks.pairs)) / 2
    return HeatmapOutput(heatmaps_NPhw=mean_nPhw, regions_N4=output.regions_N4)


def _run(model: nn.Module, images_N3HW: Tensor, boxes: Sequence[Tensor], looks: Looks) -> HeatmapOutput:
    H, W = images_N3HW.shape[-2:]
    if not looks.whole or max(H, W) <= looks.tile:
        output: HeatmapOutput = model(images_N3HW, boxes)
        return output

    def run(part_N3HW: Tensor) -> Tensor:
        maps: Tensor = model(part_N3HW).heatmaps_NPhw
        return maps

    maps_NPhw = tiled_maps(run, images_N3HW, tile=looks.tile, overlap=looks.overlap, stride=STRIDE, divisor=DIVISOR)
    region_4 = torch.tensor([0.0, 0.0, W, H], device=maps_NPhw.device)
    return HeatmapOutput(heatmaps_NPhw=maps_NPhw, regions_N4=region_4.expand(len(maps_NPhw), 4))
