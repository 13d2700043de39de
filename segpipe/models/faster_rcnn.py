"""Faster R-CNN on a Feature Pyramid: a network proposes regions, a second stage names them and moves their boxes.

Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, Ren, He, Girshick, Sun, NIPS 2015,
arXiv:1506.01497, figure 2; with the pyramid of arXiv:1612.03144, as torchvision builds it.

    images -> backbone -> pyramid -.-> P2..P6 -> 3x3 -> objectness, boxes -> non-maximum suppression -> proposals
                                   `-> P2..P5 -> RoIAlign 7x7 <-------------------------------------------'
                                                    `-> box head -> K + 1 classes, K + 1 boxes

Parent of `mask_rcnn`, which adds a branch to the same parts. The parts are in `regions.py`.

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torchvision.ops import MultiScaleRoIAlign

from segpipe.errors import InputError
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import BatchNorm2d
from segpipe.models.parts.pyramid import BottomUpPass, FeaturePyramid, TopMaxPool
from segpipe.models.parts.regions import (
    ANCHORS_DIFFER,
    BOX_SIZE,
    HELD,
    POOLED_LEVELS,
    SIZE_DIVISOR,
    RegionNetwork,
    build_box_head,
    build_roi_heads,
    build_rpn,
    check_min_score,
)
from segpipe.models.parts.released_regions import adapt_two_stage
from segpipe.models.spec import ModelSpec, Published, RegionOutput, check_counts
from segpipe.types import Task

FORMS = ("v1", "v2", "mobile")
# torchvision's form for telephones: two maps, both at stride 32, and every size of anchor on each.
MOBILE_TAPS = {"13": 160, "16": 960}
NUM_ANCHOR_SIZES = 5


def build(
    *,
    num_classes: int,
    in_channels: int,
    backbone: str,
    form: str,
    norm: str,
    channels: int,
    second_pass: bool,
    head_width: int,
    smallest_anchor: int,
    proposals: int,
    samples: int,
    detections: int,
    min_score: float,
) -> RegionNetwork:
    """A Faster R-CNN with random weights (the options are those of SPEC).

    Raises InputError on an unknown backbone, form or norm, on counts below one and on a score outside 0..1.
    """
    if form not in FORMS:
        raise InputError(f"form: {form!r} is not one of {', '.join(FORMS)}")
    counts = {"channels": channels, "head_width": head_width, "smallest_anchor": smallest_anchor}
    check_counts(**counts, proposals=proposals, samples=samples, detections=detections)
    check_min_score(min_score)
    body = _backbone(backbone, form=form, norm=norm, in_channels=in_channels)
    sizes = tuple(smallest_anchor * 2**level for level in range(NUM_ANCHOR_SIZES))
    return RegionNetwork(
        body,
        _pyramid(body, channels, form=form, second_pass=second_pass),
        build_rpn(
            channels,
            anchor_sizes=(sizes,) * (len(MOBILE_TAPS) + 1) if form == "mobile" else [(size,) for size in sizes],
            depth=2 if form == "v2" else 1,
            proposals=proposals,
            min_score=0.05 if form == "mobile" else 0.0,
        ),
        build_roi_heads(
            num_classes,
            box_roi_pool=MultiScaleRoIAlign(POOLED_LEVELS, output_size=BOX_SIZE, sampling_ratio=2),
            box_head=build_box_head(channels, head_width, form=form),
            head_width=head_width,
            samples=samples,
            detections=detections,
            min_score=min_score,
        ),
    )


def _backbone(name: str, *, form: str, norm: str, in_channels: int) -> Backbone:
    if form != "mobile":
        return build_backbone(name, in_channels=in_channels, norm=norm)
    if name != "mobilenet_v3_large":
        raise InputError(f"form: 'mobile' is made of mobilenet_v3_large, found backbone: {name!r}; choose v1 or v2")
    return build_backbone(name, in_channels=in_channels, norm=norm, taps=MOBILE_TAPS)


def _pyramid(body: Backbone, channels: int, *, form: str, second_pass: bool) -> FeaturePyramid:
    used = body.channels if form == "mobile" else body.channels[1:]
    norm: type[nn.Module] | None = BatchNorm2d if form == "v2" else None
    if second_pass and form == "mobile":
        raise InputError(
            "second_pass: the two maps of form 'mobile' have one stride, and no pass goes down between them; set "
            "second_pass: false, or choose form v1 or v2"
        )
    bottom_up = BottomUpPass(channels, len(used)) if second_pass else None
    return FeaturePyramid(used, channels, top=TopMaxPool(), norm=norm, second_pass=bottom_up)


def released(options: Mapping[str, Any]) -> tuple[str, ...]:
    """torchvision's builders whose released tensors these options fit."""
    found = {
        ("resnet50", "v1"): ("fasterrcnn_resnet50_fpn",),
        ("resnet50", "v2"): ("fasterrcnn_resnet50_fpn_v2",),
        ("mobilenet_v3_large", "mobile"): (
            "fasterrcnn_mobilenet_v3_large_fpn",
            "fasterrcnn_mobilenet_v3_large_320_fpn",
        ),
    }
    return found.get((str(options["backbone"]), str(options["form"])), ())


