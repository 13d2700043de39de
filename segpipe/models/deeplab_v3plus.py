"""DeepLabV3+: atrous spatial pyramid pooling on a dilated classifier, and a decoder that joins its stride-4 map.

Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, Chen, Zhu, Papandreou, Schroff, Adam,
ECCV 2018, arXiv:1802.02611, figure 2. `deeplab_v3plus_xception` is the same on the paper's own classifier, figure 4.

    images -> backbone -> ASPP (1x1; 3x3 at three rates; image pooling) -> 1x1 -> bilinear to stride 4 -.
                  `------------- stride-4 map -> 1x1, 48 channels ----------------------------------- concat
                                                                -> 3x3 -> 3x3 -> 1x1, K -> bilinear ----'

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segpipe.models.parts import papers
from segpipe.models.parts.aspp import ASPP, rates_for
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.evaluation_stride import EvaluationStride, at_strides
from segpipe.models.parts.layers import conv_norm_relu, resize, separable_conv
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published, check_counts
from segpipe.types import Task

LOW_LEVEL_CHANNELS = 48


class DeepLabV3Plus(EvaluationStride):
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
        return DenseOutput(scores_NKhw=self.head(joined), size=(height, width))


def build(*, output_stride: int, evaluation_stride: int, **options: Any) -> DeepLabV3Plus:
    """A DeepLabV3+ with random weights.

    Raises InputError on an unknown backbone, an output stride other than 8 and 16 (in evaluation also 0: the same one),
    unit rates that do not fit the last stage, or fewer than one channel.
    """
    return at_strides(partial(_at_stride, **options), output_stride, evaluation_stride)


def _at_stride(
    output_stride: int, *, num_classes: int, in_channels: int, backbone: str, multi_grid: list[int], channels: int
) -> DeepLabV3Plus:
    rates = rates_for(output_stride)
    check_counts(channels=channels)
    body = build_backbone(
        backbone,
        in_channels=in_channels,
        output_stride=output_stride,
        widened=bool(multi_grid),
        multi_grid=multi_grid,
    )
    return DeepLabV3Plus(body, num_classes, rates=rates, channels=channels)


PAPER = (
    "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, "
    "Chen, Zhu, Papandreou, Schroff, Adam, 2018, arXiv:1802.02611"
)

DIFFERS = (
    "bilinear resizing samples at cell centres (align_corners=False); the authors' code aligns corners",
    "a single value per channel (image pooling with batch 1) is normalised by the running statistics: a lone value "
    "has no variance, torch refuses it, and zeroing it would cut the gradient",
    "evaluation_stride: 0 evaluates at the output stride of training; 8 after training at 16 is the paper's for its "
    "best numbers",
)
_RESNETS = (
    "torchvision's ResNets and MobileNetV3 instead of the modified Aligned Xception of deeplab_v3plus_xception; "
    "their stem is one 7x7 convolution, and multi_grid is empty, so that ImageNet weights fit"
)
_XCEPTION = (
    "Xception as the authors' code has it: ReLU before each separable convolution and none behind the depthwise one "
    "but in the last three; the paper's text has one behind every depthwise convolution",
    "batch norm follows the batches as everywhere here (momentum 0.1); the authors' decay is 0.9997",
)


def _published(dataset: str, split: str, value: float, protocol: str, source: str) -> Published:
    return Published(dataset=dataset, split=split, protocol=protocol, metric="miou", value=value, source=source)


def _spec(
    name: str,
    backbone: str,
    tiny: str,
    differs: tuple[str, ...],
    published: tuple[Published, ...],
    counted: tuple[Counted, ...],
) -> ModelSpec:
    return ModelSpec(
        name=name,
        task=Task.SEMANTIC,
        output=DenseOutput,
        paper=PAPER,
        build=build,
        options={
            "backbone": backbone,
            "output_stride": 16,
            "evaluation_stride": 0,
            "multi_grid": [],
            "channels": 256,
        },
        tiny={"backbone": tiny, "channels": 16},
        size_divisor=1,
        differs=(*differs, *DIFFERS),
        published=published,
        counted=counted,
    )


_TEST = "test server, no post-processing"
# In the paper's table of ResNet-101 pyramid and decoder are not separable, as those here are.
_PLAIN = "convolutions of pyramid and decoder not separable"
SPECS = (
    _spec(
        "deeplab_v3plus",
        "resnet50",
        "resnet18",
        (_RESNETS,),
        (
            _published(
                "PASCAL VOC 2012",
                "val",
                0.7885,
                f"ResNet-101, {_PLAIN}, trained and evaluated at output stride 16, one scale",
                "paper, table 3",
            ),
            _published(
                "PASCAL VOC 2012",
                "val",
                0.8057,
                f"ResNet-101, {_PLAIN}, trained at output stride 16, evaluated at 8, several scales, mirrored as well",
                "paper, table 3",
            ),
        ),
        (
            Counted(
                parameters=26_696_133,
                num_classes=21,
                source="torchvision's ResNet-50 without its classifier, pyramid and decoder of the paper's figure 2 in "
                f"separable convolutions, {papers.ADDED_UP}",
            ),
        ),
    ),
    _spec(
        "deeplab_v3plus_xception",
        "xception65",
        "xception_tiny",
        _XCEPTION,
        (
            _published(
                "PASCAL VOC 2012",
                "val",
                0.7979,
                "trained and evaluated at output stride 16, one scale",
                "paper, table 5",
            ),
            _published(
                "PASCAL VOC 2012",
                "val",
                0.8139,
                "trained at output stride 16, evaluated at 8, several scales, mirrored as well",
                "paper, table 5",
            ),
            _published(
                "PASCAL VOC 2012",
                "test",
                0.890,
                f"also pretrained on JFT-300M and COCO, trained at output stride 8, {_TEST}",
                "paper, table 6",
            ),
            _published("Cityscapes", "val", 0.7879, "fine annotations", "paper, table 7a"),
            _published(
                "Cityscapes",
                "test",
                0.821,
                f"the deeper Xception-71, without image pooling, fine annotations and coarse ones, {_TEST}",
                "paper, section 4.5 and table 7b",
            ),
        ),
        (
            Counted(
                parameters=41_055_413,
                num_classes=21,
                source="bonlime/keras-deeplab-v3-plus, which carries the authors' weights, as counted by "
                "github.com/ZFTurbo/Keras-inference-time-optimizer, README.md",
                published="41,258,213 with the running statistics of norms, which are no parameters here",
            ),
        ),
    ),
)
