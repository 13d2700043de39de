"""RetinaNet: one stage, every anchor named at once, and a loss that the many easy ones cannot drown.

Focal Loss for Dense Object Detection, Lin, Goyal, Girshick, He, Dollar, ICCV 2017, arXiv:1708.02002, figure 3; as
torchvision builds it.

    images -> backbone -> pyramid, P3..P7 -.-> four 3x3 -> 3x3 -> A x K class logits of each cell
                                           `-> four 3x3 -> 3x3 -> A x 4 box offsets of each cell

There is no background class: an anchor that holds nothing has K low scores.

Letter legend: N batch, K classes, H W image size, C channels, A anchors of a cell, M regions of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, remove_small_boxes

from segpipe.errors import InputError
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.pyramid import BottomUpPass, FeaturePyramid, TopConvolutions
from segpipe.models.parts.regions import (
    ANCHORS_DIFFER,
    ASPECT_RATIOS,
    HELD,
    SIZE_DIVISOR,
    check_min_score,
    pad_images,
    region_truth,
)
from segpipe.models.parts.released_regions import adapt_retinanet
from segpipe.models.spec import ModelSpec, Published, RegionOutput, Regions, RegionTarget, check_counts
from segpipe.types import Task

FORMS = ("v1", "v2")
NUM_LEVELS = 5
NORM_GROUPS = 32
NMS_IOU = 0.5
SMALLEST_SIDE = 1e-2


class RetinaNet(nn.Module):
    """Maps (images_NCHW, normalised, any H, W >= 1; targets or None) to RegionOutput, losses "class" and "box"."""

    def __init__(
        self,
        backbone: Backbone,
        pyramid: FeaturePyramid,
        head: RetinaNetHead,
        anchor_generator: AnchorGenerator,
        *,
        candidates: int,
        detections: int,
        min_score: float,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = pyramid
        self.head = head
        self.anchor_generator = anchor_generator
        self.matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
        self.candidates, self.detections, self.min_score = candidates, detections, min_score

    def forward(self, images_NCHW: Tensor, targets: Sequence[RegionTarget] | None = None) -> RegionOutput:
        padded = pad_images(images_NCHW)
        levels = [level_NChw.float() for level_NChw in self.pyramid(self.backbone(padded.tensors))]
        answers = {name: answer.float() for name, answer in self.head(levels).items()}
        anchors_xA4 = self.anchor_generator(padded, levels)
        if targets is not None:
            truth = region_truth(targets, padded, first_class=0)
            return RegionOutput(losses=self._losses(answers, anchors_xA4, truth))
        anchors_of_cell = self.anchor_generator.num_anchors_per_location()[0]
        per_level = [level_NChw[0, 0].numel() * anchors_of_cell for level_NChw in levels]
        return RegionOutput(
            regions=tuple(
                self._regions(logits_xK, deltas_x4, anchors_x4, per_level, size)
                for logits_xK, deltas_x4, anchors_x4, size in zip(
                    answers["cls_logits"], answers["bbox_regression"], anchors_xA4, padded.image_sizes, strict=True
                )
            )
        )

    def _losses(
        self, answers: dict[str, Tensor], anchors_xA4: list[Tensor], truth: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Focal loss of all anchors but those half on an object, and box loss of those on one."""
        matched = [
            self.matcher(box_iou(target["boxes"], anchors_x4))
            if len(target["boxes"])
            else torch.full((len(anchors_x4),), Matcher.BELOW_LOW_THRESHOLD, device=anchors_x4.device)
            for target, anchors_x4 in zip(truth, anchors_xA4, strict=True)
        ]
        found = self.head.compute_loss(truth, answers, anchors_xA4, matched)
        return {"class": found["classification"], "box": found["bbox_regression"]}

    def _regions(
        self, logits_xK: Tensor, deltas_x4: Tensor, anchors_x4: Tensor, per_level: list[int], size: tuple[int, int]
    ) -> Regions:
        """The best of each level's candidates of one image, those that overlap a better one of their class left out."""
        num_classes = logits_xK.shape[1]
        boxes, scores, labels = [], [], []
        levels = (torch.split(each, per_level) for each in (logits_xK, deltas_x4, anchors_x4))
        for level_logits, level_deltas, level_anchors in zip(*levels, strict=True):
            level_scores = level_logits.sigmoid().flatten()
            above = torch.where(level_scores > self.min_score)[0]
            kept_scores, kept = level_scores[above].topk(min(self.candidates, len(above)))
            above = above[kept]
            anchors = above // num_classes
            coder = self.head.regression_head.box_coder
            boxes.append(clip_boxes_to_image(coder.decode_single(level_deltas[anchors], level_anchors[anchors]), size))
            scores.append(kept_scores)
            labels.append(above % num_classes)
        # Anchors of the padding lie beyond the image: clipped, they are lines.
        whole = remove_small_boxes(torch.cat(boxes), min_size=SMALLEST_SIDE)
        boxes_M4, scores_M, class_ids_M = torch.cat(boxes)[whole], torch.cat(scores)[whole], torch.cat(labels)[whole]
        kept = batched_nms(boxes_M4, scores_M, class_ids_M, NMS_IOU)[: self.detections]
        return Regions(boxes_M4=boxes_M4[kept], class_ids_M=class_ids_M[kept], scores_M=scores_M[kept])


