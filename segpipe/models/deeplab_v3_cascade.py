"""DeepLabV3's cascade: copies of the last stage of a ResNet behind it, each at twice the rate of the one before.

Rethinking Atrous Convolution for Semantic Image Segmentation, Chen, Papandreou, Schroff, Adam, 2017, arXiv:1706.05587,
figure 3b and section 3.2; the pyramid of section 3.3 is `deeplab_v3.py`.

    images -> stem, layer1..3 -> layer4, block 5, block 6, block 7 -> 1x1, K -> bilinear
              at output stride 16: rate 2,     4,       8,      16
              at output stride  8: rate 4,     8,      16,      32,  each times the unit rates of multi-grid

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.backbones.dilation import set_multi_grid
from segpipe.models.parts.evaluation_stride import EvaluationStride, at_strides
from segpipe.models.spec import Counted, DenseOutput, ModelSpec
from segpipe.types import Task

LAST_STAGE = 4  # of a ResNet
MOST_BLOCKS = 7
OUTPUT_STRIDES = (8, 16)


class DeepLabV3Cascade(EvaluationStride):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, backbone: Backbone, num_classes: int, *, rates: list[int], multi_grid: list[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.blocks = nn.ModuleList(_copied_stage(backbone, rate, multi_grid) for rate in rates)
        self.head = nn.Conv2d(backbone.channels[4], num_classes, 1)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        features = self.backbone(images_NCHW)[-1]
        for block in self.blocks:
            features = block(features)
        return DenseOutput(scores_NKhw=self.head(features), size=(height, width))


def _copied_stage(backbone: Backbone, rate: int, multi_grid: list[int]) -> nn.Sequential:
    """As many units as the last stage has, all as its second one: what comes in has the channels of what goes out."""
    last = backbone.get_submodule(f"layer{LAST_STAGE}")
    units = [copy.deepcopy(last.get_submodule("1")) for _ in last.children()]
    for module in (m for unit in units for m in unit.modules()):
        if isinstance(module, nn.Conv2d):  # copies of form, not of numbers
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    set_multi_grid(units, multi_grid, rate)
    return nn.Sequential(*units)


def build(*, output_stride: int, evaluation_stride: int, **options: Any) -> DeepLabV3Cascade:
    """The cascade with random weights.

    Raises InputError on a backbone that is no ResNet, an output stride other than 8 and 16 (in evaluation also 0: the
    same one), blocks outside 5..7, and unit rates that do not fit a stage.
    """
    return at_strides(partial(_at_stride, **options), output_stride, evaluation_stride)


def _at_stride(
    output_stride: int, *, num_classes: int, in_channels: int, backbone: str, blocks: int, multi_grid: list[int]
) -> DeepLabV3Cascade:
    if output_stride not in OUTPUT_STRIDES:
        raise InputError(f"output_stride: {output_stride} is not one of 8, 16")
    if not LAST_STAGE < blocks <= MOST_BLOCKS:
        raise InputError(f"blocks: {blocks} is not one of 5, 6, 7: the number of the last block of the cascade")
    if not multi_grid:
        raise InputError("multi_grid: []; the cascade gives each of its units a rate: [1, 1, 1] for all the same")
    body = build_backbone(
        backbone, in_channels=in_channels, output_stride=output_stride, widened=True, multi_grid=multi_grid
    )
    if f"layer{LAST_STAGE}" not in dict(body.named_children()):
        raise InputError(f"backbone: {backbone!r} has no stage of like units to copy; expected a ResNet or ResNeXt")
    rates = [2**place * 32 // output_stride for place in range(1, blocks - LAST_STAGE + 1)]
    return DeepLabV3Cascade(body, num_classes, rates=rates, multi_grid=multi_grid)


_CASCADE = "ResNet-101, multi-grid (1, 2, 1), trained at output stride 16"

SPEC = ModelSpec(
    name="deeplab_v3_cascade",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=papers.DEEPLAB_V3,
    build=build,
    options={
        "backbone": "resnet101",
        "output_stride": 16,
        "evaluation_stride": 0,
        "blocks": 7,
        "multi_grid": [1, 2, 1],
    },
    tiny={"backbone": "resnet18", "blocks": 5},
    size_divisor=1,
    differs=(
        *papers.DEEPLAB_V3_DIFFERS,
        "blocks 5 to 7 start from He's normal; whether the authors gave them the weights of block 4 is not said",
        "with fewer units in a stage than rates (ResNet-18) the first rates are taken",
        "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
    ),
    published=(
        papers.voc_miou("val", f"{_CASCADE}; evaluated at 16, one scale", 0.7666, "paper, tables 3 and 4"),
        papers.voc_miou(
            "val", f"{_CASCADE}; evaluated at 8, six scales 0.5 to 1.75, mirrored as well", 0.7935, "paper, table 4"
        ),
    ),
    counted=(
        Counted(
            parameters=82_706_517,
            num_classes=21,
            source="torchvision's ResNet-101 without its classifier, nine more units as its last and a 1x1, "
            + papers.ADDED_UP,
        ),
    ),
)
