"""Panoptic-DeepLab: classes, centres of things, and from each pixel the way to its centre, by two decoders.

Panoptic-DeepLab: A Simple, Strong, and Fast Baseline for Bottom-Up Panoptic Segmentation, Cheng, Collins, Zhu, Liu,
Huang, Adam, Chen, CVPR 2020, arXiv:1911.10194, figure 2. The pyramid (ASPP) is that of DeepLabV3+, in `parts/`.

    images -> backbone -> ASPP -> up, concat stride 8, 5x5 -> up, concat stride 4, 5x5 -> 5x5 -> 1x1, K     classes
                    `---> ASPP -> up, concat stride 8, 5x5 -> up, concat stride 4, 5x5 -> 5x5 -> 1x1, 1     centres
                                                                                      `-> 5x5 -> 1x1, 2     offsets

Everything is resized bilinearly to the input; offsets are learnt in cells of stride 4 and come out in pixels.

Letter legend: N batch, K classes, H W image size, h w size of the map of stride 4, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts.aspp import ASPP, rates_for
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import conv_norm_relu, resize
from segpipe.models.spec import CentreOutput, ModelSpec, Published, RegionTarget
from segpipe.types import Task


def wide_separable_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """5 x 5 depthwise, then 1 x 1 pointwise, each with batch norm and ReLU."""
    return nn.Sequential(
        conv_norm_relu(in_channels, in_channels, 5, groups=in_channels), conv_norm_relu(in_channels, out_channels, 1)
    )


def head(in_channels: int, channels: int, out_channels: int) -> nn.Sequential:
    """5 x 5 separable, then 1 x 1 that begins with next to nothing: 200 times a random heatmap would drown the rest."""
    last = nn.Conv2d(channels, out_channels, 1)
    nn.init.normal_(last.weight, std=0.001)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return nn.Sequential(wide_separable_conv(in_channels, channels), last)


class Decoder(nn.Module):
    """A pyramid of its own on the deepest map, joined on the way up by those of strides 8 and 4.

    `channels` are those of the pyramid and of the result, `low_channels` what the two finer maps are projected to.
    """

    def __init__(
        self, backbone: Backbone, channels: tuple[int, int], low_channels: tuple[int, int], rates: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.aspp = ASPP(backbone.channels[4], channels[0], rates, separable=True)
        self.project = nn.ModuleList(
            conv_norm_relu(backbone.channels[level], low, 1) for level, low in zip((2, 1), low_channels, strict=True)
        )
        self.fuse = nn.ModuleList(
            wide_separable_conv(above + low, channels[1]) for above, low in zip(channels, low_channels, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        _, stride_4, stride_8, _, last = maps
        features = self.aspp(last)
        for finer, project, fuse in zip((stride_8, stride_4), self.project, self.fuse, strict=True):
            features = fuse(torch.cat((resize(features, *finer.shape[-2:]), project(finer)), dim=1))
        return features  # type: ignore[no-any-return]


class PanopticDeepLab(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to CentreOutput; targets, which others sample from, change nothing.

    `channels` are those of the semantic decoder; the instance decoder has half of them, its heads an eighth.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, rates: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        half, eighth, sixteenth = channels // 2, channels // 8, channels // 16
        self.semantic_decoder = Decoder(backbone, (channels, channels), (channels // 4, eighth), rates)
        self.instance_decoder = Decoder(backbone, (channels, half), (eighth, sixteenth), rates)
        self.semantic_head = head(channels, channels, num_classes)
        self.centre_head = head(half, eighth, 1)
        self.offset_head = head(half, eighth, 2)

    def forward(self, images_NCHW: Tensor, targets: Sequence[RegionTarget] | None = None) -> CentreOutput:
        height, width = images_NCHW.shape[-2:]
        maps = self.backbone(images_NCHW)
        instance = self.instance_decoder(maps)
        offsets_N2hw = self.offset_head(instance)
        pixels_in_a_cell = [full / cells for full, cells in zip((height, width), offsets_N2hw.shape[-2:], strict=True)]
        pixels_211 = torch.tensor(pixels_in_a_cell, device=offsets_N2hw.device)[:, None, None]
        # Places are float32 from here on, also where the heads are not: in bfloat16 neighbours of a centre equal it.
        return CentreOutput(
            logits_NKHW=resize(self.semantic_head(self.semantic_decoder(maps)), height, width),
            centres_N1HW=resize(self.centre_head(instance).float(), height, width),
            offsets_N2HW=resize(offsets_N2hw.float() * pixels_211, height, width),
        )


def build(*, num_classes: int, in_channels: int, backbone: str, output_stride: int, channels: int) -> PanopticDeepLab:
    """A Panoptic-DeepLab with random weights.

    Raises InputError on an unknown backbone, an output stride other than 8 and 16, or channels that do not divide.
    """
    rates = rates_for(output_stride)
    if channels < 16 or channels % 16:
        raise InputError(f"channels: {channels} is not a positive multiple of 16; the default is 256")
    body = build_backbone(backbone, in_channels=in_channels, output_stride=output_stride)
    return PanopticDeepLab(body, num_classes, rates=rates, channels=channels)


SPEC = ModelSpec(
    name="panoptic_deeplab",
    task=Task.PANOPTIC,
    output=CentreOutput,
    paper=(
        "Panoptic-DeepLab: A Simple, Strong, and Fast Baseline for Bottom-Up Panoptic Segmentation, "
        "Cheng, Collins, Zhu, Liu, Huang, Adam, Chen, 2020, arXiv:1911.10194"
    ),
    build=build,
    options={"backbone": "resnet50", "output_stride": 16, "channels": 256},
    tiny={"backbone": "resnet18", "channels": 16},
    size_divisor=1,
    differs=(
        "torchvision's ResNets and MobileNetV3: one 7x7 convolution as stem, no multi-grid rates, so that ImageNet "
        "weights fit; the authors' best numbers are of Xception-71",
        "atrous separable convolutions in the pyramid, those of DeepLabV3+; the authors' are not separable",
        "plain cross entropy over the labelled pixels; the authors train on the hardest 15 % of them and weigh by 3 "
        "those of objects below 64 x 64 pixels",
        "Gaussians of 8 pixels shrink in crops of fewer than 512 pixels: a 64th of the longer side",
        "bilinear resizing samples at cell centres (align_corners=False); the authors' code aligns corners",
        "a single value per channel (image pooling with batch 1) is normalised by the running statistics",
    ),
    published=(
        Published(
            dataset="Cityscapes",
            split="val",
            protocol="ResNet-50 of output stride 32, which this file does not build; one scale, no mirror image",
            metric="pq/all",
            value=0.598,
            source="github.com/bowenc0221/panoptic-deeplab, MODEL_ZOO.md, R50-os32",
        ),
    ),
)