def build(
    *,
    num_classes: int,
    in_channels: int,
    backbone: str,
    form: str,
    norm: str,
    channels: int,
    second_pass: bool,
    smallest_anchor: int,
    candidates: int,
    detections: int,
    min_score: float,
) -> RetinaNet:
    """A RetinaNet with random weights (the options are those of SPEC).

    Raises InputError on an unknown backbone, form or norm, on counts below one, on a score outside 0..1, and in form v2
    on channels that are not a multiple of 64.
    """
    if form not in FORMS:
        raise InputError(f"form: {form!r} is not one of {', '.join(FORMS)}")
    check_counts(channels=channels, smallest_anchor=smallest_anchor, candidates=candidates, detections=detections)
    check_min_score(min_score)
    if form == "v2" and channels % (2 * NORM_GROUPS):
        # A group of a single channel has a single value on a map of 1 x 1, and no variance.
        raise InputError(f"channels: {channels} is not a multiple of {2 * NORM_GROUPS}; form v2's norms have 32 groups")
    body = build_backbone(backbone, in_channels=in_channels, norm=norm)
    used = body.channels[2:]
    from_backbone = form == "v2"
    pyramid = FeaturePyramid(
        used,
        channels,
        top=TopConvolutions(used[-1] if from_backbone else channels, channels, from_backbone=from_backbone),
        second_pass=BottomUpPass(channels, len(used)) if second_pass else None,
    )
    anchors = _anchors(smallest_anchor)
    head = RetinaNetHead(
        channels,
        anchors.num_anchors_per_location()[0],
        num_classes,
        norm_layer=partial(nn.GroupNorm, NORM_GROUPS) if form == "v2" else None,
    )
    if form == "v2":
        head.regression_head._loss_type = "giou"
    return RetinaNet(body, pyramid, head, anchors, candidates=candidates, detections=detections, min_score=min_score)


def _anchors(smallest: int) -> AnchorGenerator:
    """Three sizes a level, a third of an octave apart, the smallest of which doubles from level to level."""
    sides = [smallest * 2**level for level in range(NUM_LEVELS)]
    sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in sides)
    return AnchorGenerator(sizes, (ASPECT_RATIOS,) * NUM_LEVELS)


def released(options: Mapping[str, Any]) -> tuple[str, ...]:
    """torchvision's builders whose released tensors these options fit."""
    found = {
        ("resnet50", "v1"): ("retinanet_resnet50_fpn",),
        ("resnet50", "v2"): ("retinanet_resnet50_fpn_v2",),
    }
    return found.get((str(options["backbone"]), str(options["form"])), ())


def _published(box_ap: float, weights: str) -> Published:
    return Published(
        dataset="COCO 2017",
        split="val2017",
        protocol="91 raw category ids, short side 800, one scale, no flip",
        metric="ap/coco/bbox",
        value=box_ap,
        source=f"torchvision, weights {weights}.COCO_V1",
    )


SPEC = ModelSpec(
    name="retinanet",
    task=Task.DETECTION,
    output=RegionOutput,
    held=HELD,
    paper="Focal Loss for Dense Object Detection, Lin, Goyal, Girshick, He, Dollar, 2017, arXiv:1708.02002",
    build=build,
    options={
        "backbone": "resnet50",
        "form": "v1",
        "norm": "batch",
        "channels": 256,
        "second_pass": False,
        "smallest_anchor": 32,
        "candidates": 1000,
        "detections": 300,
        "min_score": 0.05,
    },
    tiny={
        "backbone": "resnet18",
        "channels": 16,
        "smallest_anchor": 8,
        "candidates": 20,
        "detections": 5,
        "min_score": 0.0,
    },
    size_divisor=SIZE_DIVISOR,
    differs=(
        "as torchvision: L1 box loss instead of smooth L1, the focal loss of an image divided by its own matched "
        "anchors and averaged over images",
        "as torchvision: P6 is made of P5 in form v1; the paper's is made of the backbone's last map, as in form v2",
        "as torchvision: up to 300 regions of an image are kept; COCO's protocol looks at 100",
        "form v2 is that of arXiv:1912.02424 as torchvision builds it: group norm in the heads, GIoU as the box loss",
        "boxes that lie in the padding, and are lines when clipped, are left out; torchvision returns them",
        ANCHORS_DIFFER,
        "second_pass adds the bottom-up pass of PANet (arXiv:1803.01534)",
    ),
    published=(
        _published(0.364, "RetinaNet_ResNet50_FPN_Weights"),
        _published(0.415, "RetinaNet_ResNet50_FPN_V2_Weights"),
    ),
    adapt=adapt_retinanet,
    released=released,
)
