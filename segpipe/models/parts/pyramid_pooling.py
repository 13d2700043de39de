"""Pyramid pooling: a map beside its means over grids of several sizes, so that every cell knows what is around it.

Pyramid Scene Parsing Network, Zhao, Shi, Qi, Wang, Jia, CVPR 2017, arXiv:1612.01105, section 3.2. Below `pspnet.py` and
`upernet.py`.

Letter legend: N batch, C channels, h w map size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.models.parts.layers import conv_norm_relu, resize

BINS = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """The map itself and, for each of `bins`, its means over so many cells a side, convolved to `channels` and resized
    to the map. `out_channels` is what they are together. `features` are the convolutions, under the name that PSPNet's
    authors gave them."""

    def __init__(self, in_channels: int, channels: int, bins: Sequence[int] = BINS) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.out_channels = in_channels + len(bins) * channels
        self.features = nn.ModuleList(conv_norm_relu(in_channels, channels, 1) for _ in bins)

    def forward(self, maps_NChw: Tensor) -> Tensor:
        size = maps_NChw.shape[-2:]
        views = [maps_NChw]
        for cells, reduce in zip(self.bins, self.features, strict=True):
            views.append(resize(reduce(F.adaptive_avg_pool2d(maps_NChw, cells)), *size))
        return torch.cat(views, dim=1)
