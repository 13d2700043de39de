"""UPerNet: a Feature Pyramid whose coarsest level is seen through pyramid pooling, and whose levels are all fused.

Unified Perceptual Parsing for Scene Understanding, Xiao, Liu, Zhou, Jiang, Sun, ECCV 2018, arXiv:1807.10221, figure 4:
the part of it that finds objects. On any encoder: the paper's is ResNet-50; those of Swin and ConvNeXt use it, too.

    C5 (stride 32) -> pyramid pooling: means of 1, 2, 3, 6 cells a side -> 1x1 -> beside C5 -> 3x3 = P5 ---------.
    C4 -> 1x1 -> sum with P5, bilinear --------> 3x3 = P4 -- bilinear to stride 4 -------------------------------|
    C3 -> 1x1 -> sum with the sum above -------> 3x3 = P3 -- bilinear to stride 4 ------------------------------ concat
    C2 -> 1x1 -> sum with the sum above -------> 3x3 = P2 -------------------------------------------------------|
                                          logits <- bilinear <- 1x1, K <- dropout <- 3x3 <-----------------------'

Every convolution but the last has batch norm and ReLU. Weights that transformers released for Swin and ConvNeXt load
through `adapt`.

Letter legend: N batch, K classes, H W image size, C channels, h w map size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import conv_norm_relu, resize
from segpipe.models.parts.pyramid_pooling import PyramidPooling
from segpipe.models.parts.released_upernet import from_transformers
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published, check_counts
from segpipe.types import Task

AUX_CHANNELS = 256
DROPOUT = 0.1


class Decoder(nn.Module):
    """Maps C2 to C5, finest first -> their fusion at the stride of C2, of `channels` channels."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        *finer, coarsest = in_channels
        self.pooling = PyramidPooling(coarsest, channels)
        self.bottleneck = conv_norm_relu(self.pooling.out_channels, channels, 3)
        self.laterals = nn.ModuleList(conv_norm_relu(each, channels, 1) for each in finer)
        self.levels = nn.ModuleList(conv_norm_relu(channels, channels, 3) for _ in finer)
        self.fusion = conv_norm_relu(len(in_channels) * channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *finer, coarsest_NChw = maps
        above_NChw = self.bottleneck(self.pooling(coarsest_NChw))
        levels = [above_NChw]
        for lateral, level, map_NChw in reversed(list(zip(self.laterals, self.levels, finer, strict=True))):
            above_NChw = lateral(map_NChw) + resize(above_NChw, *map_NChw.shape[-2:])
            levels.append(level(above_NChw))
        levels = [resize(level_NChw, *levels[-1].shape[-2:]) for level_NChw in reversed(levels)]
        return self.fusion(torch.cat(levels, dim=1))  # type: ignore[no-any-return]


class UPerNet(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput; `aux` holds "aux", made of C4, where it is built."""

    def __init__(self, backbone: Backbone, num_classes: int, *, channels: int, aux: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = Decoder(backbone.channels[1:], channels)
        self.classifier = _classifier(channels, num_classes)
        self.aux_classifier = (
            nn.Sequential(
                conv_norm_relu(backbone.channels[3], AUX_CHANNELS, 3), *_classifier(AUX_CHANNELS, num_classes)
            )
            if aux
            else None
        )

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        maps = self.backbone(images_NCHW)[1:]
        aux = {}
        if self.aux_classifier is not None:
            aux["aux"] = self.aux_classifier(maps[2])
        scores_NKhw = self.classifier(self.decoder(maps))
        return DenseOutput(scores_NKhw=scores_NKhw, size=(height, width), aux_scores=aux)


def _classifier(channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(DROPOUT), nn.Conv2d(channels, num_classes, 1))


def build(*, num_classes: int, in_channels: int, backbone: str, channels: int, aux: bool) -> UPerNet:
    """A UPerNet with random weights. Raises InputError on an unknown backbone, or channels below 1."""
    check_counts(channels=channels)
    return UPerNet(build_backbone(backbone, in_channels=in_channels), num_classes, channels=channels, aux=aux)


def _published(metric: str, value: float, backbone: str, source: str) -> Published:
    return Published(
        dataset="ADE20K",
        split="val",
        protocol=f"150 classes, {backbone} pretrained on ImageNet-1k, one scale",
        metric=metric,
        value=value,
        source=source,
    )


_AUTHORS = "authors' code, CSAILVision/semantic-segmentation-pytorch, README, UPerNet50"

SPEC = ModelSpec(
    name="upernet",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper="Unified Perceptual Parsing for Scene Understanding, Xiao, Liu, Zhou, Jiang, Sun, 2018, arXiv:1807.10221",
    build=build,
    options={"backbone": "resnet50", "channels": 512, "aux": False},
    tiny={"backbone": "resnet18", "channels": 8},
    size_divisor=1,
    differs=(
        "objects alone, from the fused map; the paper also finds scenes, parts, materials and textures at other levels",
        "each mean of pyramid pooling is convolved before it is resized, as PSPNet's; the authors' code resizes first, "
        "and their second code pools by precise RoI pooling",
        "ResNet's stem is one 7x7 convolution, that of torchvision's ImageNet weights; the authors' has three of 3x3",
        "dropout of 0.1 before the last layer and, with aux, a head on C4, as in mmsegmentation, where Swin's and "
        "ConvNeXt's authors have their UPerNet from; the paper has neither",
        "512 channels everywhere, as released; the paper says no number",
        "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
    ),
    published=(
        _published("miou", 0.4044, "ResNet-50", _AUTHORS),
        _published("pixel_accuracy", 0.7980, "ResNet-50", _AUTHORS),
        _published("miou", 0.4451, "Swin-T", "authors of Swin, Swin-Transformer-Semantic-Segmentation, README"),
    ),
    counted=(
        Counted(
            parameters=59_941_862,
            num_classes=150,
            options={"backbone": "swin_t", "aux": True},
            source=(
                "transformers 5.23, UperNetForSemanticSegmentation on Swin-T with its auxiliary head: 59,943,398, less "
                "the 1,536 of the classifier's norm, through which no map goes"
            ),
            published="60 M (authors of Swin)",
        ),
        Counted(
            parameters=60_242_636,
            num_classes=150,
            options={"backbone": "convnext_tiny", "aux": True},
            source="transformers 5.23, UperNetForSemanticSegmentation on ConvNeXt-T with its auxiliary head",
        ),
    ),
    adapt=from_transformers,
)
