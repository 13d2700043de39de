"""Which part of the source image becomes which part of the crop, and cutting it out of all that a sample has.

Sits below `augment.py`. Crop-first: only the pixels of the window are resized, only its objects decoded.

Legend: H W size of the source, h w of the crop in pixels; N objects, P keypoints.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segpipe.data.objects import Objects, Region, moved
from segpipe.data.resize import resize_image, resize_labels
from segpipe.errors import InputError

# Outside of the image there is nothing: mid grey, near zero once normalised, and the ignore label.
PADDING = 124


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Source rectangle `region`, resized to `height` x `width` pixels at row `y`, column `x` of a crop of `size`.

    The crop is mirrored (left to right) and turned upside down last, padding and all.
    """

    region: Region
    y: int
    x: int
    height: int
    width: int
    size: tuple[int, int]
    mirrored: bool = False
    upside_down: bool = False


def draw_window(source: tuple[int, int], crop: tuple[int, int], scale: float, draw: random.Random) -> Window:
    """A window at `scale`: anywhere in a larger source; a smaller one lies whole, anywhere in the crop."""
    spans = [_span(length, out, scale, draw) for length, out in zip(source, crop, strict=True)]
    (top, bottom, y, height), (left, right, x, width) = spans
    return Window(region=Region(top, bottom, left, right), y=y, x=x, height=height, width=width, size=crop)


def widened(window: Window, source: tuple[int, int], margin: tuple[int, int]) -> Window:
    """The same window with `margin` more pixels of the crop on each side, shown as far as the source has them."""
    region = window.region
    rows = _more(region.top, region.bottom, window.y, window.height, source[0], window.size[0], margin[0])
    columns = _more(region.left, region.right, window.x, window.width, source[1], window.size[1], margin[1])
    (top, bottom, y, height), (left, right, x, width) = rows, columns
    return dataclasses.replace(
        window,
        region=Region(top, bottom, left, right),
        y=y,
        x=x,
        height=height,
        width=width,
        size=(window.size[0] + 2 * margin[0], window.size[1] + 2 * margin[1]),
    )


def cut_image(image_3HW: Tensor, window: Window) -> Tensor:
    """uint8 (3, h, w); `PADDING` where the source has nothing."""
    region = window.region
    inner_3hw = image_3HW[:, region.top : region.bottom, region.left : region.right]
    size = (window.height, window.width)
    turned_3hw = resize_image(inner_3hw, size, mirrored=window.mirrored, upside_down=window.upside_down)
    return _placed(turned_3hw, window, PADDING)


def cut_labels(labels_HW: Tensor, window: Window, ignore_index: int) -> Tensor:
    """Ids (h, w); `ignore_index` where the source has nothing."""
    region = window.region
    inner_hw = labels_HW[region.top : region.bottom, region.left : region.right]
    size = (window.height, window.width)
    turned_hw = resize_labels(inner_hw, size, mirrored=window.mirrored, upside_down=window.upside_down)
    return _placed(turned_hw, window, ignore_index)


def cut_outside(window: Window) -> Tensor:
    """bool (h, w): where the source has nothing."""
    return _placed(torch.zeros((window.height, window.width), dtype=torch.bool), window, True)


def cut_objects(objects: Objects, window: Window, pairs: Sequence[tuple[int, int]]) -> Objects:
    """Objects in coordinates of the window's region -> in those of the crop, as label ids are resized.

    `pairs` are places of keypoints that a mirror image exchanges. Raises InputError for a place that is not there.
    """
    size = (window.height, window.width)
    turned_Nhw = resize_labels(objects.masks_NHW, size, mirrored=window.mirrored, upside_down=window.upside_down)
    keypoints_NP3 = objects.keypoints_NP3
    if keypoints_NP3 is not None:
        keypoints_NP3 = _cut_keypoints(keypoints_NP3, window)
        if window.mirrored != window.upside_down:  # both together turn by 180 degrees: a left hand stays one
            keypoints_NP3 = _exchanged(keypoints_NP3, pairs)
    return moved(objects, _placed(turned_Nhw, window, False), keypoints_NP3)


def _cut_keypoints(keypoints_NP3: Tensor, window: Window) -> Tensor:
    region, (h, w) = window.region, window.size
    x, y, visibility = keypoints_NP3.unbind(-1)
    x = (x + 0.5) * (window.width / (region.right - region.left)) - 0.5 + window.x
    y = (y + 0.5) * (window.height / (region.bottom - region.top)) - 0.5 + window.y
    x = w - 1 - x if window.mirrored else x
    y = h - 1 - y if window.upside_down else y
    return torch.stack([x, y, visibility], dim=-1)


def _exchanged(keypoints_NP3: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    order = list(range(keypoints_NP3.shape[1]))
    for left, right in pairs:
        if max(left, right) >= len(order):
            raise InputError(
                f"train.augment.keypoint_pairs names {(left, right)}, but an object has {len(order)} keypoints, "
                f"0 to {len(order) - 1}"
            )
        order[left], order[right] = right, left
    return keypoints_NP3[:, order]


def _placed(turned: Tensor, window: Window, fill: int) -> Tensor:
    """(..., height, width), already turned, in its place of a crop that is else `fill`."""
    if tuple(turned.shape[-2:]) == window.size:
        return turned
    if turned.dim() == 3 and turned.stride(0) == 1:  # an image, whose channels lie together (see `DecodedSample`)
        crop = torch.full((*window.size, len(turned)), fill, dtype=turned.dtype).permute(2, 0, 1)
    else:
        crop = torch.full((*turned.shape[:-2], *window.size), fill, dtype=turned.dtype)
    y = window.size[0] - window.height - window.y if window.upside_down else window.y
    x = window.size[1] - window.width - window.x if window.mirrored else window.x
    crop[..., y : y + window.height, x : x + window.width] = turned
    return crop


def _span(source: int, out: int, scale: float, draw: random.Random) -> tuple[int, int, int, int]:
    """Along one axis: source start and stop, where the piece lies in the crop, and its length there."""
    wanted = max(1, round(out / scale))
    if wanted <= source:
        start = draw.randint(0, source - wanted)
        return start, start + wanted, 0, out
    length = min(out, max(1, round(source * scale)))
    return 0, source, draw.randint(0, out - length), length


def _more(
    start: int, stop: int, place: int, length: int, source: int, out: int, margin: int
) -> tuple[int, int, int, int]:
    """Along one axis, as `_span`: the span with up to `margin` more pixels of the crop on both sides."""
    scale = length / (stop - start)
    before = min(start, math.floor((margin + place) / scale))
    behind = min(source - stop, math.floor((margin + out - place - length) / scale))
    place = margin + place - round(before * scale)
    longer = max(1, round((stop - start + before + behind) * scale))
    return start - before, stop + behind, place, min(longer, out + 2 * margin - place)
