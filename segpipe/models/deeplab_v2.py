"""DeepLab v2: scores by 3x3 convolutions of four rates, summed; the image at three scales, the largest score of each.

DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs, Chen,
Papandreou, Kokkinos, Murphy, Yuille, IEEE TPAMI 40(4), 2018, arXiv:1606.00915, figures 4 and 7, section 4.1.2.

    images x 0.5  -.                                      .-> 3x3, rate  6, K -.
    images x 0.75 -+-> backbone (output stride 8), shared +-> 3x3, rate 12, K -+- sum, for each scale -> aux
    images x 1    -'                                      +-> 3x3, rate 18, K -|    |
                                                          `-> 3x3, rate 24, K -'    `- max over scales -> bilinear

With `fc_channels` a rate has three layers, as the paper's VGG-16: 3x3 at the rate -> 1x1 -> 1x1, K, with ReLU and
dropout between. A VGG pools by 3x3 here, as in the authors' net. The dense CRF of the paper's best numbers refines any
model's prediction and is no part of this one.

Letter legend: N batch, K classes, H W image size, h w size of the map of stride 8 of the unscaled image, C channels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, build_backbone, vgg
from segpipe.models.parts.layers import resize
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts
from segpipe.types import Task

RATES = (6, 12, 18, 24)  # "ASPP-L"; ASPP-S has 2, 4, 8, 12
SCALES = (0.5, 0.75, 1.0)


class SummedASPP(nn.Module):
    """The sum of one branch a rate: C -> K channels."""

    def __init__(self, in_channels: int, num_classes: int, rates: Sequence[int], *, fc_channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_branch(in_channels, num_classes, rate, fc_channels) for rate in rates)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        scores: Tensor = functools.reduce(torch.add, [branch(features_NCHW) for branch in self.branches])
        return scores


def _branch(in_channels: int, num_classes: int, rate: int, fc_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, fc_channels or num_classes, 3, padding=rate, dilation=rate)]
    if fc_channels:
        for channels in (fc_channels, num_classes):
            layers += [nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Conv2d(fc_channels, channels, 1)]
    last = layers[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers)


class DeepLabV2(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput.

    With more than one scale and `aux`, "scale_0.5" and its like are what each scale says; the paper has a loss on each.
    """

    def __init__(self, backbone: Backbone, aspp: SummedASPP, *, scales: Sequence[float], aux: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = aspp
        self.scales, self.aux = tuple(scales), aux and len(scales) > 1

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        scores = {}
        for scale in self.scales:
            scaled = resize(images_NCHW, max(1, int(height * scale)), max(1, int(width * scale)))
            scores[f"scale_{scale:g}"] = self.aspp(self.backbone(scaled)[-1])
        # Compared at the size of the largest map, as in the authors' nets; theirs is that of the unscaled image.
        h, w = max([tuple(each.shape[-2:]) for each in scores.values()])  # a list: torch.compile reads no generator
        fused_NKhw = functools.reduce(torch.maximum, [resize(each, h, w) for each in scores.values()])
        return DenseOutput(scores_NKhw=fused_NKhw, size=(height, width), aux_scores=scores if self.aux else {})


def build(
    *,
    num_classes: int,
    in_channels: int,
    backbone: str,
    norm: str,
    rates: list[int],
    fc_channels: int,
    scales: list[float],
    aux: bool,
) -> DeepLabV2:
    """A DeepLab v2 with random weights.

    Raises InputError on an unknown backbone or a norm that it has not, rates or scales that are none or not positive, a
    scale that is there twice, and fewer than no channels.
    """
    check_counts(**{f"rates.{place}": rate for place, rate in enumerate(rates)})
    wrong = [scale for scale in scales if type(scale) not in (int, float) or not 0 < scale <= 2]
    if not scales or wrong or len(set(scales)) < len(scales):
        raise InputError(f"scales: {scales}; expected different numbers above 0, at most 2, as {list(SCALES)}")
    if not rates:
        raise InputError(f"rates: []; expected at least one, as {list(RATES)}")
    if fc_channels:
        check_counts(fc_channels=fc_channels)
    body = build_backbone(backbone, in_channels=in_channels, output_stride=8, norm=norm, widened=True)
    vgg.pool_by_three(body)  # which no other classifier has any of
    aspp = SummedASPP(body.channels[4], num_classes, rates, fc_channels=fc_channels)
    return DeepLabV2(body, aspp, scales=scales, aux=aux)


_THREE_SCALES = "ResNet-101, ASPP-L, three scales, pretrained on COCO"


SPEC = ModelSpec(
    name="deeplab_v2",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=(
        "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected "
        "CRFs, Chen, Papandreou, Kokkinos, Murphy, Yuille, 2016, arXiv:1606.00915"
    ),
    build=build,
    options={
        "backbone": "resnet101",
        "norm": "batch",
        "rates": list(RATES),
        "fc_channels": 0,
        "scales": list(SCALES),
        "aux": True,
    },
    tiny={"backbone": "xception_tiny", "scales": [0.5, 1.0], "fc_channels": 8},
    size_divisor=1,
    differs=(
        "torchvision's ResNet-101, whose strides lie in the 3x3 convolution of a stage's first unit; the authors' "
        "Caffe model has them in the 1x1 before it",
        "a VGG's layers of each rate begin at random, though two of them have the sizes of its fc6 and fc7, subsampled",
        "batch norm learns by default, of one scale after the other, so that evaluation knows a mixture of their "
        "statistics; norm: frozen keeps those of pretrained weights for all, as the authors do",
        "losses are taken at the input's resolution; the authors shrink the labels by 8 instead. Their weight is 1 for "
        "each scale: train.aux_weight 1.0 in a recipe, where 0.4 is the default",
        "the dense CRF of the paper's best numbers is no part of the model",
        "bilinear resizing samples at cell centres (align_corners=False)",
        "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
    ),
    published=(
        papers.voc_miou("val", f"{_THREE_SCALES}; no CRF", 0.7635, "paper, table 4"),
        papers.voc_miou("val", f"{_THREE_SCALES}; with a dense CRF", 0.7769, "paper, table 4"),
        papers.voc_miou("test", f"{_THREE_SCALES}; with a dense CRF", 0.797, "paper, abstract and table 5"),
    ),
    counted=(
        Counted(
            parameters=44_048_532,
            num_classes=21,
            source="torchvision's resnet101 without its classifier, 42,500,160, and four 3x3 of 2048 by 21 with biases",
        ),
    ),
)
