"""Atrous spatial pyramid pooling: several views of one map, each as wide as its rate, and the mean of the image.

Rethinking Atrous Convolution for Semantic Image Segmentation, Chen et al., 2017, arXiv:1706.05587, figure 5; separable
in Encoder-Decoder with Atrous Separable Convolution, Chen et al., 2018, arXiv:1802.02611. Below the DeepLabs.

Letter legend: N batch, C channels, H W map size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts.layers import conv_norm_relu, separable_conv

# The rates double with the resolution of the map, so that they span the same part of the image.
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


class ASPP(nn.Module):
    """Views side by side, projected to `channels`: 1x1, 3x3 at each of `rates`, and the mean of the image.

    `separable`: the 3x3 are atrous separable convolutions.
    """

    def __init__(
        self, in_channels: int, channels: int, rates: Sequence[int], *, separable: bool, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.point = conv_norm_relu(in_channels, channels, 1)
        self.atrous = nn.ModuleList(
            separable_conv(in_channels, channels, dilation=rate)
            if separable
            else conv_norm_relu(in_channels, channels, 3, dilation=rate)
            for rate in rates
        )
        self.image = conv_norm_relu(in_channels, channels, 1)
        self.project = conv_norm_relu(channels * (len(rates) + 2), channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        height, width = features_NCHW.shape[-2:]
        image = self.image(F.adaptive_avg_pool2d(features_NCHW, 1)).expand(-1, -1, height, width)
        views = (self.point(features_NCHW), *(atrous(features_NCHW) for atrous in self.atrous), image)
        return self.dropout(self.project(torch.cat(views, dim=1)))  # type: ignore[no-any-return]


def rates_for(output_stride: int) -> tuple[int, ...]:
    """The paper's rates. Raises InputError on an output stride other than 8 and 16."""
    if output_stride not in RATES:
        raise InputError(f"output_stride: {output_stride} is not one of 8, 16 (the paper's rates are for these)")
    return RATES[output_stride]
