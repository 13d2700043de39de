"""Run lengths of objects without painting an image for each: from a map of ids, from the crop of a box; their boxes and
pixels.

COCO's runs go down the columns. Part of the room `masks`.
Letter legend: H W image size in pixels, h w size of a crop of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.masks.coco import rle_of_runs, rle_runs
from segpipe.masks.maps import decode_stored, read_map
from segpipe.types import Sample, Segment

Integers = npt.NDArray[np.int64]
Box = tuple[int, int, int, int]


def segment_runs(sample: Sample) -> Iterator[tuple[Segment, Integers]]:
    """Each segment of a sample with its runs (`rle_runs`), in the order stored; those of the map in one pass over it.

    Raises CorruptError where what is stored is not what ingest had checked.
    """
    spans: dict[int, tuple[Integers, Integers]] = {}
    if sample.segment_map is not None:
        spans = _spans_by_id(read_map(sample.segment_map, sample, what="segment map"))
    nowhere = np.zeros(0, dtype=np.int64)
    for segment in sample.segments:
        if segment.rle is not None:
            yield segment, decode_stored(segment, sample, rle_runs)
        else:
            starts, ends = spans.get(segment.segment_id, (nowhere, nowhere))
            yield segment, _runs(starts, ends, sample.height * sample.width)


def encode_crop(mask_hw: npt.ArrayLike, *, top: int, left: int, size: tuple[int, int]) -> bytes:
    """COCO's compressed run lengths of an image of `size` (H, W) that is empty but for a mask (h, w) at (top, left).

    Costs what the crop costs, however large the image: `encode_rle` of the whole would look at every pixel of it.
    """
    inside: npt.NDArray[np.bool_] = np.asarray(mask_hw) != 0
    (height, width), (rows, columns) = size, inside.shape
    if top < 0 or left < 0 or top + rows > height or left + columns > width:
        raise ValueError(f"encode_crop: a crop of {rows} x {columns} at {(top, left)} does not lie in {size}")
    # Below each column an empty row, where runs end: in the image the rest of the column follows. A crop as high as the
    # image needs none, and its runs go on from column to column.
    pitch = rows + (rows < height)
    padded = np.zeros(columns * pitch + 1, dtype=np.int8)
    padded[:-1].reshape(columns, pitch)[:, :rows] = inside.T
    edges = np.flatnonzero(np.diff(padded, prepend=np.int8(0)))
    starts, ends = edges[0::2], edges[1::2]
    first = (left + starts // pitch) * height + top + starts % pitch
    counts: bytes = rle_of_runs(_runs(first, first + ends - starts, height * width), height, width)["counts"]
    return counts


def box_of_runs(runs: Integers, height: int) -> Box:
    """x0, y0, x1, y1 tight around a mask of `height` rows, so that x1 - x0 counts columns; zeros for an empty one."""
    edges = np.concatenate(([0], np.cumsum(runs)))
    starts, ends = edges[1:-1:2], edges[2::2]
    kept = ends > starts
    starts, last = starts[kept], ends[kept] - 1
    if not starts.size:
        return 0, 0, 0, 0
    x0, x1 = int(starts[0] // height), int(last[-1] // height) + 1
    if (starts // height != last // height).any():  # from the foot of a column to the head of the next
        return x0, 0, x1, height
    return x0, int((starts % height).min()), x1, int((last % height).max()) + 1


def crop_of_runs(runs: Integers, height: int) -> tuple[int, int, npt.NDArray[np.bool_]]:
    """(top, left, mask_hw): what `encode_crop` takes, of a mask of `height` rows in its box."""
    left, top, right, bottom = box_of_runs(runs, height)
    columns: npt.NDArray[np.bool_] = np.zeros((right - left) * height, dtype=np.bool_)
    columns[pixels_of_runs(runs) - left * height] = True
    return top, left, np.ascontiguousarray(columns.reshape(right - left, height).T[top:bottom])


def pixels_of_runs(runs: Integers) -> Integers:
    """The places of a mask's pixels, int64, rising, in an image that is read down its columns."""
    inside, ends = runs[1::2], np.cumsum(runs)[1::2]
    counted = np.cumsum(inside)
    places: Integers = np.repeat(ends - counted, inside) + np.arange(counted[-1] if counted.size else 0)
    return places


def _spans_by_id(ids_HW: npt.NDArray[Any]) -> dict[int, tuple[Integers, Integers]]:
    """First pixel of each stretch of an id, and the one behind its last, down the columns."""
    flat = ids_HW.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = np.concatenate(([0], changes)), np.concatenate((changes, [flat.size]))
    held = flat[starts]
    order = np.argsort(held, kind="stable")
    known, firsts = np.unique(held[order], return_index=True)
    places = np.split(order, firsts[1:])
    return {int(number): (starts[at], ends[at]) for number, at in zip(known, places, strict=True)}


def _runs(starts: Integers, ends: Integers, pixels: int) -> Integers:
    """Outside and inside by turns, as `encode_rle` cuts them: the first may be empty, the last is not."""
    edges = np.empty(2 * len(starts) + 2, dtype=np.int64)
    edges[0], edges[1:-1:2], edges[2:-1:2], edges[-1] = 0, starts, ends, pixels
    runs = np.diff(edges)
    return runs if runs[-1] or len(runs) == 1 else runs[:-1]
