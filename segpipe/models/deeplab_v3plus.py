"""DeepLabV3+: atrous spatial pyramid pooling on a dilated classifier, and a decoder that joins its stride-4 map.

Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, Chen, Zhu, Papandreou, Schroff, Adam,
ECCV 2018, arXiv:1802.02611, figure 2.

    images -> backbone -> ASPP (1x1; 3x3 at three rates; image pooling) -> 1x1 -> bilinear to stride 4 -.
                  `------------- stride-4 map -> 1x1, 48 channels ----------------------------------- concat
                                                                -> 3x3 -> 3x3 -> 1x1, K -> bilinear ----'

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import conv_norm_relu, resize, separable_conv
from segpipe.models.spec import DenseOutput, ModelSpec, Published, check_counts
from segpipe.types import Task

# The rates double with the resolution of the map, so that they span the same part of the image.
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
LOW_LEVEL_CHANNELS = 48


class ASPP(nn.Module):
    """Five views of one map, side by side: 1x1, 3x3 atrous separable at each of `rates`, and the mean of the image."""

    def __init__(self, in_channels: int, channels: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.point = conv_norm_relu(in_channels, channels, 1)
        self.atrous = nn.ModuleList(separable_conv(in_channels, channels, dilation=rate) for rate in rates)
        self.image = conv_norm_relu(in_channels, channels, 1)
        self.project = conv_norm_relu(channels * (len(rates) + 2), channels, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        height, width = features_NCHW.shape[-2:]
        image = self.image(F.adaptive_avg_pool2d(features_NCHW, 1)).expand(-1, -1, height, width)
        views = (self.point(features_NCHW), *(atrous(features_NCHW) for atrous in self.atrous), image)
        return self.dropout(self.project(torch.cat(views, dim=1)))  # type: ignore[no-any-return]


class DeepLabV3Plus(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, backbone: Backbone, num_classes: int, *, rates: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = ASPP(backbone.channels[4], channels, rates)
        self.low_level = conv_norm_relu(backbone.channels[1], LOW_LEVEL_CHANNELS, 1)
        self.decoder = nn.Sequential(
            separable_conv(channels + LOW_LEVEL_CHANNELS, channels), separable_conv(channels, channels)
        )
        self.head = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        _, low, _, _, high = self.backbone(images_NCHW)
        context = resize(self.aspp(high), *low.shape[-2:])
        joined = self.decoder(torch.cat((context, self.low_level(low)), dim=1))
        return DenseOutput(logits_NKHW=resize(self.head(joined), height, width))


def build(*, num_classes: int, in_channels: int, backbone: str, output_stride: int, channels: int) -> DeepLabV3Plus:
    """A DeepLabV3+ with random weights.

    Raises InputError on an unknown backbone, an output stride other than 8 and 16, or fewer than one channel.
    """
    if output_stride not in RATES:
        raise InputError(f"output_stride: {output_stride} is not one of 8, 16 (the paper's rates are for these)")
    check_counts(channels=channels)
    body = build_backbone(backbone, in_channels=in_channels, output_stride=output_stride)
    return DeepLabV3Plus(body, num_classes, rates=RATES[output_stride], channels=channels)


def _published(dataset: str, value: float, backbone: str) -> Published:
    return Published(
        dataset=dataset,
        split="test",
        protocol=f"{backbone}, test server, no post-processing; not this file's backbones",
        metric="miou",
        value=value,
        source="paper, abstract",
    )


SPEC = ModelSpec(
    name="deeplab_v3plus",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=(
        "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, "
        "Chen, Zhu, Papandreou, Schroff, Adam, 2018, arXiv:1802.02611"
    ),
    build=build,
    options={"backbone": "resnet50", "output_stride": 16, "channels": 256},
    tiny={"backbone": "resnet18", "channels": 16},
    size_divisor=1,
    differs=(
        "torchvision's ResNets and MobileNetV3 instead of the modified Aligned Xception; their stem is one 7x7 "
        "convolution, and no multi-grid rates are set in the last stage, so that ImageNet weights fit",
        "bilinear resizing samples at cell centres (align_corners=False); the authors' code aligns corners",
        "a single value per channel (image pooling with batch 1) is normalised by the running statistics: a lone value "
        "has no variance, torch refuses it, and zeroing it would cut the gradient",
        "one output stride for training and evaluation; the paper also evaluates at 8 after training at 16",
    ),
    published=(
        _published("PASCAL VOC 2012", 0.890, "Xception, also pretrained on JFT-300M"),
        _published("Cityscapes", 0.821, "Xception, fine annotations and coarse ones"),
    ),
)
