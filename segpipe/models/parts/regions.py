"""What every two-stage region model is composed of: proposals, and the heads that look at them.

Parent of `faster_rcnn`, `mask_rcnn`, `given_proposals` and of a panoptic model with a region branch.

    images -> pad_images -> backbone -> pyramid -> levels -> propose(rpn) -> proposals
                                                     `-> classify(heads, proposals) -> RegionOutput

torchvision's RegionProposalNetwork and RoIHeads hold the modules, the sampling and the losses; their `forward` is not
called, since it takes the train flag for the presence of targets, makes anchors in the precision of the maps (bfloat16
has 8 bits: 259 is 260) and infers a level's stride from the unpadded image (24 / 65 is nearer to 1/2 than to 1/4).

Outside, a class id is 0..K-1; inside the heads, 0 is the background and 1..K are the classes.

Letter legend: N batch, K classes, H W image size, C channels, M objects or regions of an image, s mask size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    maskrcnn_inference,
    maskrcnn_loss,
)
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign

from segpipe.errors import InputError
from segpipe.models.parts.backbones import Backbone
from segpipe.models.parts.layers import BatchNorm2d
from segpipe.models.parts.pyramid import FeaturePyramid
from segpipe.models.spec import Held, RegionOutput, Regions, RegionTarget

SIZE_DIVISOR = 32
ASPECT_RATIOS = (0.5, 1.0, 2.0)
BOX_SIZE, MASK_SIZE = 7, 14
# What the architectures whose levels reach beyond the backbone's differ in: P6, and P7 of RetinaNet.
ANCHORS_DIFFER = (
    "as torchvision: a level's anchors lie as far apart as the padded image is long, divided by the level's length and "
    "rounded down; the paper's lie 2**i pixels apart. Sides are padded to multiples of 32 alone: in an image of 96 the "
    "anchors of P6 are 48 pixels apart instead of 64"
)
# 76 million numbers were seen for the regions of an image, whatever its size (Mask R-CNN with all that it may find).
HELD = Held(image=80_000_000)
# Names of the levels that regions are pooled from, as torchvision counts them.
POOLED_LEVELS = ("0", "1", "2", "3")


class RegionNetwork(nn.Module):
    """Maps (images_NCHW, normalised, any H, W >= 1; targets or None) to RegionOutput (see `spec.py`).

    `losses` by term: "rpn_objectness", "rpn_box", "class", "box", and "mask" where the heads have masks.
    """

    def __init__(
        self, backbone: Backbone, pyramid: FeaturePyramid, rpn: RegionProposalNetwork, roi_heads: RoIHeads
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = pyramid
        self.rpn = rpn
        self.roi_heads = roi_heads

    def forward(self, images_NCHW: Tensor, targets: Sequence[RegionTarget] | None = None) -> RegionOutput:
        padded = pad_images(images_NCHW)
        levels = self.pyramid(self.backbone(padded.tensors))
        return find_regions(self.rpn, self.roi_heads, padded, levels, targets)


def pad_images(images_NCHW: Tensor) -> ImageList:
    """Zeros below and to the right, up to multiples of SIZE_DIVISOR; `image_sizes` keep (H, W) of each image."""
    height, width = images_NCHW.shape[-2:]
    padding = (0, -width % SIZE_DIVISOR, 0, -height % SIZE_DIVISOR)
    return ImageList(F.pad(images_NCHW, padding), [(height, width)] * len(images_NCHW))


def find_regions(
    rpn: RegionProposalNetwork,
    heads: RoIHeads,
    padded: ImageList,
    levels: Sequence[Tensor],
    targets: Sequence[RegionTarget] | None,
) -> RegionOutput:
    """Both stages on the levels of a pyramid, finest first, of which the last is for proposals alone.

    Raises InputError on targets that do not belong to the images.
    """
    levels = [level_NCHW.float() for level_NCHW in levels]
    truth = None if targets is None else region_truth(targets, padded, first_class=1)
    proposals, losses = propose(rpn, padded, levels, truth)
    maps = dict(zip(POOLED_LEVELS, levels[:-1], strict=False))
    output = classify(heads, padded, maps, proposals, truth)
    return RegionOutput(losses={**losses, **output.losses}, regions=output.regions)


def propose(
    rpn: RegionProposalNetwork,
    padded: ImageList,
    levels: Sequence[Tensor],
    truth: Sequence[Mapping[str, Tensor]] | None,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Boxes (M, 4) of each image that may hold an object, best first, and with truth the losses of saying so."""
    objectness, deltas = rpn.head(levels)
    anchors = rpn.anchor_generator(padded, levels)
    anchors_per_level = [scores_NAhw[0].numel() for scores_NAhw in objectness]
    logits_x1, deltas_x4 = concat_box_prediction_layers(
        [scores_NAhw.float() for scores_NAhw in objectness], [each.float() for each in deltas]
    )
    # Proposals are where the second stage looks; how good they are is learned by the first stage's own loss.
    boxes_NA4 = rpn.box_coder.decode(deltas_x4.detach(), anchors).view(len(anchors), -1, 4)
    proposals, _ = rpn.filter_proposals(boxes_NA4, logits_x1, padded.image_sizes, anchors_per_level)
    if truth is None:
        return proposals, {}
    labels, matched = rpn.assign_targets_to_anchors(anchors, truth)
    wanted = rpn.box_coder.encode(matched, anchors)
    objectness_loss, box_loss = rpn.compute_loss(logits_x1, deltas_x4, labels, wanted)
    return proposals, {"rpn_objectness": objectness_loss, "rpn_box": box_loss}


