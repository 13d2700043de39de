"""Pixel decoders of mask-classification models: a backbone's four maps made equally deep and told of each other.

Below `mask2former.py`; the Feature Pyramid of detectors is another, in `pyramid.py`. Both decoders here map features of
strides 4, 8, 16, 32 to those of strides 32, 16, 8, at which queries look, and to one of stride 4, of which masks are
made; all of C channels. `extents` are the rows and columns of the three coarser maps that hold some of the image, while
the rest are padding.

Letter legend: N batch, C channels, S cells of the three coarser maps, one after the other, h w size of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.models.parts.attention import DeformableAttention, FeedForward, sine_positions
from segpipe.models.parts.layers import resize

STRIDES = (32, 16, 8)  # of the maps that queries look at, in this order
ENCODER_LAYERS, ENCODER_POINTS = 6, 4

Extents = Sequence[tuple[int, int]]


def _norm(channels: int) -> nn.GroupNorm:
    # The paper's 32 groups, but of two channels at least: one value alone has no variance on a map of 1 x 1.
    return nn.GroupNorm(math.gcd(32, channels // 2), channels)


def _lateral(in_channels: int, channels: int) -> nn.Sequential:
    return _started(nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), _norm(channels)))


def _smooth(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    return _started(nn.Sequential(conv, _norm(channels), nn.ReLU(inplace=True)))


def _started(unit: nn.Sequential) -> nn.Sequential:
    nn.init.kaiming_uniform_(unit[0].weight, a=1)  # type: ignore[arg-type]
    return unit


class PlainPixelDecoder(nn.Module):
    """MaskFormer's, arXiv:2107.06278, section 3.3: no attention. Top-down and nearest as the Feature Pyramid, but with
    norms, and each level is made of the smoothed one above it. Knows nothing of `heads`.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, heads: int) -> None:
        super().__init__()
        *finer, top = in_channels
        self.top = _smooth(top, channels)
        self.laterals = nn.ModuleList(_lateral(each, channels) for each in reversed(finer))
        self.outputs = nn.ModuleList(_smooth(channels, channels) for _ in finer)
        self.pixels = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Sequence[Tensor], extents: Extents) -> tuple[list[Tensor], Tensor]:
        found = [self.top(maps[-1])]
        for features, lateral, output in zip(reversed(maps[:-1]), self.laterals, self.outputs, strict=True):
            size = features.shape[-2:]
            found.append(output(lateral(features) + F.interpolate(found[-1], size=size, mode="nearest")))
        return found[:3], self.pixels(found[3])


class DeformableEncoderLayer(nn.Module):
    """Deformable attention of every cell of every level to all levels, then the feed-forward block."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, heads, len(STRIDES), ENCODER_POINTS)
        self.norm = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, channels * 4)

    def forward(
        self,
        cells_NSC: Tensor,
        positions_SC: Tensor,
        places_S2: Tensor,
        sizes: Sequence[tuple[int, int]],
        inside_S: Tensor,
    ) -> Tensor:
        seen_NSC = self.attention(cells_NSC + positions_SC, places_S2, cells_NSC, sizes, inside_S)
        return self.feed_forward(self.norm(cells_NSC + seen_NSC))  # type: ignore[no-any-return]


class DeformablePixelDecoder(nn.Module):
    """Mask2Former's: deformable attention over strides 32, 16, 8, then one step of FPN to stride 4."""

    def __init__(self, in_channels: Sequence[int], channels: int, heads: int) -> None:
        super().__init__()
        finest, *coarser = in_channels
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(each, channels, 1), _norm(channels)) for each in reversed(coarser)
        )
        self.level_positions = nn.Parameter(torch.randn(len(STRIDES), channels))
        self.encoder = nn.ModuleList(DeformableEncoderLayer(channels, heads) for _ in range(ENCODER_LAYERS))
        self.lateral = _lateral(finest, channels)
        self.output = _smooth(channels, channels)
        self.pixels = nn.Conv2d(channels, channels, 1)
        for projection in self.projections:
            nn.init.xavier_uniform_(projection[0].weight)  # type: ignore[index]
            nn.init.zeros_(projection[0].bias)  # type: ignore[index]

    def forward(self, maps: Sequence[Tensor], extents: Extents) -> tuple[list[Tensor], Tensor]:
        finest, *coarser = maps
        levels = [projection(each) for projection, each in zip(self.projections, reversed(coarser), strict=True)]
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        device, channels = finest.device, levels[0].shape[1]
        positions_SC = torch.cat(
            [
                sine_positions(*size, channels, extent=extent, device=device) + level_C
                for size, extent, level_C in zip(sizes, extents, self.level_positions, strict=True)
            ]
        )
        places_S2 = torch.cat([_centres(*size, device) for size in sizes])
        inside_S = torch.cat([_inside(size, extent, device) for size, extent in zip(sizes, extents, strict=True)])
        cells_NSC = torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)
        for layer in self.encoder:
            cells_NSC = layer(cells_NSC, positions_SC, places_S2, sizes, inside_S)
        parts = torch.split(cells_NSC.transpose(1, 2), [height * width for height, width in sizes], dim=2)
        found = [part.reshape(*part.shape[:2], *size) for part, size in zip(parts, sizes, strict=True)]
        joined = self.lateral(finest) + resize(found[-1], *finest.shape[-2:])
        return found, self.pixels(self.output(joined))


def _centres(height: int, width: int, device: torch.device) -> Tensor:
    """(S, 2): x, y of the middle of every cell, in 0..1 of the map."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), dim=2).flatten(0, 1)


def _inside(size: tuple[int, int], extent: tuple[int, int], device: torch.device) -> Tensor:
    """Bool (S,): whether a cell holds some of the image."""
    rows, columns = (torch.arange(count, device=device) < inside for count, inside in zip(size, extent, strict=True))
    return (rows[:, None] & columns).flatten()
