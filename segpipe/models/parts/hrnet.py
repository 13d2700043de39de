"""HRNet's body: maps of four resolutions side by side, which never leaves the finest and mixes all of them often.

Deep High-Resolution Representation Learning, Sun et al. 2019 (arXiv:1902.09212, for poses) and Wang et al. 2020
(arXiv:1908.07919, for everything). `hrnet_pose.py` and `hrnet.py` stand on it.

    images -> conv1, conv2 (stride 4) -> layer1 -> stage2 -> stage3 -> stage4 -> maps
                     C   ------------------+----------+--------+--------+---  stride  4
                    2C                     `----------+--------+--------+---  stride  8
                    4C                                `--------+--------+---  stride 16
                    8C                                         `--------+---  stride 32

Names of modules, and so keys of weights, are those of the authors' released files.

Letter legend: N batch, C channels (the width of the finest branch), H W image size, h w size of a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from segpipe.models.parts.layers import BatchNorm2d

STAGES = (2, 3, 4)
MODULES = (1, 4, 3)  # exchange units of stages 2, 3 and 4
# What the authors' classifiers for ImageNet have behind the body, and their networks for pixels beside it.
NO_PART_OF_OURS = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.", "loss.")


class HRNet(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to its maps, finest first, of strides 4, 8, 16, 32.

    `width` channels in the finest branch, twice as many in each coarser one; `channels` says them. `stem` channels
    before that, 64 in the papers; `blocks` residual blocks a branch and exchange unit, 4 there. With `finest_only` the
    last fusion makes the map of stride 4 alone, as the pose networks have it. `enlargement` is how a coarser map comes
    up in a fusion: "nearest" in the authors' pose networks, "bilinear" in their networks for pixels.
    """

    def __init__(
        self,
        name: str,
        width: int,
        *,
        in_channels: int = 3,
        stem: int = 64,
        blocks: int = 4,
        modules: Sequence[int] = MODULES,
        finest_only: bool = False,
        enlargement: str = "nearest",
    ) -> None:
        super().__init__()
        self.name = name
        self.stem = "conv1"
        self.channels = (width,) if finest_only else tuple(width << branch for branch in range(4))
        self.conv1 = nn.Conv2d(in_channels, stem, 3, stride=2, padding=1, bias=False)
        self.bn1 = BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, stride=2, padding=1, bias=False)
        self.bn2 = BatchNorm2d(stem)
        first = Bottleneck(stem, stem, downsample=_conv_norm(stem, 4 * stem, 1), norm_layer=BatchNorm2d)
        others = (Bottleneck(4 * stem, stem, norm_layer=BatchNorm2d) for _ in range(blocks - 1))
        self.layer1 = nn.Sequential(first, *others)
        before: tuple[int, ...] = (4 * stem,)
        for stage, num_modules in zip(STAGES, modules, strict=True):
            channels = tuple(width << branch for branch in range(stage))
            self.add_module(f"transition{stage - 1}", _transition(before, channels))
            single = [finest_only and stage == 4 and at == num_modules - 1 for at in range(num_modules)]
            units = (
                ExchangeUnit(channels, blocks=blocks, finest_only=alone, enlargement=enlargement) for alone in single
            )
            self.add_module(f"stage{stage}", nn.Sequential(*units))
            before = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        stem_NChw = F.relu(self.bn1(self.conv1(images_NCHW)))
        stem_NChw = F.relu(self.bn2(self.conv2(stem_NChw)))
        maps: tuple[Tensor, ...] = (self.layer1(stem_NChw),)
        for stage in STAGES:
            transition = self.get_submodule(f"transition{stage - 1}")
            # A branch that is new grows out of the coarsest one so far.
            maps = tuple(grow(maps[min(branch, len(maps) - 1)]) for branch, grow in enumerate(transition.children()))
            maps = self.get_submodule(f"stage{stage}")(maps)
        return maps


def adapt_keys(
    state_dict: Mapping[str, Tensor], *, wrappers: Sequence[str], heads: tuple[str, ...]
) -> dict[str, Tensor]:
    """A released state dict under our keys: "backbone." and the body's names, which are the authors', and `heads`.

    `wrappers` are the prefixes to take off, in order. What else the authors' classifiers and losses have is left out.
    """
    adapted = {}
    for key, value in state_dict.items():
        name = key
        for wrapper in wrappers:
            name = name.removeprefix(wrapper)
        if name.startswith(heads):
            adapted[name] = value
        elif not name.startswith(NO_PART_OF_OURS):
            adapted[f"backbone.{name.removeprefix('backbone.')}"] = value
    return adapted


class ExchangeUnit(nn.Module):
    """Residual blocks in every branch, then each branch becomes the sum of all of them, brought to its size.

    Coarser maps come up by 1 x 1 and `enlargement`, finer ones go down by 3 x 3 of stride 2, one a halving.
    """

    def __init__(self, channels: Sequence[int], *, blocks: int, finest_only: bool, enlargement: str) -> None:
        super().__init__()
        self.enlargement = enlargement
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(c, c, norm_layer=BatchNorm2d) for _ in range(blocks))) for c in channels
        )
        outputs = 1 if finest_only else len(channels)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_path(channels, source, target) for source in range(len(channels)))
            for target in range(outputs)
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = tuple(branch(features) for branch, features in zip(self.branches, maps, strict=True))
        fused = []
        for target, paths in enumerate(self.fuse_layers):
            size = maps[target].shape[-2:]
            total = torch.zeros_like(maps[target])
            for path, features in zip(paths.children(), maps, strict=True):
                moved = path(features)
                if moved.shape[-2:] != size:
                    moved = F.interpolate(moved, size=size, mode=self.enlargement)
                total = total + moved
            fused.append(F.relu(total))
        return tuple(fused)


def _transition(before: Sequence[int], channels: Sequence[int]) -> nn.ModuleList:
    """What makes the branches of a stage of those of the last one: the first ones stay unless their width changes."""
    paths: list[nn.Module] = []
    for branch, wanted in enumerate(channels):
        if branch >= len(before):
            paths.append(nn.Sequential(_conv_norm(before[-1], wanted, 3, stride=2, relu=True)))
        elif before[branch] != wanted:
            paths.append(_conv_norm(before[branch], wanted, 3, relu=True))
        else:
            paths.append(nn.Identity())
    return nn.ModuleList(paths)


def _path(channels: Sequence[int], source: int, target: int) -> nn.Module:
    """From one branch to another, but for the enlargement: only the last convolution on the way down has no ReLU."""
    if source == target:
        return nn.Identity()
    if source > target:
        return _conv_norm(channels[source], channels[target], 1)
    steps: list[nn.Module] = []
    for step in range(source + 1, target + 1):
        last = step == target
        width = channels[target] if last else channels[source]
        steps.append(_conv_norm(channels[source], width, 3, stride=2, relu=not last))
    return nn.Sequential(*steps)


def _conv_norm(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, relu: bool = False) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    parts: list[nn.Module] = [conv, BatchNorm2d(out_channels)]
    return nn.Sequential(*parts, *([nn.ReLU(inplace=True)] if relu else []))
