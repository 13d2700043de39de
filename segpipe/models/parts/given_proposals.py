"""R-CNN and Fast R-CNN: the second stage on proposals that somebody else made (selective search, a tracker, a person).

Not in MODELS, since proposals are an input that no task of a recipe has. The stage itself is that of `regions.py`.

    R-CNN       each proposal -> cut out of the image, warped to S x S -> backbone -> mean -> K + 1 classes, boxes
    Fast R-CNN  image -> backbone -> one map -> each proposal pooled to 7 x 7 -> two layers -> K + 1 classes, boxes

Rich Feature Hierarchies for Accurate Object Detection and Semantic Segmentation, Girshick, Donahue, Darrell, Malik,
CVPR 2014, arXiv:1311.2524; Fast R-CNN, Girshick, ICCV 2015, arXiv:1504.08083. R-CNN here is trained as Fast R-CNN is,
in one step with a softmax and a box regression of the network; the paper trains support vector machines afterwards. The
backbones are ResNets and MobileNetV3; the papers' are AlexNet and VGG.

Letter legend: N batch, K classes, H W image size, C channels, M proposals of an image, R proposals of all images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import roi_align, roi_pool

from segpipe.errors import InputError
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.regions import (
    BOX_SIZE,
    build_roi_heads,
    check_min_score,
    classify,
    pad_images,
    region_truth,
)
from segpipe.models.spec import RegionOutput, RegionTarget, check_counts

POOLINGS = ("align", "pool")
OUTPUT_STRIDE = 16


class RegionPool(nn.Module):
    """Pools boxes from one map. (R, C, size, size) of {"0": features_NChw}, boxes in pixels of the image.

    "pool" (Fast R-CNN) rounds each box and each of its bins to whole cells and takes the largest; bins that end within
    a cell share it. "align" (Mask R-CNN) rounds nothing and takes the mean of 2 x 2 bilinear samples a bin, with cell i
    at i + 0.5.
    """

    def __init__(self, pooling: str, size: int, stride: int) -> None:
        super().__init__()
        self.pooling, self.size, self.stride = pooling, size, stride

    def forward(self, maps: Mapping[str, Tensor], boxes: list[Tensor], sizes: object) -> Tensor:
        features_NChw = maps["0"]
        if self.pooling == "pool":
            # Its boxes end at their last pixel; ours, behind it.
            last = [boxes_M4 - boxes_M4.new_tensor([0.0, 0.0, 1.0, 1.0]) for boxes_M4 in boxes]
            pooled: Tensor = roi_pool(features_NChw, last, self.size, 1 / self.stride)
        else:
            pooled = roi_align(features_NChw, boxes, self.size, 1 / self.stride, sampling_ratio=2, aligned=True)
        return pooled


class CropAndWarp(nn.Module):
    """Cuts boxes out of images, (R, C, size, size) of {"0": images_NCHW}, and warps them to that whatever their form.

    `context` pixels of the result, on each side, are what lies around the box (the paper's p, appendix A); beyond the
    image there is zero, the mean colour. Pixels are averaged where the box shrinks.
    """

    def __init__(self, size: int, context: int) -> None:
        super().__init__()
        self.size, self.context = size, context

    def forward(self, maps: Mapping[str, Tensor], boxes: list[Tensor], sizes: object) -> Tensor:
        share = self.context / (self.size - 2 * self.context)
        wider = []
        for boxes_M4 in boxes:
            margin_M2 = (boxes_M4[:, 2:] - boxes_M4[:, :2]) * share
            wider.append(torch.cat((boxes_M4[:, :2] - margin_M2, boxes_M4[:, 2:] + margin_M2), dim=1))
        warped: Tensor = roi_align(maps["0"], wider, self.size, 1.0, sampling_ratio=-1, aligned=True)
        return warped


class FastRCNN(nn.Module):
    """Maps (images_NCHW, proposals of each image (M, 4), targets or None) to RegionOutput, losses "class" and "box".

    Images are normalised, of any H, W >= 1; proposals are x0, y0, x1, y1 in pixels, and may be none in prediction.
    """

    def __init__(self, backbone: Backbone, roi_heads: RoIHeads) -> None:
        super().__init__()
        self.backbone = backbone
        self.roi_heads = roi_heads

    def forward(
        self, images_NCHW: Tensor, proposals: Sequence[Tensor], targets: Sequence[RegionTarget] | None = None
    ) -> RegionOutput:
        padded = pad_images(images_NCHW)
        maps = {"0": self.backbone(padded.tensors)[-1].float()}
        return _classify_given(self.roi_heads, padded, maps, proposals, targets)


class RCNN(nn.Module):
    """As `FastRCNN`, but every proposal passes through the whole network by itself."""

    def __init__(self, roi_heads: RoIHeads) -> None:
        super().__init__()
        self.roi_heads = roi_heads

    def forward(
        self, images_NCHW: Tensor, proposals: Sequence[Tensor], targets: Sequence[RegionTarget] | None = None
    ) -> RegionOutput:
        images = ImageList(images_NCHW, [tuple(images_NCHW.shape[-2:])] * len(images_NCHW))
        return _classify_given(self.roi_heads, images, {"0": images_NCHW.float()}, proposals, targets)


class LastMapMean(nn.Module):
    """The mean of a backbone's last map: (R, C, H, W) -> (R, C of the last map)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, crops_RCHW: Tensor) -> Tensor:
        means: Tensor = self.backbone(crops_RCHW)[-1].mean(dim=(2, 3))
        return means


def build_fast_rcnn(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "resnet50",
    norm: str = "batch",
    pooling: str = "align",
    head_width: int = 1024,
    samples: int = 128,
    detections: int = 100,
    min_score: float = 0.05,
) -> FastRCNN:
    """A Fast R-CNN with random weights, on the backbone's last map at stride 16.

    Raises InputError on an unknown backbone, norm or pooling, on counts below one and on a score outside 0..1.
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling: {pooling!r} is not one of {', '.join(POOLINGS)}")
    check_counts(head_width=head_width, samples=samples, detections=detections)
    check_min_score(min_score)
    body = build_backbone(backbone, in_channels=in_channels, output_stride=OUTPUT_STRIDE, norm=norm)
    heads = build_roi_heads(
        num_classes,
        box_roi_pool=RegionPool(pooling, BOX_SIZE, OUTPUT_STRIDE),
        box_head=TwoMLPHead(body.channels[-1] * BOX_SIZE**2, head_width),
        head_width=head_width,
        samples=samples,
        detections=detections,
        min_score=min_score,
    )
    return FastRCNN(body, heads)


def build_rcnn(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "resnet50",
    norm: str = "batch",
    size: int = 224,
    context: int = 16,
    samples: int = 128,
    detections: int = 100,
    min_score: float = 0.05,
) -> RCNN:
    """An R-CNN with random weights, on crops of `size`. Raises InputError as `build_fast_rcnn`, and on its context."""
    check_counts(size=size, samples=samples, detections=detections)
    check_min_score(min_score)
    if not 0 <= 2 * context < size:
        raise InputError(f"context: {context} on each side leaves nothing of a crop of {size} pixels")
    body = build_backbone(backbone, in_channels=in_channels, norm=norm)
    heads = build_roi_heads(
        num_classes,
        box_roi_pool=CropAndWarp(size, context),
        box_head=LastMapMean(body),
        head_width=body.channels[-1],
        samples=samples,
        detections=detections,
        min_score=min_score,
    )
    return RCNN(heads)


def _classify_given(
    heads: RoIHeads,
    images: ImageList,
    maps: Mapping[str, Tensor],
    proposals: Sequence[Tensor],
    targets: Sequence[RegionTarget] | None,
) -> RegionOutput:
    """Raises InputError where proposals do not belong to the images, or there is nothing to train on."""
    if len(proposals) != len(images.image_sizes):
        raise InputError(f"proposals: {len(proposals)} for {len(images.image_sizes)} images; expected one tensor each")
    for number, boxes_M4 in enumerate(proposals):
        if boxes_M4.ndim != 2 or boxes_M4.shape[1] != 4:
            raise InputError(f"proposals: image {number} has a tensor of {tuple(boxes_M4.shape)}; expected (M, 4)")
    truth = None if targets is None else region_truth(targets, images, first_class=1)
    if truth is not None and not sum(map(len, proposals)) + sum(len(target["boxes"]) for target in truth):
        raise InputError("proposals: none in any image of the batch, and no objects: there is nothing to train on")
    return classify(heads, images, maps, [boxes_M4.float() for boxes_M4 in proposals], truth)
