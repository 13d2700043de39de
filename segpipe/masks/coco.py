"""COCO's run lengths and polygons, bit for bit as cocoapi's common/maskApi.c makes them.

The functions there are rleEncode, rleToString, rleFrString and rleFrPoly. Everything is checked before it is used: a
hostile annotation ends as a BadSampleError, never as a crash. Part of the room `masks`.
Letter legend: H W image size in pixels; arrays are row-major, pixel (x, y) is array[y, x].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import BadSampleError
from segpipe.types import ClassInfo

MAX_BOUNDARY_POINTS = 50_000_000
_POLYGON_SCALE = 5
MOST_CHARACTERS = 6  # of a run: 30 bits, twice what any image needs; C shifts an int and reads no more than that
_MOST_BITS = 5 * (MOST_CHARACTERS + 1)
MORE, MOST_CODE = 32, 63  # bit of a character that another of the same number follows; the largest code

Mask = npt.NDArray[np.uint8]


def encode_rle(mask: npt.ArrayLike) -> dict[str, Any]:
    """COCO's compressed run lengths of a (H, W) mask, non-zero = inside: {"size": [H, W], "counts": ASCII bytes}."""
    inside = np.asarray(mask) != 0
    if inside.ndim != 2:
        raise ValueError(f"encode_rle: expected a (H, W) mask, got shape {inside.shape}")
    column_major = inside.ravel(order="F")
    changes = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
    edges = np.concatenate(([0], changes, [column_major.size]))
    runs = np.diff(edges)
    if column_major.size and column_major[0]:
        runs = np.concatenate(([0], runs))  # the first run counts zeros
    return {"size": [int(inside.shape[0]), int(inside.shape[1])], "counts": _runs_to_text(runs.astype(np.int64))}


def decode_rle(
    rle: Mapping[str, Any] | bytes | str,
    height: int,
    width: int,
    *,
    file: str = "rle",
    columns: tuple[int, int] | None = None,
) -> Mask:
    """The (H, W) uint8 mask (0 or 1) of COCO run lengths, or its `columns` from the first to before the second.

    `rle` as in `rle_runs`, with its errors.
    """
    runs = rle_runs(rle, height, width, file=file)
    left, right = columns or (0, width)
    ends = np.cumsum(runs).clip(left * height, right * height)  # runs go down the columns, so these are cut out whole
    values = (np.arange(runs.size) & 1).astype(np.uint8)
    inside = np.repeat(values, np.diff(ends, prepend=left * height))
    return np.ascontiguousarray(inside.reshape(right - left, height).T)


def rle_runs(
    rle: Mapping[str, Any] | bytes | str, height: int, width: int, *, file: str = "rle"
) -> npt.NDArray[np.int64]:
    """The runs, int64, of COCO run lengths down the columns of a (H, W) mask: outside and inside by turns.

    `rle` is compressed text (bytes or str), or a mapping whose "counts" are compressed text or a list of integers
    (COCO's uncompressed form). Raises BadSampleError(bad_annotation) where counts are malformed, negative, of another
    size, or do not cover height * width pixels exactly.
    """
    counts: Any = rle
    if isinstance(rle, Mapping):
        size = rle.get("size", (height, width))
        if "counts" not in rle or not isinstance(size, Sequence) or list(size) != [height, width]:
            raise _bad_rle(file, f"expected counts for size {[height, width]}, got size {rle.get('size')}")
        counts = rle["counts"]
    if isinstance(counts, str):
        counts = counts.encode("ascii", errors="replace")
    if isinstance(counts, bytes):
        runs = _text_to_runs(counts, file)
    else:
        try:
            runs = np.array([_whole(count) for count in counts], dtype=np.int64)
        except (TypeError, OverflowError) as error:
            raise _bad_rle(file, f"counts must be text or a list of whole numbers, got {counts!r:.80}") from error
    total = height * width
    if runs.size and (runs.min() < 0 or runs.max() > total):
        raise _bad_rle(file, f"a run of {int(runs.min() if runs.min() < 0 else runs.max())} pixels in {height}x{width}")
    if (covered := int(runs.sum())) != total:
        raise _bad_rle(file, f"the runs cover {covered} pixels, expected {height} * {width} = {total}")
    return runs


def rle_of_runs(runs: npt.NDArray[np.int64], height: int, width: int) -> dict[str, Any]:
    """The run lengths that `encode_rle` makes of the mask with these runs: none is empty, except perhaps the first."""
    kept = runs > 0
    if runs.any() and not kept[1:].all():
        inside = (np.arange(runs.size) & 1)[kept]
        starts = np.flatnonzero(np.diff(inside, prepend=-1))
        runs = np.concatenate((np.zeros(inside[0], dtype=np.int64), np.add.reduceat(runs[kept], starts)))
    return {"size": [height, width], "counts": _runs_to_text(runs)}


def polygon_to_mask(polygons: Sequence[Any], height: int, width: int, *, file: str = "polygon") -> Mask:
    """The union of polygons as a (H, W) uint8 mask (0 or 1), equal to COCO's rasteriser (rleFrPoly).

    Each polygon is [x0, y0, x1, y1, ...] or (n, 2) points, n >= 3, in pixels from the left upper image corner; parts
    outside the image are cut off. Raises BadSampleError(bad_annotation).
    """
    mask = np.zeros((height, width), dtype=np.uint8)
    for points in polygon_points(polygons, file=file):
        mask |= _fill(points, height, width)
    return mask


