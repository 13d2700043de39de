"""Blocks of transformers that look at maps: sine positions, attention under a mask, deformable attention, feed-forward.

Below the architectures of `models/` that are made of them. No dropout anywhere.

Letter legend: N batch, Q queries, S cells of a map (or of several, one after the other), C channels, E heads, L levels,
P points, h w size of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError

TEMPERATURE = 10_000.0


def sine_positions(
    height: int, width: int, channels: int, *, extent: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """(S, C) float32 positions of the cells of a height x width map, row after row.

    The first half of the channels tells the row, the second the column, each by sines and cosines by turns of 2 pi
    times its share of `extent`: the rows and columns that hold the image, while the rest are padding. DETR, Carion et
    al., 2020, arXiv:2005.12872, as its code has it: places count from 1. `channels` is a multiple of 4.
    """
    half = channels // 2
    periods = TEMPERATURE ** (2 * torch.arange(half // 2, device=device, dtype=torch.float32) / half)
    codes = []
    for count, inside in zip((height, width), extent, strict=True):
        shares = torch.arange(1, count + 1, device=device, dtype=torch.float32) / inside * 2 * math.pi
        angles = shares[:, None] / periods
        codes.append(torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1))
    rows_hC, columns_wC = codes
    return torch.cat((rows_hC[:, None].expand(-1, width, -1), columns_wC.expand(height, -1, -1)), dim=2).flatten(0, 1)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al., 2017, arXiv:1706.03762, section 3.2)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        xavier(self)

    def forward(
        self, queries_NQC: Tensor, keys_NSC: Tensor, values_NSC: Tensor, attend_NQS: Tensor | None = None
    ) -> Tensor:
        """(N, Q, C). Where bool `attend_NQS` is False a query does not look; a query that looks nowhere is NaN."""
        queries_NEQc, keys_NESc, values_NESc = (
            each.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for each in (self.query(queries_NQC), self.key(keys_NSC), self.value(values_NSC))
        )
        attend_N1QS = None if attend_NQS is None else attend_NQS[:, None]
        mixed_NEQc = F.scaled_dot_product_attention(queries_NEQc, keys_NESc, values_NESc, attn_mask=attend_N1QS)
        return self.output(mixed_NEQc.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them, added to their input, then layer norm."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.inner = nn.Linear(channels, inner)
        self.outer = nn.Linear(inner, channels)
        self.norm = nn.LayerNorm(channels)
        xavier(self)

    def forward(self, features_NSC: Tensor) -> Tensor:
        return self.norm(features_NSC + self.outer(F.relu(self.inner(features_NSC))))  # type: ignore[no-any-return]


class DeformableAttention(nn.Module):
    """Each query looks at a few places of every level, which it chooses around its own.

    Multi-scale deformable attention: Zhu et al., 2021, arXiv:2010.04159, section 4.1. At first the heads look in
    directions evenly spread, at 1, 2, ... cells' distance, with equal weights.
    """

    def __init__(self, channels: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.shape = (heads, levels, points)
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        xavier(self)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
        directions_E2 = torch.stack((angles.cos(), angles.sin()), dim=1)
        directions_E2 = directions_E2 / directions_E2.abs().amax(dim=1, keepdim=True)
        steps_P1 = torch.arange(1, points + 1, dtype=torch.float32)[:, None]
        with torch.no_grad():
            self.offsets.bias.copy_((directions_E2[:, None, None] * steps_P1).expand(*self.shape, 2).flatten())

    def forward(
        self,
        queries_NQC: Tensor,
        places_Q2: Tensor,
        values_NSC: Tensor,
        sizes: Sequence[tuple[int, int]],
        inside_S: Tensor,
    ) -> Tensor:
        """(N, Q, C). `places_Q2` are x, y of each query in 0..1 of every level; `sizes` the levels' (h, w), whose cells
        follow each other in `values_NSC`. What bool `inside_S` says to be padding is seen as zeros."""
        values_NSC = self.value(values_NSC).masked_fill(~inside_S[:, None], 0.0)
        offsets_NQELP2 = self.offsets(queries_NQC).unflatten(2, (*self.shape, 2)).float()
        weights_NQELP = self.weights(queries_NQC).unflatten(2, self.shape).float().flatten(3).softmax(3)
        spans_L12 = offsets_NQELP2.new_tensor([(width, height) for height, width in sizes])[:, None]
        places_NQELP2 = places_Q2[:, None, None, None] + offsets_NQELP2 / spans_L12
        values_NSEc = values_NSC.reshape(*values_NSC.shape[:2], self.shape[0], -1).float()
        mixed_NQC = look(values_NSEc, sizes, places_NQELP2, weights_NQELP.unflatten(3, self.shape[1:]))
        return self.output(mixed_NQC.to(queries_NQC.dtype))  # type: ignore[no-any-return]


def look(values_NSEc: Tensor, sizes: Sequence[tuple[int, int]], places_NQELP2: Tensor, weights_NQELP: Tensor) -> Tensor:
    """(N, Q, E * c): the weighted sum of what each head sees at its places, bilinear, zero beyond the map.

    Places are x, y in 0..1 of a level, whose cells have their centres at (0.5, 1.5, ...) / count.
    """
    n, _, heads, _ = values_NSEc.shape
    total: Tensor | int = 0
    start = 0
    for level, (height, width) in enumerate(sizes):
        cells_NSEc = values_NSEc[:, start : start + height * width]
        start += height * width
        maps = cells_NSEc.permute(0, 2, 3, 1).reshape(n * heads, -1, height, width)
        grid = places_NQELP2[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1
        seen = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        weights = weights_NQELP[:, :, :, level].transpose(1, 2).flatten(0, 1)
        total = total + (seen * weights[:, None]).sum(3)
    assert isinstance(total, Tensor)
    return total.reshape(n, heads, *total.shape[1:]).permute(0, 3, 1, 2).flatten(2)


def xavier(module: nn.Module) -> None:
    """Every matrix by Xavier's rule, every bias of a linear layer zero, in place."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


def check_heads(name: str, channels: int, heads: int) -> None:
    """Raises InputError unless `channels` can be shared out to heads and told apart by sine positions."""
    if heads < 1 or channels < 1 or channels % heads or channels % 8:
        raise InputError(
            f"{name}: hidden={channels} with heads={heads}; expected a positive multiple of 8 that heads divides, "
            "such as the paper's 256 with 8"
        )
