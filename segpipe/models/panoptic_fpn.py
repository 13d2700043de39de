"""Panoptic FPN: Mask R-CNN whose pyramid also says, by a light second branch, the class of every pixel.

Panoptic Feature Pyramid Networks, Kirillov, Girshick, He, Dollar, CVPR 2019, arXiv:1901.02446, figures 1 and 3.

    images -> Mask R-CNN: backbone -> P2..P5 -.-> regions
                                              |   P5 -> [3x3, norm, ReLU, x2] x 3 -.
                                              |   P4 -> [3x3, norm, ReLU, x2] x 2 - sum -> 1x1, K -> x4 -> logits
                                              |   P3 -> [3x3, norm, ReLU, x2] x 1 -|
                                              `-> P2 -> [3x3, norm, ReLU] ---------'

Child of `mask_rcnn`, whose parts it takes over whole, under the same keys. Nobody has released weights in this layout:
what is loaded is a backbone, or a whole model of ours.

Letter legend: N batch, K classes, H W image size, C channels. Level i has stride 2**i: P2 is at stride 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.models import mask_rcnn
from segpipe.models.parts import papers
from segpipe.models.parts.regions import HELD, SIZE_DIVISOR, RegionNetwork, find_regions, pad_images
from segpipe.models.parts.semantic_branch import NUM_LEVELS, SemanticBranch, semantic_branch
from segpipe.models.spec import ModelSpec, Published, RegionOutput, RegionTarget
from segpipe.types import Task


class PanopticFPN(nn.Module):
    """Maps (images_NCHW, normalised, any H, W >= 1; targets or None) to RegionOutput with logits of every pixel.

    `losses` are Mask R-CNN's; that of the logits is the task's to make, who knows the labels.
    """

    def __init__(self, network: RegionNetwork, semantic: SemanticBranch) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.pyramid = network.pyramid
        self.rpn = network.rpn
        self.roi_heads = network.roi_heads
        self.semantic = semantic

    def forward(self, images_NCHW: Tensor, targets: Sequence[RegionTarget] | None = None) -> RegionOutput:
        height, width = images_NCHW.shape[-2:]
        padded = pad_images(images_NCHW)
        levels = self.pyramid(self.backbone(padded.tensors))
        logits_NKhw = self.semantic(levels[:NUM_LEVELS])
        logits_NKHW = F.interpolate(logits_NKhw, scale_factor=4.0, mode="bilinear", align_corners=False)
        found = find_regions(self.rpn, self.roi_heads, padded, levels, targets)
        return dataclasses.replace(found, logits_NKHW=logits_NKHW[..., :height, :width])


def build(*, num_classes: int, channels: int, **options: Any) -> PanopticFPN:
    """A Panoptic FPN with random weights; the semantic branch has half of the pyramid's channels.

    Raises InputError on channels that are no multiple of 8, and as `mask_rcnn.build`.
    """
    semantic = semantic_branch(channels, num_classes)
    return PanopticFPN(mask_rcnn.build(num_classes=num_classes, channels=channels, **options), semantic)


SPEC = ModelSpec(
    name="panoptic_fpn",
    task=Task.PANOPTIC,
    output=RegionOutput,
    held=HELD,
    paper=papers.PANOPTIC_FPN,
    build=build,
    options=mask_rcnn.SPEC.options,
    tiny=mask_rcnn.SPEC.tiny,
    size_divisor=SIZE_DIVISOR,
    differs=(
        *mask_rcnn.SPEC.differs,
        "the semantic branch knows each class of things apart; the paper's knows one class 'other' for all of them, "
        "and an architecture here is not told which classes are things",
        "the semantic branch has half of the pyramid's channels: 128 of 256, as in the paper, and fewer in small forms",
    ),
    published=(
        Published(
            dataset="COCO 2017 panoptic",
            split="val2017",
            protocol="ResNet-50, 12 epochs, short side 800, one scale, no flip",
            metric="pq/all",
            value=0.394,
            source="Detectron2, the authors' later code: MODEL_ZOO.md, panoptic_fpn_R_50_1x",
        ),
    ),
)
