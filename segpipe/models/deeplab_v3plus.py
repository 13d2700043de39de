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

from segpipe.models.parts.aspp import ASPP, rates_for
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import conv_norm_relu, resize, separable_conv
from segpipe.models.spec import DenseOutput, ModelSpec, Published, check_counts
from segpipe.types import Task

LOW_LEVEL_CHANNELS = 48


class DeepLabV3Plus(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, backbone: Backbone, num_classes: int, *, rates: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = ASPP(backbone.channels[4], channels, rates, separable=True)
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
    rates = rates_for(output_stride)
    check_counts(channels=channels)
    body = build_backbone(backbone, in_channels=in_channels, output_stride=output_stride)
    return DeepLabV3Plus(body, num_classes, rates=rates, channels=channels)


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
