"""Maps of an image too large for one forward pass, from overlapping tiles that each fit.

`blended_rows` is the sweep, from the top down, that every door has in common; a `Span` says where a tile lies along one
axis and how much it counts there. `tiled_maps` is for models that look no further than an overlap, whose result is that
of one pass; the spans of `gaussian_spans` are for those that look as far as they can. Used by `tasks/`.

Letter legend: N batch, C channels of the image, P of the maps, H W size of the image in pixels, h w of the maps in
cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SIGMA_SHARE = 1 / 8  # of a window: standard deviation of the importance of its cells


class Span(NamedTuple):
    """Cells `start` to `stop` along one axis, and the weight of each: at every cell those of all spans add up to 1."""

    start: int
    stop: int
    weight: Tensor


def blended_rows(
    look: Callable[[Span, Span], Tensor], rows: Sequence[Span], columns: Sequence[Span]
) -> Iterator[Tensor]:
    """The sum of weighted tiles, float32, a band of finished rows (N, P, rows, w) after the other, from the top.

    `look` gives the maps (N, P, h, w) of the tile at a span of rows and one of columns; both kinds rise. Never is more
    in memory than two strips as high as a tile and as wide as the maps, and what `look` returns; a band is a view of a
    strip, so that who keeps it keeps that.
    """
    waiting_NPhw: Tensor | None = None
    for at, row in enumerate(rows):
        strip_NPhw: Tensor | None = None
        for column in columns:
            part_NPhw = look(row, column).float()
            if strip_NPhw is None:
                strip_NPhw = part_NPhw.new_zeros((*part_NPhw.shape[:2], row.stop - row.start, columns[-1].stop))
                if waiting_NPhw is not None:
                    strip_NPhw[:, :, : waiting_NPhw.shape[2]] = waiting_NPhw
            weight_hw = (row.weight[:, None] * column.weight).to(part_NPhw.device)
            strip_NPhw[..., column.start : column.stop].addcmul_(part_NPhw, weight_hw)
        assert strip_NPhw is not None
        done = (rows[at + 1].start if at + 1 < len(rows) else row.stop) - row.start
        yield strip_NPhw[:, :, :done]
        waiting_NPhw = strip_NPhw[:, :, done:]


def gaussian_spans(length: int, window: int, overlap: float) -> list[Span]:
    """Windows along one axis of `length` cells, evenly spread, each sharing at least `overlap` (0..1) with the next.

    Cells count most in the middle of a window, by a Gaussian of an eighth of its length, whose context is the best on
    both sides: as nnU-Net does it (Isensee et al., 2021, Nature Methods 18, with the steps and the importance map of
    its released code, but centred between cells). One window, of weight 1, where the axis is no longer than it.
    """
    if length <= window:
        return [Span(0, length, torch.ones(length))]
    most = length - window
    steps = math.ceil(most / (window * (1 - overlap)))
    starts = [round(most * step / steps) for step in range(steps + 1)]
    away = (torch.arange(window) + 0.5 - window / 2) / (window * SIGMA_SHARE)
    importance = torch.exp(-away.square() / 2)
    total = torch.zeros(length)
    for start in starts:
        total[start : start + window] += importance
    return [Span(start, start + window, importance / total[start : start + window]) for start in starts]


def tiled_maps(
    run: Callable[[Tensor], Tensor], images_NCHW: Tensor, *, tile: int, overlap: int, stride: int, divisor: int
) -> Tensor:
    """What `run` says of the whole images, (N, P, ceil(H / stride), ceil(W / stride)), made tile by tile.

    `run` maps any window of the images to maps of `stride`. Windows are `tile` pixels long and share `overlap` with the
    next one; those at the right and lower edge may be shorter, but longer than the overlap. The outer quarter of an
    overlap is the other tile's alone, between them both fade into each other. So for a model that answers the same
    wherever an image lies by multiples of `divisor`, and looks no further than a quarter of the overlap, the result is
    that of one pass. Raises ValueError where `tile` and `overlap` are not multiples of `divisor`, that not of `stride`,
    or the overlap is more than half of a tile.
    """
    if divisor % stride or tile % divisor or overlap % divisor or not 0 <= 2 * overlap <= tile:
        raise ValueError(
            f"tiles: expected tile {tile} and overlap {overlap} in multiples of {divisor}, that a multiple of stride "
            f"{stride}, and at most half a tile of overlap"
        )

    def look(row: Span, column: Span) -> Tensor:
        rows, columns = (slice(each.start * stride, each.stop * stride) for each in (row, column))
        return run(images_NCHW[..., rows, columns])

    rows, columns = (
        _faded_spans(-(-length // stride), tile // stride, overlap // stride) for length in images_NCHW.shape[-2:]
    )
    return torch.cat([band_NPhw.clone() for band_NPhw in blended_rows(look, rows, columns)], dim=2)


def _faded_spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Tiles along one axis, in cells: they count 1, and towards a neighbour down to 0."""
    starts = [0]
    while starts[-1] + tile < length:
        starts.append(starts[-1] + tile - overlap)
    spans = []
    for start in starts:
        stop = min(start + tile, length)
        spans.append(Span(start, stop, _fade(stop - start, start > 0, stop < length, overlap)))
    return spans


def _fade(cells: int, before: bool, behind: bool, overlap: int) -> Tensor:
    """(cells,) weights of a tile along one axis."""
    outer = overlap // 4
    rising = ((torch.arange(cells) + 0.5 - outer) / max(1, overlap - 2 * outer)).clamp(0, 1)
    weight = torch.ones(cells)
    if before and overlap:
        weight = weight * rising
    if behind and overlap:
        weight = weight * rising.flip(0)
    return weight


def resized_rows(
    bands: Iterator[Tensor], size: tuple[int, int], given: tuple[int, int], *, step: int
) -> Iterator[Tensor]:
    """Maps that come in bands of rows, as bands of `step` rows of the same maps resized from `given` (h, w) to `size`.

    Bilinear, as `interpolate(..., align_corners=False)` of the whole; in memory is what a band is made of.
    """
    (height, width), rows_given = size, given[0]
    source_H = ((torch.arange(height, dtype=torch.float64) + 0.5) * rows_given / height - 0.5).clamp(min=0)
    upper_H = source_H.floor().long().clamp(max=rows_given - 1)
    lower_H = (upper_H + 1).clamp(max=rows_given - 1)
    held_NPhw, first = next(bands), 0
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        while first + held_NPhw.shape[2] <= int(lower_H[rows.stop - 1]):
            passed = min(int(upper_H[top]) - first, held_NPhw.shape[2])
            held_NPhw = torch.cat([held_NPhw[:, :, passed:], next(bands)], dim=2)
            first += passed
        if size == given:
            yield held_NPhw[:, :, top - first : rows.stop - first]
            continue
        upper, lower = ((at - first).to(held_NPhw.device) for at in (upper_H[rows], lower_H[rows]))
        share_H1 = (source_H - upper_H)[rows, None].to(held_NPhw)
        part_NPHw = torch.lerp(held_NPhw[:, :, upper], held_NPhw[:, :, lower], share_H1)
        yield functional.interpolate(part_NPHw, size=(part_NPHw.shape[2], width), mode="bilinear", align_corners=False)
