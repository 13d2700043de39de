"""Splitting a class into objects: shapes with known answers, and a flood by pixels as the slow, obvious version."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from segpipe.errors import InputError
from segpipe.refine.watershed import Part, partition, split, watershed

Mask = npt.NDArray[np.bool_]


def discs(height: int, width: int, *circles: tuple[float, float, float]) -> Mask:
    """The union of discs (row, column, radius)."""
    y, x = np.mgrid[:height, :width]
    inside = np.zeros((height, width), dtype=bool)
    for row, column, radius in circles:
        inside |= (y - row) ** 2 + (x - column) ** 2 <= radius**2
    return inside


def ring_with_gap() -> Mask:
    """A C: a ring of one width, open on the right."""
    inside = discs(60, 60, (30, 30, 25)) & ~discs(60, 60, (30, 30, 15))
    inside[24:37, 30:] = False
    return inside


def whole(part: Part, shape: tuple[int, int]) -> Mask:
    """The mask in the image that it was cut out of."""
    mask = np.zeros(shape, dtype=bool)
    height, width = part.mask_hw.shape
    mask[part.top : part.top + height, part.left : part.left + width] = part.mask_hw
    return mask


def probabilities(*classes: tuple[Mask, float]) -> npt.NDArray[np.float32]:
    """(1 + K, H, W): each class has its probability on its mask; the background takes what is left."""
    rows = np.stack([np.where(mask, p, 0.0) for mask, p in classes]).astype(np.float32)
    return np.concatenate((1 - rows.sum(axis=0, keepdims=True), rows))


def flooded(height: npt.NDArray[np.float64], inside: Mask, depth: float) -> npt.NDArray[np.int64]:
    """Water falls from the highest pixel down. A pixel that appears joins the hill of its highest neighbour; where it
    touches several hills, those whose top stands less than `depth` above it join a higher one."""
    padded = np.pad(inside, 1)
    places = np.argwhere(padded)
    order = sorted(range(len(places)), key=lambda i: (height[inside][i], i), reverse=True)
    hill = np.full(padded.shape, -1)
    rank = np.full(padded.shape, -1)
    joined: dict[int, int] = {}
    top: dict[int, float] = {}

    def of(number: int) -> int:
        return number if joined[number] == number else of(joined[number])

    for number, i in enumerate(order):
        y, x = places[i]
        here = height[inside][i]
        around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if rank[y + dy, x + dx] >= 0]
        rank[y, x] = number
        if not around:
            hill[y, x], joined[number], top[number] = number, number, here
            continue
        first = min(around, key=lambda place: rank[place])
        hill[y, x] = hill[first]
        for place in around:
            # Hills are numbered from the highest top down.
            higher, lower = sorted((of(hill[y, x]), of(hill[place])))
            if higher != lower and top[lower] - here < depth:
                joined[lower] = higher
    return np.array([of(number) for number in hill[1:-1, 1:-1][inside]])


def same_partition(one: npt.NDArray[np.int64], two: npt.NDArray[np.int64]) -> bool:
    pairs = {(a, b) for a, b in zip(one.tolist(), two.tolist(), strict=True)}
    return len(pairs) == len(np.unique(one)) == len(np.unique(two))


@pytest.mark.parametrize("depth", [0.0, 0.4, 0.75, 2.0])
@pytest.mark.parametrize("seed", range(6))
def test_the_partition_is_that_of_the_flood(seed: int, depth: float) -> None:
    rng = np.random.default_rng(seed)
    inside = discs(48, 64, *((*rng.uniform((0, 0), (48, 64)), rng.uniform(2, 9)) for _ in range(25)))
    inside ^= rng.random(inside.shape) < 0.02
    distance = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    # Smoothed, so that heights differ; and rough, so that there are plateaus.
    for height in (ndimage.gaussian_filter(distance, 1.0), np.round(distance)):
        found, expected = watershed(height, inside, depth=depth), flooded(height, inside, depth)
        assert same_partition(found, expected)


def test_two_discs_that_overlap_are_cut_at_their_neck() -> None:
    inside = discs(40, 70, (20, 20, 12), (20, 40, 12))
    left, right = sorted(split(probabilities((inside, 0.9))), key=lambda part: part.left)
    assert left.class_id == right.class_id == 0
    assert left.score == pytest.approx(0.9)
    masks = [whole(part, inside.shape) for part in (left, right)]
    np.testing.assert_array_equal(np.sum(masks, axis=0), inside)
    assert abs(int(left.mask_hw.sum()) - int(right.mask_hw.sum())) <= 25, "the cut lies in the middle"
    assert left.left + left.mask_hw.shape[1] - 1 <= 31
    assert right.left >= 29


@pytest.mark.parametrize(
    ("inside", "objects"),
    [
        (discs(40, 40, (20, 20, 12)), 1),
        (discs(40, 40, (0, 0, 12)), 1),
        (discs(40, 60, (20, 24, 12), (20, 30, 12)), 1),
        (ring_with_gap(), 1),
        (np.ones((9, 30), dtype=bool), 1),
        (np.ones((1, 1), dtype=bool), 1),
        (np.zeros((40, 40), dtype=bool), 0),
        (discs(30, 100, *((15, 14 + 18 * n, 10) for n in range(5))), 5),
        (discs(60, 90, (20, 20, 8), (40, 60, 15), (20, 68, 8)), 3),
    ],
    ids=["disc", "disc at a corner", "nearly one disc", "C", "all", "pixel", "nothing", "chain", "sizes"],
)
def test_shapes_fall_apart_at_necks_only(inside: Mask, objects: int) -> None:
    found = split(probabilities((inside, 0.8)))
    assert len(found) == objects
    together = np.sum([whole(part, inside.shape) for part in found] or [np.zeros_like(inside)], axis=0)
    np.testing.assert_array_equal(together, inside)


def test_classes_are_split_by_themselves_and_the_best_object_comes_first() -> None:
    left, right = discs(40, 70, (20, 20, 12)), discs(40, 70, (20, 45, 12))
    found = split(probabilities((left, 0.7), (right, 0.9)))
    assert [(part.class_id, pytest.approx(part.score)) for part in found] == [(1, 0.9), (0, 0.7)]
    for part, expected in zip(found, (right, left), strict=True):
        np.testing.assert_array_equal(whole(part, right.shape), expected)


def test_the_score_is_the_mean_over_the_object_and_equals_stay_background() -> None:
    rows = np.full((2, 4, 8), 0.5, dtype=np.float32)
    assert split(rows) == []
    rows[1, 1:3, 2:4] = [[0.6, 0.8], [0.9, 0.9]]
    (part,) = split(rows)
    assert (part.class_id, part.top, part.left, part.mask_hw.shape) == (0, 1, 2, (2, 2))
    assert part.score == pytest.approx(0.8)


def test_small_objects_are_left_out() -> None:
    inside = discs(40, 60, (10, 10, 2), (20, 40, 12))
    for min_area, areas in ((1, [13, 441]), (13, [13, 441]), (14, [441]), (442, [])):
        assert (
            sorted(int(part.mask_hw.sum()) for part in split(probabilities((inside, 0.9)), min_area=min_area)) == areas
        )


def test_a_greater_depth_leaves_more_together() -> None:
    chain = discs(30, 100, *((15, 14 + 16 * n, 10) for n in range(5)))
    assert [partition(chain, smoothing=1.0, depth=depth).max() for depth in (0.5, 9.0)] == [5, 1]


def test_four_hundred_touching_objects_are_split_each_in_its_box() -> None:
    inside = discs(520, 696, *((13 + 25 * r, 17 + 34 * c, 13.5 + (r + c) % 3) for r in range(20) for c in range(20)))
    rows = probabilities((inside, 0.9))
    found = split(rows, min_area=10)
    assert len(found) == 400
    assert sum(part.mask_hw.size for part in found) < 2 * inside.size


def test_noise_costs_no_more_memory_than_its_specks() -> None:
    """What a model says that has learned nothing: thousands of specks in a large image."""
    rows = probabilities((np.random.default_rng(0).random((512, 512)) < 0.1, 0.6))
    found = split(rows)
    assert len(found) > 5_000
    assert sum(part.mask_hw.size for part in found) < 512 * 512


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (np.zeros((1, 4, 4), np.float32), {}, r"float32 \(1, 4, 4\); expected floats \(1 \+ classes, H, W\)"),
        (np.zeros((2, 4), np.float32), {}, r"float32 \(2, 4\)"),
        (np.zeros((2, 4, 4), np.uint8), {}, r"uint8 \(2, 4, 4\)"),
        (np.full((2, 4, 4), np.nan, np.float32), {}, "NaN or infinity"),
        (np.zeros((2, 4, 4), np.float32), {"depth": -0.1}, "depth is -0.1; expected a number of pixels"),
        (np.zeros((2, 4, 4), np.float32), {"smoothing": float("nan")}, "smoothing is nan"),
        (np.zeros((2, 4, 4), np.float32), {"min_area": -1}, "min_area is -1"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(rows: npt.NDArray[np.float32], options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(rows, **options)