def classify(
    heads: RoIHeads,
    padded: ImageList,
    maps: Mapping[str, Tensor],
    proposals: Sequence[Tensor],
    truth: Sequence[Mapping[str, Tensor]] | None,
) -> RegionOutput:
    """What the proposals of each image hold: its class, its box, its mask where the heads have masks."""
    proposals = list(proposals)
    padded_sizes = [tuple(padded.tensors.shape[-2:])] * len(proposals)
    if truth is not None:
        proposals, matched, labels, wanted = heads.select_training_samples(proposals, truth)
    pooled = heads.box_roi_pool(maps, proposals, padded_sizes)
    class_logits, deltas = (each.float() for each in heads.box_predictor(heads.box_head(pooled)))
    if truth is not None:
        if len(class_logits):
            class_loss, box_loss = fastrcnn_loss(class_logits, deltas, labels, wanted)
        else:  # no proposal and no object in the whole batch: a mean over none of them is no number
            class_loss, box_loss = class_logits.sum(), deltas.sum()
        losses = {"class": class_loss, "box": box_loss}
        if heads.has_mask():
            losses["mask"] = _mask_loss(heads, padded_sizes, maps, proposals, labels, matched, truth)
        return RegionOutput(losses=losses)
    boxes, scores, labels = heads.postprocess_detections(class_logits, deltas, proposals, padded.image_sizes)
    masks: Sequence[Tensor | None] = [None] * len(boxes)
    if heads.has_mask():
        masks = [each[:, 0] for each in maskrcnn_inference(_mask_logits(heads, padded_sizes, maps, boxes), labels)]
    found = zip(boxes, scores, labels, masks, strict=True)
    return RegionOutput(
        regions=tuple(
            Regions(boxes_M4=b, class_ids_M=label - 1, scores_M=s, mask_probabilities_Mss=m) for b, s, label, m in found
        )
    )


def region_truth(targets: Sequence[RegionTarget], padded: ImageList, *, first_class: int) -> list[dict[str, Tensor]]:
    """Targets as torchvision's heads take them, classes counted from `first_class`.

    Raises InputError where there is not one target an image, or a box has no area: its logarithm would be lost only in
    the loss.
    """
    if len(targets) != len(padded.image_sizes):
        raise InputError(f"targets: {len(targets)} for {len(padded.image_sizes)} images; expected one an image")
    # Of all images at once: each question asked of a GPU waits for all that it has still to do.
    boxes_x4 = torch.cat([target.boxes_M4 for target in targets]) if targets else torch.zeros(0, 4)
    flat_x = (boxes_x4[:, 2:] <= boxes_x4[:, :2]).any(1)
    if bool(flat_x.any()):
        images = [number for number, target in enumerate(targets) for _ in range(len(target.boxes_M4))]
        place = int(flat_x.nonzero()[0])
        box = [round(side, 2) for side in boxes_x4[place].tolist()]
        raise InputError(f"targets: image {images[place]} has a box without area, {box}; leave such objects out")
    return [
        {
            "boxes": target.boxes_M4.float(),
            "labels": target.class_ids_M + first_class,
            "masks": target.masks_MHW,
        }
        for target in targets
    ]


