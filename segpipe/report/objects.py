"""Objects as the pictures of this room paint them: where each lies in a panel, in which tint, with which contour.

Legend: N objects, H W size of the image in pixels, h w size of a panel.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from segpipe import masks
from segpipe.errors import BadSampleError, InputError
from segpipe.predictions import Detections, nearest
from segpipe.report.drawing import INK, PAPER, Labels, Pixels, font, legible
from segpipe.types import ClassInfo

Colour = tuple[int, int, int]
Inside = NDArray[np.bool_]

FOUND, MISSED, FALSE = (46, 160, 67), (214, 40, 57), (255, 140, 0)
LABEL_SIZE = 12
# Where all objects are of one class, their colours tell them apart: strong ones, none of which looks like another.
OBJECT_COLOURS: tuple[Colour, ...] = (
    (255, 209, 67),
    (66, 165, 245),
    (236, 100, 75),
    (102, 217, 123),
    (190, 120, 240),
    (64, 224, 208),
    (255, 140, 190),
    (180, 200, 80),
)
# Else they are shades of the colour of their class: what is added to its hue and to its lightness, both in 0..1.
_SHADES = ((0.0, 0.0), (0.03, 0.16), (-0.03, -0.16), (0.05, -0.07), (-0.05, 0.24))
_DARKEST, _LIGHTEST = 0.3, 0.85  # lightness of a shade: over a photograph, darker ones are lost
_OVERHANG, _LINES = 1.4, 2.2  # how much wider than its object a text may be; how many lines high an object must be
_NEAR = 3  # pixels of a panel; objects that are nearer to each other must not look the same


class Patch(NamedTuple):
    """Where an object lies: the upper left corner of its rectangle, and which of the pixels there are its own."""

    top: int
    left: int
    inside_hw: Inside

    @property
    def place(self) -> tuple[slice, slice]:
        height, width = self.inside_hw.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def patches_of(found: Detections, size: tuple[int, int], *, what: str) -> list[Patch]:
    """Each object in a panel of `size` (w, h): its mask, or its box where there are no masks.

    However small it gets, an object keeps a pixel; only one whose mask is empty has none. Raises InputError, which
    calls the objects `what`, where a mask does not decode.
    """
    rows_h, columns_w = nearest(found.size[0], size[1]), nearest(found.size[1], size[0])
    if found.masks is None:
        return [_scaled(_box(box, found.size), rows_h, columns_w) for box in found.boxes_N4]
    return [_scaled(_mask(rle, found.size, what), rows_h, columns_w) for rle in found.masks]


def patches_of_map(ids_hw: Labels, segment_ids: Sequence[int]) -> list[Patch]:
    """Each segment of a map of ids that is scaled to a panel already; one without a pixel is empty."""
    places = np.argsort(ids_hw, axis=None, kind="stable")
    sorted_ids = ids_hw.ravel()[places]
    patches = []
    for segment_id in segment_ids:
        first, end = np.searchsorted(sorted_ids, (segment_id, segment_id + 1))
        rows, columns = np.divmod(places[first:end], ids_hw.shape[1])
        if rows.size:
            top, left = int(rows.min()), int(columns.min())
            part = ids_hw[top : rows.max() + 1, left : columns.max() + 1] == segment_id
            patches.append(Patch(top, left, part))
        else:
            patches.append(Patch(0, 0, np.zeros((0, 0), dtype=bool)))
    return patches


def _mask(rle: bytes, size: tuple[int, int], what: str) -> Patch:
    """A mask without what is empty around it: a whole image of zeros for each of 400 nuclei would take seconds."""
    height, width = size
    try:
        runs = masks.rle_runs(rle, height, width, file=what)
    except BadSampleError as error:
        raise InputError(f"{what}: a mask does not decode: {error.detail}") from None
    return Patch(*masks.crop_of_runs(runs, height))


def _box(box: NDArray[Any], size: tuple[int, int]) -> Patch:
    """The pixels of the image that a box touches."""
    height, width = size
    x0, y0, x1, y1 = box
    left, top = (int(np.clip(np.floor(v), 0, most - 1)) for v, most in ((x0, width), (y0, height)))
    right, bottom = (int(np.clip(np.ceil(v), 1, most)) for v, most in ((x1, width), (y1, height)))
    return Patch(top, left, np.ones((max(1, bottom - top), max(1, right - left)), dtype=bool))


def _scaled(patch: Patch, rows_h: NDArray[np.int64], columns_w: NDArray[np.int64]) -> Patch:
    inside_hw = patch.inside_hw
    if not inside_hw.size:
        return patch
    rows, columns = (_shown(at, *side) for at, side in zip((rows_h, columns_w), _sides(patch), strict=True))
    # The nearest row of a pixel that is kept though it shows none of the object may lie just outside of it.
    y = (rows_h[rows] - patch.top).clip(0, inside_hw.shape[0] - 1)
    x = (columns_w[columns] - patch.left).clip(0, inside_hw.shape[1] - 1)
    part = inside_hw[y[:, None], x[None, :]]
    return Patch(rows.start, columns.start, part if part.any() else np.ones_like(part))


def _sides(patch: Patch) -> tuple[tuple[int, int], tuple[int, int]]:
    """(first, one behind the last) of its rows and of its columns."""
    rows, columns = patch.place
    return (rows.start, rows.stop), (columns.start, columns.stop)


def _shown(places: NDArray[np.int64], start: int, stop: int) -> slice:
    """The rows, or columns, of a panel that show those from `start` to before `stop`: at least one."""
    first, end = np.searchsorted(places, (start, stop))
    first = min(int(first), len(places) - 1)
    return slice(first, max(int(end), first + 1))


def one_class(classes: Sequence[ClassInfo]) -> bool:
    """Whether a set has one class of objects, so that colours need not tell classes."""
    return len(classes) == 1 or sum(info.is_thing for info in classes) == 1


def tints(
    patches: Sequence[Patch], class_ids_N: NDArray[Any], classes: Sequence[ClassInfo], *, by_object: bool
) -> list[Colour]:
    """A colour for each object: a shade of that of its class or, `by_object`, any. Objects that lie close to each other
    differ, as far as there are shades enough."""
    choices = len(OBJECT_COLOURS) if by_object else len(_SHADES)
    sides_N4 = np.array([(*rows, *columns) for rows, columns in map(_sides, patches)]).reshape(-1, 4)
    first_N2, end_N2 = sides_N4[:, ::2] - _NEAR, sides_N4[:, 1::2] + _NEAR
    overlap_NN2 = (first_N2[:, None] < end_N2) & (first_N2 < end_N2[:, None])
    near_NN = np.logical_and.reduce(overlap_NN2, axis=2)
    if not by_object:
        near_NN &= np.equal.outer(class_ids_N, class_ids_N)
    chosen_N = np.full(len(patches), -1)
    for n, near_N in enumerate(near_NN):
        taken = np.bincount(chosen_N[near_N & (chosen_N >= 0)], minlength=choices)
        start = n % choices if by_object else 0  # all colours in turn, but the class's own first
        chosen_N[n] = (int(np.roll(taken, -start).argmin()) + start) % choices
    if by_object:
        return [OBJECT_COLOURS[choice] for choice in chosen_N]
    return [shade(classes[k].colour, int(choice)) for k, choice in zip(class_ids_N, chosen_N, strict=True)]


def colours_of(
    patches: Sequence[Patch], class_ids: Sequence[int], classes: Sequence[ClassInfo], *, by_object: bool
) -> list[Colour]:
    """A colour for each segment: of stuff that of its class, of things their `tints`."""
    colours: list[Colour] = [classes[k].colour for k in class_ids]
    things = [n for n, k in enumerate(class_ids) if classes[k].is_thing]
    thing_ids = np.array([class_ids[n] for n in things], dtype=np.int64)
    for n, tint in zip(
        things, tints([patches[n] for n in things], thing_ids, classes, by_object=by_object), strict=True
    ):
        colours[n] = tint
    return colours


def shade(colour: Colour, number: int) -> Colour:
    """One of a few colours that are alike enough for a class, and different enough for two objects."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in colour))
    turn, lift = _SHADES[number % len(_SHADES)]
    rgb = colorsys.hls_to_rgb((hue + turn) % 1, min(_LIGHTEST, max(_DARKEST, lightness + lift)), saturation)
    red, green, blue = (round(255 * value) for value in rgb)
    return red, green, blue