OPTIONS = {
    "backbone": "resnet50",
    "form": "v1",
    "norm": "batch",
    "channels": 256,
    "second_pass": False,
    "head_width": 1024,
    "smallest_anchor": 32,
    "proposals": 1000,
    "samples": 512,
    "detections": 100,
    "min_score": 0.05,
}

DIFFERS = (
    "a Feature Pyramid on a ResNet and RoIAlign instead of one VGG-16 map and RoIPool, both stages trained together",
    "as torchvision: RoIAlign samples half a cell up and to the left of where cells are (aligned=False), which the "
    "released weights were trained with",
    "form v2 is that of arXiv:2111.11429 as torchvision builds it: batch norm in the pyramid and in a box head of four "
    "convolutions and one layer, two convolutions in the proposal network",
    "form mobile is torchvision's: two maps of stride 32 of MobileNetV3, all sizes of anchors on each level",
    "nothing of the backbone is frozen but, with norm: frozen, its batch norm; torchvision also fixes the stem and the "
    "first stage of a pretrained backbone, for which train.backbone_learning_rate_factor is the gentler means",
    ANCHORS_DIFFER,
    "second_pass adds the bottom-up pass of PANet (arXiv:1803.01534) without its pooling of regions from all levels",
)


def _published(box_ap: float, weights: str) -> Published:
    return Published(
        dataset="COCO 2017",
        split="val2017",
        protocol="91 raw category ids, short side 800 (320 where the weights say so), one scale, no flip",
        metric="ap/coco/bbox",
        value=box_ap,
        source=f"torchvision, weights {weights}.COCO_V1",
    )


SPEC = ModelSpec(
    name="faster_rcnn",
    task=Task.DETECTION,
    output=RegionOutput,
    held=HELD,
    paper=(
        "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, "
        "Ren, He, Girshick, Sun, 2015, arXiv:1506.01497"
    ),
    build=build,
    options=OPTIONS,
    tiny={
        "backbone": "resnet18",
        "channels": 16,
        "head_width": 16,
        "smallest_anchor": 8,
        "proposals": 20,
        "samples": 16,
        "detections": 5,
        "min_score": 0.0,
    },
    size_divisor=SIZE_DIVISOR,
    differs=DIFFERS,
    published=(
        _published(0.370, "FasterRCNN_ResNet50_FPN_Weights"),
        _published(0.467, "FasterRCNN_ResNet50_FPN_V2_Weights"),
        _published(0.328, "FasterRCNN_MobileNet_V3_Large_FPN_Weights"),
        _published(0.228, "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights"),
    ),
    adapt=adapt_two_stage,
    released=released,
)