def build_rpn(
    channels: int,
    *,
    anchor_sizes: Sequence[tuple[int, ...]],
    depth: int,
    proposals: int,
    min_score: float = 0.0,
) -> RegionProposalNetwork:
    """A region proposal network with random weights, for one tuple of anchor sides (in pixels) a level.

    `depth` convolutions of its head; `proposals` kept of a level before, and of an image after non-maximum suppression,
    in evaluation, and twice as many in training.
    """
    anchors = AnchorGenerator(tuple(anchor_sizes), (ASPECT_RATIOS,) * len(anchor_sizes))
    kept = {"training": 2 * proposals, "testing": proposals}
    return RegionProposalNetwork(
        anchors,
        RPNHead(channels, anchors.num_anchors_per_location()[0], conv_depth=depth),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=kept,
        post_nms_top_n=kept,
        nms_thresh=0.7,
        score_thresh=min_score,
    )


def build_roi_heads(
    num_classes: int,
    *,
    box_roi_pool: nn.Module,
    box_head: nn.Module,
    head_width: int,
    samples: int,
    detections: int,
    min_score: float,
) -> RoIHeads:
    """Box heads with random weights, for K classes and the background; masks are added by `add_mask_branch`.

    `samples` proposals of an image are trained on, a quarter of them objects; at most `detections` of an image are
    kept, each with a score above `min_score`. Raises InputError on samples of which a quarter is none.
    """
    if samples < 4:
        raise InputError(f"samples: {samples}; a quarter of them are objects: expected 4 or more")
    return RoIHeads(
        box_roi_pool,
        box_head,
        FastRCNNPredictor(head_width, num_classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=samples,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=min_score,
        nms_thresh=0.5,
        detections_per_img=detections,
    )


def build_box_head(channels: int, head_width: int, *, form: str) -> nn.Module:
    """Four convolutions with norm and a fully connected layer ("v2"), or two of the latter alone (other forms)."""
    if form == "v2":
        size = (channels, BOX_SIZE, BOX_SIZE)
        head: nn.Module = FastRCNNConvFCHead(size, [channels] * 4, [head_width], norm_layer=BatchNorm2d)
    else:
        head = TwoMLPHead(channels * BOX_SIZE**2, head_width)
    return head


def add_mask_branch(heads: RoIHeads, channels: int, num_classes: int, *, form: str) -> None:
    """Four convolutions on 14x14 cells of each region, then one mask of 28x28 a class; "v2" has norms."""
    norm = BatchNorm2d if form == "v2" else None
    heads.mask_roi_pool = MultiScaleRoIAlign(POOLED_LEVELS, output_size=MASK_SIZE, sampling_ratio=2)
    heads.mask_head = MaskRCNNHeads(channels, [channels] * 4, dilation=1, norm_layer=norm)
    heads.mask_predictor = MaskRCNNPredictor(channels, channels, num_classes + 1)


def check_min_score(min_score: float) -> None:
    """Raises InputError on a share outside 0..1."""
    if not 0.0 <= min_score < 1.0:
        raise InputError(f"min_score: {min_score} is not in 0..1 (1 excluded, above which nothing would be found)")


def _mask_logits(
    heads: RoIHeads, padded_sizes: list[tuple[int, ...]], maps: Mapping[str, Tensor], boxes: list[Tensor]
) -> Tensor:
    """(all M, K + 1, s, s) of the boxes of all images."""
    pooled = heads.mask_roi_pool(maps, boxes, padded_sizes)
    logits: Tensor = heads.mask_predictor(heads.mask_head(pooled))
    return logits.float()


def _mask_loss(
    heads: RoIHeads,
    padded_sizes: list[tuple[int, ...]],
    maps: Mapping[str, Tensor],
    proposals: Sequence[Tensor],
    labels: Sequence[Tensor],
    matched: Sequence[Tensor],
    truth: Sequence[Mapping[str, Tensor]],
) -> Tensor:
    """Cross entropy of the mask of the true class, over the sampled proposals that hold an object."""
    held_x = (torch.cat(list(labels)) > 0).nonzero()[:, 0]
    counts = torch.stack([(each > 0).sum() for each in labels]).tolist()
    boxes, objects = (list(torch.split(torch.cat(list(each))[held_x], counts)) for each in (proposals, matched))
    logits = _mask_logits(heads, padded_sizes, maps, boxes)
    masks = [target["masks"].to(logits.device, non_blocking=True) for target in truth]
    loss: Tensor = maskrcnn_loss(logits, boxes, masks, [target["labels"] for target in truth], objects)
    return loss
