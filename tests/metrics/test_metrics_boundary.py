"""Boundary IoU against erosion done pixel by pixel, worked examples, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.errors import InputError
from segpipe.masks import decode_rle, encode_rle
from segpipe.metrics import boundary_iou, mask_boundary
from segpipe.metrics.boundary import rle_boundary, segment_boundaries


def slow_boundary(mask: np.ndarray, ratio: float) -> np.ndarray:
    """d erosions by 3x3 in an image framed by one ring of zeros, as the published evaluator does it."""
    height, width = mask.shape
    steps = max(1, round(ratio * math.sqrt(height**2 + width**2)))
    framed = np.pad(mask != 0, 1)
    for _ in range(steps):
        kept = framed.copy()
        for y in range(framed.shape[0]):
            for x in range(framed.shape[1]):
                kept[y, x] = framed[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].all()
        framed = kept
    return (mask != 0) & ~framed[1:-1, 1:-1]


sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
ratios = st.sampled_from([0.008, 0.02, 0.1, 0.17, 0.3, 2.0])


@settings(max_examples=80, deadline=None)
@given(sizes.flatmap(lambda size: hnp.arrays(np.uint8, size, elements=st.sampled_from([0, 1, 1, 1, 255]))), ratios)
def test_a_boundary_is_what_erosions_take(mask: np.ndarray, ratio: float) -> None:
    found = mask_boundary(mask, ratio)
    assert found.dtype == np.bool_
    assert np.array_equal(found, slow_boundary(mask, ratio))
    assert np.array_equal(decode_rle(rle_boundary(encode_rle(mask), ratio), *mask.shape), found)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 1 << 30), ratios)
def test_a_whole_map_has_the_boundaries_of_its_segments(size: tuple[int, int], seed: int, ratio: float) -> None:
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, 4, size), np.ones((2, 3), dtype=int))[: size[0], : size[1]]
    expected = np.zeros(size, dtype=bool)
    for id_ in np.unique(ids):
        expected |= slow_boundary(ids == id_, ratio)
    assert np.array_equal(segment_boundaries(ids, ratio), expected)


def test_the_worked_example() -> None:
    """In 20x20, 0.02 of the diagonal is 0.57: boundaries one pixel wide.

    A square of 6 has 36 - 16 = 20 boundary pixels; moved by one to the right, two rows of 5 and nothing of the columns
    but their ends are common: 10 of 30.
    """
    truth, moved = np.zeros((20, 20), dtype=np.uint8), np.zeros((20, 20), dtype=np.uint8)
    truth[5:11, 5:11], moved[5:11, 6:12] = 1, 1
    assert mask_boundary(truth).sum() == 20
    assert boundary_iou(moved, truth) == 10 / 30
    assert boundary_iou(truth, truth) == 1.0
    assert boundary_iou(truth[::-1, ::-1] * 255, truth[::-1, ::-1]) == 1.0
    # 3 wide (0.1 of 28.3) nothing of it is inside, so it is mask IoU: 30 of 42.
    assert boundary_iou(moved, truth, dilation_ratio=0.1) == 30 / 42


def test_the_images_border_is_a_boundary() -> None:
    full = np.ones((10, 12), dtype=bool)
    inside = np.zeros((10, 12), dtype=bool)
    inside[1:-1, 1:-1] = True
    assert np.array_equal(mask_boundary(full), full & ~inside)


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64])
def test_every_family_and_type_counts_alike(make: Any, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    truth, prediction = (np.kron(rng.integers(0, 2, (2, 6, 6)), np.ones((1, 5, 5))) > 0).astype(dtype)
    edges = [slow_boundary(mask, 0.05) for mask in (prediction, truth)]
    expected = (edges[0] & edges[1]).sum() / (edges[0] | edges[1]).sum()
    found = boundary_iou(make(prediction), make(truth), 0.05)
    assert type(found) is float
    assert found == expected


def test_empty_masks() -> None:
    empty, some = np.zeros((4, 5), dtype=bool), np.ones((4, 5), dtype=bool)
    assert boundary_iou(empty, some) == boundary_iou(some, empty) == boundary_iou(empty, empty) == 0.0
    assert boundary_iou(np.zeros((0, 5), dtype=bool), np.zeros((0, 5), dtype=bool)) == 0.0


@pytest.mark.parametrize(
    ("prediction", "truth", "ratio", "message"),
    [
        (np.ones((2, 3), int), np.ones((3, 2), int), 0.02, r"prediction \(2, 3\) and truth \(3, 2\) must be alike"),
        (np.ones((2, 2)), np.ones((2, 2), int), 0.02, r"expected a prediction of shape \(H, W\).*float64"),
        (np.ones((2, 2), int), np.ones((1, 2, 2), int), 0.02, r"expected a truth of shape \(H, W\)"),
        (np.ones((2, 2), int), np.ones((2, 2), int), 0, "dilation_ratio must be above 0"),
        (np.ones((2, 2), int), np.ones((2, 2), int), float("nan"), "dilation_ratio must be above 0"),
    ],
)
def test_what_is_no_mask_is_refused(prediction: Any, truth: Any, ratio: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        boundary_iou(prediction, truth, ratio)
