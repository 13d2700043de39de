"""U-Net: a contracting classifier and an expanding decoder that joins the encoder's maps stride by stride.

U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger, Fischer, Brox, MICCAI 2015,
arXiv:1505.04597. Here the encoder is a torchvision classifier; the paper's own network is `unet_valid.py`.

    stride   32 --up--> 16 --up--> 8 --up--> 4 --up--> 2 (--up--> 1)      decoder: two 3x3 convolutions at each
    encoder  `           |         |         |         |                  joined by concatenation; nothing at stride 1

Encoder (`backbone`), how maps grow (`upsampling`) and how they join (`skips`) are chosen apart from each other.

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import conv_norm_relu
from segpipe.models.parts.upsampling import UPSAMPLERS, upsample
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts
from segpipe.types import Task

HEAD_STRIDES = (1, 2, 4)
UPSAMPLINGS = tuple(name for name in UPSAMPLERS if name != "max_unpool")  # the encoder hands no switches over
SKIPS = ("concatenation", "addition")


class UpBlock(nn.Module):
    """Doubles the coarse map, joins the encoder's map of that stride, two 3x3 convolutions.

    To be added, the encoder's map is brought to as many channels by 1x1. One without channels changes nothing.
    """

    def __init__(
        self,
        coarse_channels: int,
        skip_channels: int,
        out_channels: int,
        *,
        upsampling: str = "nearest",
        skips: str = "concatenation",
    ) -> None:
        super().__init__()
        self.upsampling = upsample(upsampling, coarse_channels, coarse_channels)
        self.add = nn.Conv2d(skip_channels, coarse_channels, 1) if skips == "addition" and skip_channels else None
        joined_channels = coarse_channels + (skip_channels if self.add is None else 0)
        self.first = conv_norm_relu(joined_channels, out_channels, 3)
        self.second = conv_norm_relu(out_channels, out_channels, 3)

    def forward(self, coarse_NCHW: Tensor, skip_NCHW: Tensor | None, height: int, width: int) -> Tensor:
        up = self.upsampling(coarse_NCHW, height, width)
        if skip_NCHW is not None:
            up = torch.cat((up, skip_NCHW), dim=1) if self.add is None else up + self.add(skip_NCHW)
        return self.second(self.first(up))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits.

    Targets, which models of objects are given in training, change nothing: the task has the loss. The decoder ends at
    `head_stride`; its logits are then resized to the input. At stride s it is `width * s` wide.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, *, head_stride: int, width: int, upsampling: str, skips: str
    ) -> None:
        super().__init__()
        self.backbone = backbone
        strides = [stride for stride in (16, 8, 4, 2, 1) if stride >= head_stride]
        joined = (*backbone.channels[3::-1], 0)
        outs = [width * stride for stride in strides]
        coarse = (backbone.channels[4], *outs)
        self.decoder = nn.ModuleList(
            UpBlock(*channels, upsampling=upsampling, skips=skips)
            for channels in zip(coarse, joined, outs, strict=False)
        )
        self.head = nn.Conv2d(outs[-1], num_classes, 1)

    def forward(self, images_NCHW: Tensor, targets: object = None) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        *finer, features = self.backbone(images_NCHW)
        for block in self.decoder:
            skip = finer.pop() if finer else None
            size = (height, width) if skip is None else skip.shape[-2:]
            features = block(features, skip, *size)
        return DenseOutput(scores_NKhw=self.head(features), size=(height, width))


def build(
    *, num_classes: int, in_channels: int, backbone: str, head_stride: int, width: int, upsampling: str, skips: str
) -> UNet:
    """A U-Net with random weights.

    Raises InputError on an unknown backbone, head stride, upsampling or way to join, or a width below 1.
    """
    if head_stride not in HEAD_STRIDES:
        raise InputError(f"head_stride: {head_stride} is not one of {', '.join(map(str, HEAD_STRIDES))}")
    for option, value, known in (("upsampling", upsampling, UPSAMPLINGS), ("skips", skips, SKIPS)):
        if value not in known:
            raise InputError(f"{option}: {value!r} is not one of {', '.join(known)}")
    check_counts(width=width)
    body = build_backbone(backbone, in_channels=in_channels)
    return UNet(body, num_classes, head_stride=head_stride, width=width, upsampling=upsampling, skips=skips)


SPEC = ModelSpec(
    name="unet",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=papers.UNET,
    build=build,
    options={
        "backbone": "resnet34",
        "head_stride": 1,
        "width": 16,
        "upsampling": "nearest",
        "skips": "concatenation",
    },
    tiny={"backbone": "resnet18", "width": 4},
    size_divisor=1,
    differs=(
        "the encoder is a torchvision classifier down to stride 32 instead of max-pooled pairs of convolutions",
        "padded convolutions: logits at input size instead of valid ones with mirrored tiles",
        "batch norm everywhere; no dropout at the end of the contracting path",
        "skips='addition' is no part of the paper, and neither are other ways of upsampling",
        "up-convolution is repetition followed by the block's 3x3 convolution instead of a transposed 2x2 convolution",
        "no encoder map joins at stride 1, since the classifiers have none; head_stride=2 or 4 leaves the last stages "
        "out and resizes the logits",
        "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
        "no loss weights for borders between touching cells: losses are not a model's business here",
    ),
    published=papers.UNET_PUBLISHED,
    counted=(
        Counted(
            parameters=24_436_241,
            num_classes=1,
            source="segmentation-models-pytorch 0.5.0 (benchmarks/peers.txt), Unet('resnet34'): its head is a 3x3 "
            "convolution, which has 128 more than 1x1",
            published="24,436,369 with the head of 3x3",
        ),
    ),
)
