"""HRNet for keypoints, top-down: the box of each object is cut out, resized, and answered with a heatmap a keypoint.

Deep High-Resolution Representation Learning for Human Pose Estimation, Sun, Xiao, Liu, Wang, CVPR 2019,
arXiv:1902.09212.

    images, boxes -> regions (padded, of the input's aspect) -> RoIAlign -> HRNet, finest map -> 1x1, P
    images        -> padded to whole cells -------------------------------> HRNet, finest map -> 1x1, P

Letter legend: N batch, M objects of an image, n regions of the batch, C channels, H W image size, P keypoints, h w size
of a heatmap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from segpipe.errors import InputError
from segpipe.models.parts.hrnet import MODULES, HRNet, adapt_keys
from segpipe.models.spec import HeatmapOutput, ModelSpec, Published
from segpipe.types import Task

STRIDE, DIVISOR = 4, 32
OPTIONS: Mapping[str, Any] = {
    "keypoints": 17,
    "input_size": [256, 192],
    "padding": 1.25,
    "jitter": 0.35,
    # Of one worker's micro-batch; the authors have 32 on a GPU, and most crops show fewer.
    "most_objects": 64,
    "framing": "objects",
    "keypoint_pairs": [],
    "tile": 1024,
    "overlap": 256,
}
# By framing, the options that it makes no use of.
UNUSED = {"objects": ("tile", "overlap"), "image": ("input_size", "padding", "jitter", "most_objects")}
TASKS_OWN = ("keypoint_pairs", "tile", "overlap")
HEAD = ("final_layer.weight", "final_layer.bias")


class HRNetPose(nn.Module):
    """Maps images_NCHW (normalised) and the boxes of each image to HeatmapOutput, a region a box.

    `boxes` holds (M, 4) x0, y0, x1, y1 in pixels for each image; with `framing` "image" at most one an image, which
    says no more than that there is an object. Without `boxes` every image is one region. An input without a region
    shows the whole first image, so that batch norm has something to normalise and every parameter a gradient: the
    output then has one region more than there are boxes. In training at most `most_objects` boxes of an input are
    looked at (`HeatmapOutput.chosen_N`): a crowd of them would take more memory than any batch of images.
    """

    def __init__(
        self,
        backbone: HRNet,
        *,
        keypoints: int,
        size: tuple[int, int],
        padding: float,
        jitter: float,
        framing: str,
        most_objects: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.final_layer = nn.Conv2d(backbone.channels[0], keypoints, 1)
        nn.init.normal_(self.final_layer.weight, std=0.001)
        assert self.final_layer.bias is not None
        nn.init.zeros_(self.final_layer.bias)
        self.size, self.padding, self.jitter, self.framing = size, padding, jitter, framing
        self.most_objects = most_objects

    def forward(self, images_NCHW: Tensor, boxes: Sequence[Tensor] | None = None) -> HeatmapOutput:
        if boxes is None or self.framing == "image" or not sum(map(len, boxes)):
            return self._whole(images_NCHW if boxes is None else _pictured(images_NCHW, boxes))
        boxes = [each.to(images_NCHW.device, torch.float32) for each in boxes]
        boxes_n4 = torch.cat(list(boxes))
        of_n = torch.repeat_interleave(
            torch.arange(len(boxes), device=boxes_n4.device),
            torch.tensor(list(map(len, boxes)), device=boxes_n4.device),
        )
        # Drawn from the generator that dropout draws from, which the loop seeds anew in every step.
        chosen_n = None
        if self.training and len(boxes_n4) > self.most_objects:
            chosen_n = torch.randperm(len(boxes_n4))[: self.most_objects].sort().values.to(boxes_n4.device)
            boxes_n4, of_n = boxes_n4[chosen_n], of_n[chosen_n]
        if self.training and self.jitter:
            factors_n1 = 1 + self.jitter * (2 * torch.rand(len(boxes_n4), 1) - 1)
            boxes_n4 = scaled(boxes_n4, factors_n1.to(boxes_n4.device))
        regions_n4 = regions_of(boxes_n4, aspect=self.size[1] / self.size[0], padding=self.padding)
        places_n5 = torch.cat([of_n[:, None].to(regions_n4.dtype), regions_n4], dim=1)
        # Averages over as many places a pixel as the region is larger; outside of the image there is the mean colour.
        crops_nCHW = roi_align(images_NCHW.float(), places_n5, self.size, aligned=True)
        (maps_nChw,) = self.backbone(crops_nCHW)
        return HeatmapOutput(heatmaps_NPhw=self.final_layer(maps_nChw), regions_N4=regions_n4, chosen_N=chosen_n)

    def _whole(self, images_NCHW: Tensor) -> HeatmapOutput:
        H, W = images_NCHW.shape[-2:]
        padded = F.pad(images_NCHW, (0, -W % DIVISOR, 0, -H % DIVISOR))
        (maps_NChw,) = self.backbone(padded)
        h, w = -(-H // STRIDE), -(-W // STRIDE)
        region_4 = torch.tensor([0.0, 0.0, w * STRIDE, h * STRIDE], device=images_NCHW.device)
        return HeatmapOutput(
            heatmaps_NPhw=self.final_layer(maps_NChw[..., :h, :w]), regions_N4=region_4.expand(len(images_NCHW), 4)
        )


def regions_of(boxes_n4: Tensor, *, aspect: float, padding: float) -> Tensor:
    """(n, 4) rectangles around the same centres that hold the boxes, `aspect` = width / height, `padding` times larger.

    A box of less than a pixel counts as one of a pixel.
    """
    centre_n2 = (boxes_n4[:, :2] + boxes_n4[:, 2:]) / 2
    width_n, height_n = (boxes_n4[:, 2:] - boxes_n4[:, :2]).clamp(min=1).unbind(1)
    height_n = torch.maximum(height_n, width_n / aspect)
    half_n2 = torch.stack([height_n * aspect, height_n], dim=1) * (padding / 2)
    return torch.cat([centre_n2 - half_n2, centre_n2 + half_n2], dim=1)


def scaled(boxes_n4: Tensor, factors_n1: Tensor) -> Tensor:
    """(n, 4) the boxes around the same centres, each side times its factor."""
    centre_n2, half_n2 = (boxes_n4[:, :2] + boxes_n4[:, 2:]) / 2, (boxes_n4[:, 2:] - boxes_n4[:, :2]) / 2
    return torch.cat([centre_n2 - factors_n1 * half_n2, centre_n2 + factors_n1 * half_n2], dim=1)


def _pictured(images_NCHW: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """The images that have an object, or the first one where none has."""
    most = max(map(len, boxes))
    if most > 1:
        raise InputError(
            f"framing image finds one set of keypoints in an image, and one of this batch has {most} objects with "
            "keypoints; use framing objects"
        )
    kept = [place for place, each in enumerate(boxes) if len(each)] or [0]
    return images_NCHW[kept]


def build(
    name: str,
    width: int,
    body: Mapping[str, Any],
    *,
    num_classes: int,
    in_channels: int,
    **options: Any,
) -> HRNetPose:
    """The model with random weights, for `options` as OPTIONS has them; those of TASKS_OWN are only checked here.

    Heatmaps are those of an object's keypoints whatever its class, so that `num_classes` decides nothing. Raises
    InputError on an option that is out of range, or that the framing makes no use of.
    """
    _check(**options)
    own = {key: value for key, value in options.items() if key not in TASKS_OWN}
    height, width_of_input = own.pop("input_size")
    return HRNetPose(
        HRNet(name, width, in_channels=in_channels, finest_only=True, **body), size=(height, width_of_input), **own
    )


def _check(
    *,
    keypoints: int,
    input_size: list[int],
    padding: float,
    jitter: float,
    most_objects: int,
    framing: str,
    keypoint_pairs: list[list[int]],
    tile: int,
    overlap: int,
) -> None:
    sides = [side for side in input_size if type(side) is int and side >= 1 and not side % DIVISOR]
    pairs = [pair for pair in keypoint_pairs if isinstance(pair, list) and len(pair) == 2]
    places = [place for pair in pairs for place in pair if type(place) is int and 0 <= place < keypoints]
    wrong_pairs = not len(set(places)) == len(places) == 2 * len(keypoint_pairs)
    faults = (
        (keypoints < 1, f"keypoints: {keypoints}; expected 1 or more"),
        (
            len(input_size) != 2 or sides != input_size,
            f"input_size: {input_size}; expected [height, width] in multiples of {DIVISOR}",
        ),
        (not 1 <= padding < math.inf, f"padding: {padding}; expected 1 or more"),
        (not 0 <= jitter < 1, f"jitter: {jitter}; expected 0 or more, below 1"),
        (most_objects < 1, f"most_objects: {most_objects}; expected 1 or more"),
        (framing not in UNUSED, f"framing: {framing!r} is not one of {', '.join(UNUSED)}"),
        (
            wrong_pairs,
            f"keypoint_pairs: {keypoint_pairs}; expected pairs of places, each once, from 0 to {keypoints - 1}: the "
            f"option keypoints is {keypoints}",
        ),
        (tile < DIVISOR or tile % DIVISOR > 0, f"tile: {tile}; expected a multiple of {DIVISOR}"),
        (
            overlap % DIVISOR > 0 or not 0 <= 2 * overlap <= tile,
            f"overlap: {overlap}; expected a multiple of {DIVISOR}, at most half of tile ({tile})",
        ),
    )
    for is_wrong, message in faults:
        if is_wrong:
            raise InputError(message)
    given = {"input_size": input_size, "padding": padding, "jitter": jitter, "most_objects": most_objects}
    given |= {"tile": tile, "overlap": overlap}
    for key in UNUSED[framing]:
        if given[key] != OPTIONS[key]:
            raise InputError(f"{key}: {given[key]}; a model of framing {framing} makes no use of it: leave it out")


def adapt(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' pose networks, their classifiers for ImageNet (the body alone) and MMPose's files -> our keys."""
    adapted = adapt_keys(state_dict, wrappers=("module.", "keypoint_head.", "head."), heads=HEAD)
    # A classifier makes all four maps; of its last fusion a pose network has the finest alone.
    last = f"backbone.stage4.{MODULES[-1] - 1}.fuse_layers."
    return {key: value for key, value in adapted.items() if not key.startswith((f"{last}1", f"{last}2", f"{last}3"))}