def polygon_points(polygons: Sequence[Any], *, file: str = "polygon") -> list[npt.NDArray[np.float64]]:
    """The corners (n, 2) of each polygon, checked; the polygons and the error are those of `polygon_to_mask`."""
    found = []
    for number, polygon in enumerate(polygons):
        try:
            points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadSampleError(
                "bad_annotation", file, f"polygon {number} is {polygon!r:.80}; expected x, y, x, y, ...: export again"
            ) from error
        limit, farthest = 1e6, float(np.abs(points).max(initial=0))
        if len(points) < 3 or not farthest <= limit:
            raise BadSampleError(
                "bad_annotation",
                file,
                f"polygon {number} has {len(points)} points; expected at least 3, finite, within {limit:g} pixels",
            )
        if len(points) * (farthest + 1) * 2 * _POLYGON_SCALE > MAX_BOUNDARY_POINTS:  # else no need to add them up
            steps = np.abs(points - np.roll(points, -1, axis=0)).max(axis=1) * _POLYGON_SCALE + 2
            if steps.sum() > MAX_BOUNDARY_POINTS:
                raise BadSampleError(
                    "bad_annotation",
                    file,
                    f"polygon {number}: a boundary of {int(steps.sum()) // 5} pixels is too long; at most "
                    f"{MAX_BOUNDARY_POINTS // 5} are drawn: simplify it",
                )
        found.append(points)
    return found


def _fill(points: npt.NDArray[np.float64], height: int, width: int) -> Mask:
    """One polygon by parity: walk its boundary on a grid 5 times finer, note where it enters a column of pixels."""
    grid = (points * _POLYGON_SCALE + 0.5).astype(np.int64)  # C's (int) truncates towards zero, and so does astype
    start, end = grid, np.roll(grid, -1, axis=0)
    dx, dy = np.abs(end - start).T
    steps = np.maximum(dx, dy)
    wide = dx >= dy
    flip = np.where(wide, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
    low, high = np.where(flip[:, None], end, start), np.where(flip[:, None], start, end)
    rise = np.where(wide, high[:, 1] - low[:, 1], high[:, 0] - low[:, 0]) / np.maximum(steps, 1)
    edge = np.repeat(np.arange(len(grid)), steps + 1)
    along = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    along = np.where(flip[edge], steps[edge] - along, along)
    minor = np.where(wide, low[:, 1], low[:, 0])[edge]
    across = (minor + rise[edge] * along + 0.5).astype(np.int64)
    u = np.where(wide[edge], low[edge, 0] + along, across)
    v = np.where(wide[edge], across, low[edge, 1] + along)
    crossed = np.flatnonzero(u[1:] != u[:-1]) + 1
    column = (np.where(u[crossed] < u[crossed - 1], u[crossed], u[crossed] - 1) + 0.5) / _POLYGON_SCALE - 0.5
    row = (np.minimum(v[crossed], v[crossed - 1]) + 0.5) / _POLYGON_SCALE - 0.5
    kept = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    position = column[kept].astype(np.int64) * height + np.ceil(np.clip(row[kept], 0, height)).astype(np.int64)
    # One byte a pixel: counts and their sums would take sixteen, which is what a large photograph has not.
    toggles = np.zeros(height * width + 1, dtype=np.uint8)
    np.bitwise_xor.at(toggles, position, 1)
    inside: Mask = np.bitwise_xor.accumulate(toggles[:-1]).reshape(width, height).T
    return inside


def _runs_to_text(runs: npt.NDArray[np.int64]) -> bytes:
    """5 bits a character, low bits first, bit 5 = more follows; from the 4th run on the difference to two before."""
    rest = runs.copy()
    rest[3:] -= runs[1:-2]
    columns, kept, alive = [], [], np.ones(len(rest), dtype=bool)
    while alive.any():
        low = rest & 31
        rest = rest >> 5
        more = np.where(low & 16, rest != -1, rest != 0)
        columns.append(low + (more << 5) + 48)
        kept.append(alive)
        alive = alive & more
    characters: npt.NDArray[np.uint8] = np.stack(columns, axis=1).astype(np.uint8)
    text: bytes = characters[np.stack(kept, axis=1)].tobytes()
    return text


def _text_to_runs(text: bytes, file: str) -> npt.NDArray[np.int64]:
    codes = character_codes(text)
    if not codes.size or codes.min() < 0 or codes.max() > MOST_CODE or codes[-1] & MORE:
        raise _bad_rle(file, f"malformed compressed counts {text[:40]!r}")
    values, _, lengths = numbers_of_codes(codes)
    if lengths.max() > MOST_CHARACTERS:
        raise _bad_rle(file, f"a run of {int(lengths.max())} characters in compressed counts {text[:40]!r}")
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def coco_category(class_id: int, info: ClassInfo) -> dict[str, Any]:
    """A class as an entry of a COCO file's categories, whose ids begin with 1."""
    named = {"id": class_id + 1, "name": info.name, "supercategory": ""}
    return named | {"isthing": int(info.is_thing), "color": list(info.colour)}


def character_codes(text: bytes) -> npt.NDArray[np.int64]:
    """What each character of compressed run lengths says: 0 to `MOST_CODE`, any other number in damaged text."""
    return np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48


def numbers_of_codes(
    codes: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The numbers that codes spell, the place of the first character of each, and how many it has.

    The last code has no `MORE`. A number of more than `MOST_CHARACTERS` is not told rightly.
    """
    ends = np.flatnonzero(codes & MORE == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    shift = np.minimum(5 * (np.arange(codes.size) - np.repeat(starts, lengths)), _MOST_BITS)
    values = np.add.reduceat((codes & 31) << shift, starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << np.minimum(5 * lengths, _MOST_BITS), 0)
    return values, starts, lengths


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"not a whole number: {value!r}")
    return int(value)


def _bad_rle(file: str, detail: str) -> BadSampleError:
    return BadSampleError("bad_annotation", file, f"run lengths: {detail}: export the annotation again")