def fill(picture_hw3: Pixels, patch: Patch, colour: Colour, opacity: float) -> None:
    """Lays a colour over the pixels of an object, in place."""
    part = picture_hw3[patch.place]
    mixed = (1 - opacity) * part[patch.inside_hw] + opacity * np.array(colour)
    part[patch.inside_hw] = mixed.round().astype(np.uint8)


def contour(picture_hw3: Pixels, patch: Patch, colour: Colour, thickness: int = 1) -> None:
    """Draws the outermost pixels of an object, in place: the contours of two that touch lie beside each other."""
    inner_hw = patch.inside_hw
    for _ in range(thickness):
        around = np.pad(inner_hw, 1)
        inner_hw = inner_hw & around[1:-1, :-2] & around[1:-1, 2:] & around[:-2, 1:-1] & around[2:, 1:-1]
    picture_hw3[patch.place][patch.inside_hw & ~inner_hw] = colour


def write_labels(pen: ImageDraw.ImageDraw, labels: Sequence[tuple[Patch, str]]) -> None:
    """Writes a text onto each object that has room for it, across its widest row, first come first served: none covers
    another one."""
    letters, written = font(LABEL_SIZE), list[tuple[int, int, float]]()
    for patch, text in labels:
        text = legible(text)
        length = letters.getlength(text)
        x, y, room = _widest_row(patch)
        if length > _OVERHANG * room or patch.inside_hw.shape[0] < _LINES * LABEL_SIZE:
            continue
        if any(
            abs(x - x_) < (length + length_) / 2 + 6 and abs(y - y_) < LABEL_SIZE + 6 for x_, y_, length_ in written
        ):
            continue
        written.append((x, y, length))
        pen.text((x, y), text, PAPER, letters, anchor="mm", stroke_width=2, stroke_fill=INK)


def _widest_row(patch: Patch) -> tuple[int, int, int]:
    """(x, y, length): the middle of the longest row of pixels inside, of equals that nearest to the middle."""
    height, width = patch.inside_hw.shape
    # Not at its edges, where the text would stand half outside: at the image's it would be cut.
    edge = min(LABEL_SIZE // 2 + 3, (height - 1) // 2)
    # Each row stands between pixels that are outside: a run is what lies between two of them.
    outside = np.flatnonzero(~np.pad(patch.inside_hw[edge : height - edge], 1))
    runs = np.diff(outside) - 1
    middles = (outside[:-1] + outside[1:]) / 2
    row = middles // (width + 2) - 1 + edge
    best = np.lexsort((np.abs(row - (height - 1) / 2), -runs))[0]
    return patch.left + int(middles[best] % (width + 2)) - 1, patch.top + int(row[best]), int(runs[best])
