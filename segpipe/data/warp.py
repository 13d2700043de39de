"""Rotation and elastic deformation of a crop: one displacement field, applied once to all that the crop has.

Sits below `augment.py`. The field is defined over the crop, and what it reaches for beyond is cut out of the source
with it (`margin`), so that a turned crop has corners of padding only where the image ends.

Source of the deformation: Ronneberger et al. 2015 (arXiv 1505.04597), section 3.1: random vectors on a 3 x 3 grid,
normal with 10 pixels standard deviation, interpolated bicubically.

Legend: h w size of the crop, H W of the crop with its margin, in pixels; N objects, P keypoints.
"""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from segpipe.config import AugmentConfig
from segpipe.data.decode import DecodedSample
from segpipe.data.objects import Objects, moved

_GRID = 3
# Masks warped at once: torchvision makes float32 of them, and a crowded crop has hundreds.
_MASKS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Warp:
    """Pixel (x, y) of the crop shows the place (x, y) + `displacement_hw2[y, x]`, in pixels of the crop (x first).

    `margin` (rows, columns) is what the field reaches beyond the crop on either side.
    """

    displacement_hw2: Tensor
    margin: tuple[int, int]


def draw_warp(config: AugmentConfig, draw: random.Random) -> Warp | None:
    """The warp of one crop, None where the config asks for none."""
    if not config.rotation and not config.elastic:
        return None
    h, w = config.crop
    centre_2 = torch.tensor([(w - 1) / 2, (h - 1) / 2])
    place_hw2 = _places(h, w)
    angle = math.radians(draw.uniform(-config.rotation, config.rotation))
    cos, sin = math.cos(angle), math.sin(angle)
    # Counter-clockwise as one sees it, y pointing down: the inverse, which says where a pixel of the crop comes from.
    back_22 = torch.tensor([[cos, -sin], [sin, cos]])
    source_hw2 = (place_hw2 - centre_2) @ back_22.T + centre_2
    if config.elastic:
        vectors = [draw.gauss(0.0, config.elastic) for _ in range(2 * _GRID * _GRID)]
        grid_12gg = torch.tensor(vectors).reshape(1, 2, _GRID, _GRID)
        smooth_12hw = functional.interpolate(grid_12gg, size=(h, w), mode="bicubic", align_corners=True)
        source_hw2 = source_hw2 + smooth_12hw[0].permute(1, 2, 0)
    columns, rows = source_hw2[..., 0], source_hw2[..., 1]
    margin = (
        max(0, math.ceil(max(-float(rows.min()), float(rows.max()) - (h - 1)))),
        max(0, math.ceil(max(-float(columns.min()), float(columns.max()) - (w - 1)))),
    )
    return Warp(displacement_hw2=source_hw2 - place_hw2, margin=margin)


def warp(sample: DecodedSample, field: Warp) -> DecodedSample:
    """A crop with `field.margin` around it -> the warped crop. Image bilinear, ids and masks nearest.

    The margin holds all that is looked up, padding included: nothing has to be filled in.
    """
    (rows, columns), (h, w) = field.margin, field.displacement_hw2.shape[:2]
    H, W = h + 2 * rows, w + 2 * columns
    # What lies in the margin is only looked up: any displacement does there, and is cut off again.
    around_12HW = functional.pad(
        field.displacement_hw2.permute(2, 0, 1)[None], (columns, columns, rows, rows), mode="replicate"
    )
    relative_1HW2 = around_12HW.permute(0, 2, 3, 1) * torch.tensor([2 / W, 2 / H])

    def inner(warped: Tensor) -> Tensor:
        return warped.as_subclass(Tensor)[..., rows : rows + h, columns : columns + w]

    image = v2.elastic(tv_tensors.Image(sample.image_3HW), relative_1HW2)
    labels_hw = sample.labels_HW
    if labels_hw is not None:
        labels_hw = inner(v2.elastic(tv_tensors.Mask(labels_hw), relative_1HW2))

    def moved_masks(masks: Tensor) -> Tensor:
        return inner(v2.elastic(tv_tensors.Mask(masks.view(torch.uint8)), relative_1HW2)).contiguous().view(torch.bool)

    objects, outside_hw = sample.objects, sample.outside_HW
    if objects is not None:
        parts = [moved_masks(part) for part in torch.split(objects.masks_NHW, _MASKS_AT_ONCE)]
        objects = moved(objects, torch.cat(parts), _keypoints(objects, field))
    if outside_hw is not None:
        outside_hw = moved_masks(outside_hw)
    return dataclasses.replace(
        sample, image_3HW=inner(image), labels_HW=labels_hw, objects=objects, outside_HW=outside_hw
    )


def _keypoints(objects: Objects, field: Warp) -> Tensor | None:
    """Where the crop shows each keypoint: the pixel that looks up the nearest place, and one Newton step from there.

    torchvision takes the negative of the displacement instead, which is right for small ones only.
    """
    if objects.keypoints_NP3 is None:
        return None
    rows, columns = field.margin
    source_hw2 = _places(*field.displacement_hw2.shape[:2]) + field.displacement_hw2
    slopes = _slope(source_hw2, 1), _slope(source_hw2, 0)
    keypoints_NP3 = objects.keypoints_NP3.clone()
    for number, at in (keypoints_NP3[..., 2] > 0).nonzero().tolist():
        wanted_2 = keypoints_NP3[number, at, :2] - torch.tensor([columns, rows])
        nearest = int((source_hw2 - wanted_2).square().sum(-1).argmin())
        y, x = divmod(nearest, source_hw2.shape[1])
        jacobian_22 = torch.stack([slope[y, x] for slope in slopes], dim=1)
        step_2 = torch.linalg.pinv(jacobian_22) @ (wanted_2 - source_hw2[y, x])
        # A place that the crop does not show is nearest to a pixel of its edge: a step of one leaves the crop.
        keypoints_NP3[number, at, :2] = torch.tensor([x, y]) + step_2.clamp(-1, 1)
    return keypoints_NP3


def _places(h: int, w: int) -> Tensor:
    """(h, w, 2) float32: x, y of each pixel."""
    y_hw, x_hw = torch.meshgrid(
        torch.arange(h, dtype=torch.float32), torch.arange(w, dtype=torch.float32), indexing="ij"
    )
    return torch.stack([x_hw, y_hw], dim=-1)


def _slope(source_hw2: Tensor, axis: int) -> Tensor:
    """(h, w, 2): change of the place looked up from one pixel to the next along an axis; zero if there is no next."""
    if source_hw2.shape[axis] == 1:
        return torch.zeros_like(source_hw2)
    slope: Tensor = torch.gradient(source_hw2, dim=axis)[0]
    return slope
