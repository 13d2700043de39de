"""The semantic branch of a Feature Pyramid: each level brought up to stride 4, their sum, a class for every cell.

Panoptic Feature Pyramid Networks, Kirillov, Girshick, He, Dollar, CVPR 2019, arXiv:1901.02446, figure 3. Below
`panoptic_fpn.py`, and `fpn.py` that has nothing else.

    P5 -> [3x3, norm, ReLU, x2] x 3 -.
    P4 -> [3x3, norm, ReLU, x2] x 2 - sum -> 1x1, K
    P3 -> [3x3, norm, ReLU, x2] x 1 -|
    P2 -> [3x3, norm, ReLU] ---------'

Letter legend: N batch, K classes, C channels, h w size of the map of stride 4. Level i has stride 2**i.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segpipe.errors import InputError

# P2 to P5; the levels above them are for proposals alone.
NUM_LEVELS = 4
CHANNELS_IN_A_GROUP = 4  # 32 groups of the paper's 128 channels


class SemanticBranch(nn.Module):
    """P2..P5, finest first, each half as large as the one before -> logits at the size of P2 (N, K, h, w)."""

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_upward(in_channels, channels, steps) for steps in range(NUM_LEVELS))
        self.head = nn.Conv2d(channels, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        upward = [branch(level_NCHW) for branch, level_NCHW in zip(self.levels, levels, strict=True)]
        return self.head(torch.stack(upward).sum(0))  # type: ignore[no-any-return]


def semantic_branch(channels: int, num_classes: int) -> SemanticBranch:
    """The branch of a pyramid of `channels`, with half as many of its own: 128 of 256, as in the paper.

    Raises InputError on channels that are no multiple of 8.
    """
    if channels < 8 or channels % 8:
        raise InputError(f"channels: {channels} is not a positive multiple of 8; the default is 256")
    return SemanticBranch(channels, channels // 2, num_classes)


def _upward(in_channels: int, channels: int, steps: int) -> nn.Sequential:
    """From a level `steps` above P2 down to its size: a convolution for each doubling, and one for P2 itself."""
    blocks: list[nn.Module] = []
    for number in range(max(1, steps)):
        blocks += [
            nn.Conv2d(channels if number else in_channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(channels // CHANNELS_IN_A_GROUP, channels),
            nn.ReLU(inplace=True),
        ]
        if steps:
            blocks.append(nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False))
    return nn.Sequential(*blocks)