PAPER = "Deep High-Resolution Representation Learning for Human Pose Estimation, Sun et al., 2019, arXiv:1902.09212"

DIFFERS = (
    "crops are cut by RoIAlign, whose half-pixel-true coordinates go there and back without bias, instead of by "
    "OpenCV's affine warp between pixel centres; what lies outside of the image is the mean colour, not black",
    "rotation and mirroring are those of the augmented image (train.augment), scale jitter is drawn here; no half-body "
    "augmentation",
    "targets peak at the point itself, not at the nearest cell, and are read by DARK's expansion (arXiv:1910.06278), "
    "not by a quarter of a cell; the loss is the mean over labelled keypoints",
    "convolutions of the body start from He's normal instead of a standard deviation of 0.001, since no training on "
    "ImageNet is taken for granted; keypoints of every class share the heatmaps",
    "batches are of images: their objects are learnt from together, at most most_objects of them, drawn anew each time",
)

_TINY: dict[str, Any] = {"stem": 16, "blocks": 1, "modules": (1, 1, 1)}


def _published(size: str, ap: float) -> Published:
    return Published(
        dataset="COCO 2017 keypoints",
        split="val2017",
        protocol=f"input {size}, boxes of a detector of 56.4 AP, flip test, quarter-pixel shift, ImageNet body",
        metric="ap/coco/keypoints",
        value=ap,
        source="arXiv:1902.09212, table 1",
    )


def _spec(
    name: str, width: int, published: tuple[Published, ...] = (), differs: tuple[str, ...] = (), **body: Any
) -> ModelSpec:
    return ModelSpec(
        name=f"hrnet_pose_{name}",
        task=Task.KEYPOINTS,
        output=HeatmapOutput,
        paper=PAPER,
        build=partial(build, f"hrnet_{name}", width, body),
        options=OPTIONS,
        tiny={"input_size": [64, 32]},
        size_divisor=DIVISOR,
        differs=DIFFERS + differs,
        published=published,
        adapt=adapt,
        heads=HEAD,
    )


SPECS = (
    _spec("w32", 32, (_published("256x192", 0.744), _published("384x288", 0.758))),
    _spec("w48", 48, (_published("256x192", 0.751), _published("384x288", 0.763))),
    _spec("tiny", 8, differs=("8 channels instead of 32, one block a branch, one exchange unit a stage",), **_TINY),
)
