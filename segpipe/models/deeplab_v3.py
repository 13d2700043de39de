"""DeepLabV3: atrous spatial pyramid pooling, with the mean of the image, on a dilated ResNet with multi-grid rates.

Rethinking Atrous Convolution for Semantic Image Segmentation, Chen, Papandreou, Schroff, Adam, 2017, arXiv:1706.05587,
figure 5 and section 3.3. The cascade of section 3.2 is `deeplab_v3_cascade.py`.

    images -> backbone (output stride 16 or 8, -.-> 1x1 ------------------.
              its last stage at multi-grid     |-> 3x3, rate 6 or 12 -----|
              rates)                           |-> 3x3, rate 12 or 24 ----+- concat -> 1x1 -> [3x3 ->] 1x1, K
                         `- stage before       |-> 3x3, rate 18 or 36 ----|                      -> bilinear
                            -> aux             `-> mean -> 1x1 -> spread -'

In brackets what the form "torchvision" adds, whose released weights load through `adapt`.

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.aspp import ASPP, rates_for
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.evaluation_stride import EvaluationStride, at_strides
from segpipe.models.parts.layers import conv_norm_relu, fcn_head
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts
from segpipe.types import Task

FORMS = ("paper", "torchvision")
TORCHVISION_RATES = (12, 24, 36)
# torchvision's auxiliary head of MobileNetV3 stands on the first map of stride 8.
TORCHVISION_TAPS = {"mobilenet_v3_large": {"4": 40, "16": 960}}
# torchvision's networks, by name: the options that build them.
RELEASED: Mapping[str, Mapping[str, Any]] = {
    f"deeplabv3_{backbone}": {
        "backbone": backbone,
        "output_stride": stride,
        "multi_grid": [],
        "form": "torchvision",
        "aux": True,
    }
    for backbone, stride in (("resnet50", 8), ("resnet101", 8), ("mobilenet_v3_large", 16))
}
RENAMED = {
    r"^classifier\.0\.convs\.0\.": "aspp.point.",
    r"^classifier\.0\.convs\.4\.1\.": "aspp.image.0.",
    r"^classifier\.0\.convs\.4\.2\.": "aspp.image.1.",
    r"^classifier\.0\.project\.": "aspp.project.",
    r"^classifier\.1\.": "joined.0.",
    r"^classifier\.2\.": "joined.1.",
    r"^classifier\.4\.": "head.",
}


class DeepLabV3(EvaluationStride):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput; `aux` holds "aux" when `aux_classifier` is given."""

    def __init__(
        self, backbone: Backbone, aspp: ASPP, joined: nn.Module, head: nn.Module, aux_classifier: nn.Module | None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = aspp
        self.joined = joined
        self.head = head
        self.aux_classifier = aux_classifier

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        *_, finer, last = self.backbone(images_NCHW)
        aux = {}
        if self.aux_classifier is not None:
            aux["aux"] = self.aux_classifier(finer)
        scores_NKhw = self.head(self.joined(self.aspp(last)))
        return DenseOutput(scores_NKhw=scores_NKhw, size=(height, width), aux_scores=aux)


def build(*, output_stride: int, evaluation_stride: int, **options: Any) -> DeepLabV3:
    """A DeepLabV3 with random weights.

    Raises InputError on an unknown backbone or form, an output stride other than 8 and 16 (in evaluation also 0: the
    same one), unit rates that do not fit the last stage, or fewer than one channel.
    """
    return at_strides(partial(_at_stride, **options), output_stride, evaluation_stride)


def _at_stride(
    output_stride: int,
    *,
    num_classes: int,
    in_channels: int,
    backbone: str,
    multi_grid: list[int],
    form: str,
    channels: int,
    aux: bool,
) -> DeepLabV3:
    if form not in FORMS:
        raise InputError(f"form: {form!r} is not one of {', '.join(FORMS)}")
    check_counts(channels=channels)
    rates = rates_for(output_stride)
    as_torchvision = form == "torchvision"
    taps = TORCHVISION_TAPS.get(backbone) if as_torchvision else None
    body = build_backbone(
        backbone,
        in_channels=in_channels,
        output_stride=output_stride,
        taps=taps,
        widened=bool(multi_grid) or taps is not None,
        multi_grid=multi_grid,
    )
    aspp = ASPP(
        body.channels[-1],
        channels,
        TORCHVISION_RATES if as_torchvision else rates,
        separable=False,
        dropout=0.5 if as_torchvision else 0.1,
    )
    return DeepLabV3(
        body,
        aspp,
        conv_norm_relu(channels, channels, 3) if as_torchvision else nn.Identity(),
        nn.Conv2d(channels, num_classes, 1),
        fcn_head(body.channels[-2], num_classes) if aux else None,
    )


def adapt(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's released DeepLabV3 state dicts -> our keys; files of ours and of classifiers stay as they are."""
    if "classifier.0.convs.0.0.weight" not in state_dict:
        return dict(state_dict)
    adapted = {}
    for key, value in state_dict.items():
        # An atrous branch is told by its place behind the 1 x 1.
        name = re.sub(r"^classifier\.0\.convs\.([123])\.", lambda m: f"aspp.atrous.{int(m[1]) - 1}.", key)
        for theirs, ours in RENAMED.items():
            name = re.sub(theirs, ours, name)
        adapted[name] = value
    return adapted


def released(options: Mapping[str, Any]) -> tuple[str, ...]:
    """torchvision's builder of the network that these options mean, whatever its auxiliary head."""
    found = {name: {**each, "aux": options["aux"]} for name, each in RELEASED.items()}
    return tuple(name for name, each in found.items() if all(options[key] == value for key, value in each.items()))


_PYRAMID = "ResNet-101, multi-grid (1, 2, 4), rates (6, 12, 18), image pooling"

SPEC = ModelSpec(
    name="deeplab_v3",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=papers.DEEPLAB_V3,
    build=build,
    options={
        "backbone": "resnet101",
        "output_stride": 16,
        "evaluation_stride": 0,
        "multi_grid": [1, 2, 4],
        "form": "paper",
        "channels": 256,
        "aux": False,
    },
    tiny={"backbone": "resnet18", "channels": 16, "aux": True},
    size_divisor=1,
    differs=(
        *papers.DEEPLAB_V3_DIFFERS,
        "multi_grid: [] keeps the atrous rule, for which ImageNet weights see what they were trained on; with fewer "
        "units in a stage than rates (ResNet-18) the first rates are taken",
        "form torchvision: a 3x3 convolution more behind the pyramid, dropout 0.5, rates (12, 24, 36) at every output "
        "stride; its MobileNetV3 has its auxiliary head on the first map of stride 8",
        "aux is torchvision's: the paper trains without an auxiliary head",
        "a single value per channel (image pooling with batch 1) is normalised by the running statistics",
    ),
    published=(
        papers.voc_miou(
            "val", f"{_PYRAMID}; trained and evaluated at output stride 16, one scale", 0.7721, "paper, section 4.3"
        ),
        papers.voc_miou(
            "val",
            f"{_PYRAMID}; evaluated at output stride 8, six scales 0.5 to 1.75, mirrored as well",
            0.7977,
            "paper, section 4.3",
        ),
        papers.voc_miou(
            "test",
            f"{_PYRAMID}; pretrained on COCO, at last trained at output stride 8 on VOC's own trainval, images of hard "
            "classes twice; no CRF",
            0.857,
            "paper, section 4.3 and table 7",
        ),
        papers.camvid_miou_by_another("ResNet-50 with ImageNet weights, multi-grid (1, 2, 4), output stride 8", 0.5324),
        *papers.torchvision_published(0.664, 0.924, network="ResNet-50, form torchvision"),
        *papers.torchvision_published(0.674, 0.924, network="ResNet-101, form torchvision"),
        *papers.torchvision_published(0.603, 0.912, network="MobileNetV3-Large, form torchvision"),
    ),
    counted=tuple(
        Counted(
            parameters=parameters,
            num_classes=21,
            options=RELEASED[name],
            source=f"{papers.TORCHVISION_RELEASE}, {name}, num_params",
        )
        for name, parameters in (
            ("deeplabv3_resnet50", 42_004_074),
            ("deeplabv3_resnet101", 60_996_202),
            ("deeplabv3_mobilenet_v3_large", 11_029_328),
        )
    ),
    adapt=adapt,
    released=released,
)
