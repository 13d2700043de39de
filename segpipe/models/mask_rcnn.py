"""Mask R-CNN: Faster R-CNN with a third branch, which draws the mask of each region apart from naming it.

Mask R-CNN, He, Gkioxari, Dollar, Girshick, ICCV 2017, arXiv:1703.06870, figures 1 and 4 (right, with the pyramid).

    images -> Faster R-CNN -.-> K + 1 classes, K + 1 boxes
                            `-> P2..P5, the boxes found -> RoIAlign 14x14 -> four 3x3 -> 2x2 up -> 28x28, K + 1 masks

Child of `faster_rcnn`, whose parts it takes over whole. A region's mask is that of its class alone, so that classes do
not compete for pixels.

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segpipe.errors import InputError
from segpipe.models import faster_rcnn
from segpipe.models.parts.regions import ANCHORS_DIFFER, HELD, SIZE_DIVISOR, RegionNetwork, add_mask_branch
from segpipe.models.parts.released_regions import adapt_two_stage
from segpipe.models.spec import ModelSpec, Published, RegionOutput
from segpipe.types import Task

FORMS = ("v1", "v2")


def build(*, num_classes: int, form: str, channels: int, **options: Any) -> RegionNetwork:
    """A Mask R-CNN with random weights; the mask branch is as wide as the pyramid. Raises as `faster_rcnn.build`."""
    if form not in FORMS:
        raise InputError(f"form: {form!r} is not one of {', '.join(FORMS)}")
    model = faster_rcnn.build(num_classes=num_classes, form=form, channels=channels, **options)
    add_mask_branch(model.roi_heads, channels, num_classes, form=form)
    return model


def released(options: Mapping[str, Any]) -> tuple[str, ...]:
    """torchvision's builders whose released tensors these options fit."""
    found = {
        ("resnet50", "v1"): ("maskrcnn_resnet50_fpn",),
        ("resnet50", "v2"): ("maskrcnn_resnet50_fpn_v2",),
    }
    return found.get((str(options["backbone"]), str(options["form"])), ())


def _published(metric: str, value: float, weights: str) -> Published:
    return Published(
        dataset="COCO 2017",
        split="val2017",
        protocol="91 raw category ids, short side 800, one scale, no flip",
        metric=metric,
        value=value,
        source=f"torchvision, weights {weights}.COCO_V1",
    )


SPEC = ModelSpec(
    name="mask_rcnn",
    task=Task.INSTANCE,
    output=RegionOutput,
    held=HELD,
    paper="Mask R-CNN, He, Gkioxari, Dollar, Girshick, 2017, arXiv:1703.06870",
    build=build,
    options=faster_rcnn.OPTIONS,
    tiny=faster_rcnn.SPEC.tiny,
    size_divisor=SIZE_DIVISOR,
    differs=(
        "as torchvision: the background has a mask of its own, which nothing trains or reads",
        "as torchvision: RoIAlign samples half a cell up and to the left of where cells are (aligned=False), which the "
        "released weights were trained with",
        "form v2 is that of arXiv:2111.11429 as torchvision builds it: as Faster R-CNN's, with batch norm in the mask "
        "branch too",
        "nothing of the backbone is frozen but, with norm: frozen, its batch norm",
        ANCHORS_DIFFER,
        "second_pass adds the bottom-up pass of PANet (arXiv:1803.01534) without its pooling of regions from all "
        "levels and without its fully connected mask branch",
    ),
    published=(
        _published("ap/coco/bbox", 0.379, "MaskRCNN_ResNet50_FPN_Weights"),
        _published("ap/coco/segm", 0.346, "MaskRCNN_ResNet50_FPN_Weights"),
        _published("ap/coco/bbox", 0.474, "MaskRCNN_ResNet50_FPN_V2_Weights"),
        _published("ap/coco/segm", 0.418, "MaskRCNN_ResNet50_FPN_V2_Weights"),
    ),
    adapt=adapt_two_stage,
    released=released,
)
