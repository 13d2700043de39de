"""What models return and how an architecture describes itself. Every file in `models/` ends in a `SPEC`.

One type for each kind of output, the same in training and in prediction; a task reads one or more kinds.

Letter legend: N batch, K classes, H W image size in pixels, h w size of a map of stride 4, M objects of an image, Q
queries, P keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from segpipe.errors import InputError
from segpipe.models.parts.layers import resize
from segpipe.types import Task

MASK_STRIDE = 4  # of the masks of a mask-classification model


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseOutput:
    """What every dense (per-pixel) model returns, in train and eval alike.

    `logits_NKHW` are unnormalised scores at the input's height and width. `aux` holds further logits_NKHW, also at
    input size, by the name of their head; it may be empty.

    Kept are the scores as each head makes them, with the `size` (H, W) of the images where they are still to be resized
    to it; logits are made of them, bilinearly, whenever they are asked for. At 150 classes that and what a loss does
    with them is half of a training step, of which a task that reads the scores themselves can save the most.
    """

    scores_NKhw: Tensor
    size: tuple[int, int] | None = None
    aux_scores: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def logits_NKHW(self) -> Tensor:
        return self._at_size(self.scores_NKhw)

    @property
    def aux(self) -> dict[str, Tensor]:
        return {head: self._at_size(scores_NKhw) for head, scores_NKhw in self.aux_scores.items()}

    def _at_size(self, scores_NKhw: Tensor) -> Tensor:
        return scores_NKhw if self.size is None else resize(scores_NKhw, *self.size)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RegionTarget:
    """The objects of one image, from which a region model samples what it learns of; crowds and stuff left out.

    `boxes_M4` float32 x0, y0, x1, y1 in pixels; `class_ids_M` int64 in 0..K-1. `masks_MHW` bool may lie on another
    device than these: they are large, and a model that looks at them brings over what it looks at.
    """

    boxes_M4: Tensor
    class_ids_M: Tensor
    masks_MHW: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Regions:
    """What a region model found in one image, best first: as `RegionTarget`, with `scores_M` in 0..1.

    `mask_probabilities_Mss` (M, s, s) cover each box, for the class found; None from a detector of boxes.
    """

    boxes_M4: Tensor
    class_ids_M: Tensor
    scores_M: Tensor
    mask_probabilities_Mss: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RegionOutput:
    """What a model of proposals or anchors returns: `losses` by term where it was given targets, else `regions`.

    The written exception to "no model owns a loss": such a model chooses the places it is trained on by looking at the
    truth, so that its losses can be made nowhere else. It is called with (images_NCHW, targets): a sequence of one
    `RegionTarget` an image, or None. A panoptic model adds the logits of its semantic branch, in both cases.
    """

    losses: Mapping[str, Tensor] = field(default_factory=dict)
    regions: tuple[Regions, ...] = ()
    logits_NKHW: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CentreOutput:
    """What a bottom-up panoptic model returns, all at input size.

    `logits_NKHW` of the classes; `centres_N1HW` how much of an object's centre each pixel is, about 0..1;
    `offsets_N2HW` (rows, columns) in pixels from each pixel to the centre of its object.
    """

    logits_NKHW: Tensor
    centres_N1HW: Tensor
    offsets_N2HW: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MaskOutput:
    """What a model returns that is told by boxes where the objects are: `masks`, bool (M, H, W) of each image, one a
    box in their order.

    It is called with (images_NCHW, boxes): (M, 4) an image, x0, y0, x1, y1 in pixels, or None for whole images.
    """

    masks: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QueryOutput:
    """What a mask-classification model returns: Q masks (logits, at stride 4) and the class of each, the last of K + 1
    of which is "nothing". `aux` are the same of earlier layers, without any of their own.

    `size` is (H, W) of the images that the model was given. Cell (0, 0) of a mask is of pixels 0..3; the last cells of
    a row or column may reach beyond the image, as h = ceil(H / 4) and w = ceil(W / 4).
    """

    class_logits_NQK: Tensor
    mask_logits_NQhw: Tensor
    size: tuple[int, int]
    aux: tuple[QueryOutput, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeatmapOutput:
    """What a keypoint model returns: `heatmaps_NPhw`, about 1 at each keypoint and 0 elsewhere.

    Each shows one region of an image: `regions_N4` x0, y0, x1, y1 in pixels of the image, from edge to edge, so that
    cell (row 0, column 0) of a heatmap lies between x0 and x0 + (x1 - x0) / w. A top-down model is called with
    (images_NCHW, boxes): (M, 4) an image, or None for whole images; N then counts the boxes of all images, in order. In
    training it may learn of some alone: `chosen_N` are then their places among all boxes, rising.
    """

    heatmaps_NPhw: Tensor
    regions_N4: Tensor
    chosen_N: Tensor | None = None


class Counting(Protocol):
    """What a model that learns by counting is, besides an nn.Module without parameters.

    Its buffers are whole numbers, zero when it is made, to which every image adds: those of several workers add up to
    what one would have counted, in any order.
    """

    def observe(self, images_NCHW: Tensor, labels_NHW: Tensor) -> None:
        """Counts images, as `forward` takes them, with the class ids of their pixels; other labels are passed over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A number that was printed of an architecture, with its protocol: by its authors, by those of its reference code,
    or by others, as `source` then says.
    """

    dataset: str
    split: str
    protocol: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """How many parameters an architecture has according to somebody else: a paper, or a reference implementation.

    With `options` (those that differ from the defaults) and `num_classes`, for images of three channels. `published` is
    the figure as printed there where that is rounded or counts something else, and then says so; "" where it is exact.
    """

    parameters: int
    num_classes: int
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What one forward pass holds at once, in numbers of 4 bytes, by what was seen: a bound within about two times.

    Of each pixel that enters `pixel`, and `score` for every class; `box` of each pixel for every box that is given;
    `image` whatever the size. The defaults are those of networks, where 112 (RetinaNet) to 202 (Panoptic-DeepLab) were
    seen a pixel.
    """

    pixel: float = 208
    score: float = 1
    box: float = 0
    image: float = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """One architecture.

    `task` is what it was made for, `also` are others that it answers with the same `output`, a type of this file.
    `build(num_classes=, in_channels=, **options)` makes the module with random weights. `options` are its keyword
    options with their defaults; anything else is refused before it is called. `tiny` are the options of its smallest
    member: all of its parts, for tests and for a first run on a laptop. `differs` lists every knowing departure from
    the paper. `learns_by` is how it is trained: by descending on a loss; by looking at each image of the training split
    once, as `Counting`; or not at all. `counted` pins its size, and is empty where no other count of it is known.
    `adapt(state_dict)` renames the keys of released weights to ours; `released(options)` names torchvision's builders
    whose weights are meant, where they are not called as the architecture is. `heads` are tensors which, beside those
    that the number of classes decides, are left out of a file that has them in another length; of those of `subsampled`
    every so many-th entry is taken where a file has more. `size_divisor` is what H and W are padded to inside the
    model; callers may pass any size. `requires` are the distributions that its forward pass imports beside those of
    every model; `held` is what it holds in memory.
    """

    name: str
    task: Task
    output: type[Any]
    paper: str
    build: Callable[..., nn.Module]
    options: Mapping[str, Any]
    size_divisor: int
    tiny: Mapping[str, Any]
    also: tuple[Task, ...] = ()
    learns_by: Literal["descent", "counting", "nothing"] = "descent"
    differs: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    counted: tuple[Counted, ...] = ()
    adapt: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    released: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None
    heads: tuple[str, ...] = ()
    subsampled: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    held: Held = Held()


def device_of(model: nn.Module) -> torch.device:
    """Where the numbers of a model lie: parameters, or buffers alone; without any, the CPU."""
    found = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if found is None else found.device


def dropouts(model: nn.Module) -> list[nn.Module]:
    """The modules that drop values or maps in training; those of a share of 0 do not."""
    return [module for module in model.modules() if isinstance(module, _DropoutNd) and module.p > 0]


def check_counts(**counts: object) -> None:
    """Raises InputError, with the option's name, on what is no whole number of at least 1."""
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"{name}: expected a whole number of at least 1, found {count!r}")


def check_shares(**shares: float) -> None:
    """Raises InputError, with the option's name, on what is no share of at least 0 and below 1, as dropout's is."""
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise InputError(f"{name}: expected a share of at least 0 and below 1, found {share!r}")
