"""The Feature Pyramid: maps of several strides brought to one width, each of them with the meaning of the coarsest.

Feature Pyramid Networks for Object Detection, Lin, Dollar, Girshick, He, Hariharan, Belongie, CVPR 2017,
arXiv:1612.03144, figure 3; and the second pass, from the bottom up, of Path Aggregation Network for Instance
Segmentation, Liu, Qi, Qin, Shi, Jia, CVPR 2018, arXiv:1803.01534, figure 1b. Below the architectures of `models/`.

    C5 -> 1x1 -----------------> 3x3 -> P5 --- sum -> 3x3 -> N5
                  | x2, nearest                 | 3x3, stride 2
    C4 -> 1x1 -> sum ----------> 3x3 -> P4 --- sum -> 3x3 -> N4
                  | x2, nearest                 | 3x3, stride 2
    C3 -> 1x1 -> sum ----------> 3x3 -> P3 -------------- = N3

Keys are those of torchvision's FeaturePyramidNetwork, so that released tensors fit.

Letter legend: N batch, C channels, H W map size. Level i has stride 2**i: P2 is at stride 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class TopMaxPool(nn.Module):
    """One more level: every second cell of the coarsest one (P6 of Faster R-CNN, for the largest anchors)."""

    num_levels = 1

    def forward(self, level_NCHW: Tensor, features_NCHW: Tensor) -> tuple[Tensor, ...]:
        return (F.max_pool2d(level_NCHW, kernel_size=1, stride=2),)


class TopConvolutions(nn.Module):
    """Two more levels by strided convolutions (P6 and P7 of RetinaNet).

    P6 is made of the coarsest level, or `from_backbone` of the coarsest map of the backbone, with `in_channels`.
    """

    num_levels = 2

    def __init__(self, in_channels: int, channels: int, *, from_backbone: bool) -> None:
        super().__init__()
        self.from_backbone = from_backbone
        self.p6 = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            _init(conv)

    def forward(self, level_NCHW: Tensor, features_NCHW: Tensor) -> tuple[Tensor, ...]:
        p6_NCHW = self.p6(features_NCHW if self.from_backbone else level_NCHW)
        return p6_NCHW, self.p7(F.relu(p6_NCHW))


class BottomUpPass(nn.Module):
    """PANet's second pass: N2 = P2; N(i+1) = conv(P(i+1) + conv(N(i), stride 2)), every convolution 3x3 with ReLU.

    What is found on fine maps reaches the coarse ones in a few layers, instead of through the whole backbone.
    """

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(_conv3x3_relu(channels, stride=2) for _ in range(num_levels - 1))
        self.fuse_blocks = nn.ModuleList(_conv3x3_relu(channels, stride=1) for _ in range(num_levels - 1))

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels, finest first, each of half the size of the one before, rounded up -> as many of the same sizes."""
        passed = [levels[0]]
        for down, fuse, level_NCHW in zip(self.down_blocks, self.fuse_blocks, levels[1:], strict=True):
            passed.append(fuse(level_NCHW + down(passed[-1])))
        return tuple(passed)


class FeaturePyramid(nn.Module):
    """Maps of a backbone, finest first -> levels of `channels` channels, finest first, then those of `top`.

    `in_channels` are the channels of the maps used, finest first: the last ones of those given. `norm` makes a norm
    layer from its number of channels and replaces the biases.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        top: TopMaxPool | TopConvolutions | None = None,
        norm: Callable[[int], nn.Module] | None = None,
        second_pass: BottomUpPass | None = None,
    ) -> None:
        super().__init__()
        self.num_maps = len(in_channels)
        self.num_levels = len(in_channels) + (top.num_levels if top is not None else 0)
        self.channels = channels
        self.inner_blocks = nn.ModuleList(_conv(inner, channels, 1, norm) for inner in in_channels)
        self.layer_blocks = nn.ModuleList(_conv(channels, channels, 3, norm) for _ in in_channels)
        self.second_pass = second_pass
        self.extra_blocks = top

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = maps[-self.num_maps :]
        inner_NCHW = self.inner_blocks[-1](maps[-1])
        levels = [self.layer_blocks[-1](inner_NCHW)]
        for number in range(self.num_maps - 2, -1, -1):
            lateral_NCHW = self.inner_blocks[number](maps[number])
            inner_NCHW = lateral_NCHW + F.interpolate(inner_NCHW, size=lateral_NCHW.shape[-2:], mode="nearest")
            levels.insert(0, self.layer_blocks[number](inner_NCHW))
        if self.second_pass is not None:
            levels = list(self.second_pass(levels))
        if self.extra_blocks is not None:
            levels.extend(self.extra_blocks(levels[-1], maps[-1]))
        return tuple(levels)


def _conv(in_channels: int, channels: int, kernel_size: int, norm: Callable[[int], nn.Module] | None) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=norm is None)
    _init(conv)
    return nn.Sequential(conv) if norm is None else nn.Sequential(conv, norm(channels))


def _conv3x3_relu(channels: int, *, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)
    _init(conv)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def _init(conv: nn.Conv2d) -> None:
    """The authors' start (Caffe2's XavierFill): the variance of what comes in is kept, with no ReLU reckoned."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
