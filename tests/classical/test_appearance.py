"""What is counted of a training split, against a slow count; and the scores that follow from it, by hand."""

import math

import numpy as np
import pytest

from segpipe.classical.appearance import (
    CELLS,
    COLOURS,
    PLACES,
    SIDES,
    Appearance,
    colours_of,
    count,
    lab_of,
    pixel_scores,
    places_of,
)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_colours_are_those_of_lindblooms_tables() -> None:
    """L*a*b* of the sRGB primaries under D65, as colour science prints them."""
    primaries_13 = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    expected = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [100, 0, 0]]
    np.testing.assert_allclose(lab_of(primaries_13)[0], expected, atol=0.05)


def test_boxes_of_colours_are_of_equal_size_and_the_outermost_have_what_lies_beyond() -> None:
    lab_HW3 = np.array([[[0, -64, -64], [99.9, 63.9, 63.9], [6.24, -56.1, 7.9], [6.26, -55.9, 8.1], [100, 90, -108]]])
    found = np.unravel_index(colours_of(lab_HW3)[0], (SIDES,) * 3)
    assert np.stack(found, axis=1).tolist() == [[0, 0, 0], [15, 15, 15], [0, 0, 8], [1, 1, 9], [15, 15, 0]]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (16, 16), (33, 47)])
def test_counts_are_those_of_a_slow_count(height: int, width: int) -> None:
    image_HW3, num_classes = noise(height, width), 3
    labels_HW = np.random.default_rng(1).choice([0, 1, 2, 7, 255], (height, width)).astype(np.uint8)
    colours_KB, places_KP = np.zeros((3, COLOURS), int), np.zeros((3, PLACES), int)
    lab_HW3 = lab_of(image_HW3)
    for y in range(height):
        for x in range(width):
            if labels_HW[y, x] < num_classes:
                L, a, b = lab_HW3[y, x]
                steps = [int(L / 6.25), int((a + 64) // 8), int((b + 64) // 8)]
                L_step, a_step, b_step = (min(max(step, 0), 15) for step in steps)
                colours_KB[labels_HW[y, x], L_step * 256 + a_step * 16 + b_step] += 1
                places_KP[labels_HW[y, x], (y * 16 // height) * 16 + x * 16 // width] += 1
    found = count(image_HW3, labels_HW, num_classes)
    assert np.array_equal(found.colours_KB, colours_KB)
    assert np.array_equal(found.places_KP, places_KP)
    assert found.colours_KB.dtype == found.places_KP.dtype == np.int64


def test_scores_are_naive_bayes_with_laplaces_rule() -> None:
    """Of an image of 16 x 16 pixels the middles of pixels are those of cells, so nothing is interpolated."""
    image_HW3, labels_HW = noise(CELLS, CELLS), np.random.default_rng(2).integers(0, 2, (CELLS, CELLS))
    known = count(image_HW3, labels_HW, 2)
    colours_HW, places_HW, found_KHW = (
        colours_of(lab_of(image_HW3)),
        places_of(CELLS, CELLS),
        pixel_scores(image_HW3, known),
    )
    assert found_KHW.dtype == np.float32
    for k in range(2):
        own = int((labels_HW == k).sum())
        for y, x in ((0, 0), (3, 9), (15, 15)):
            of_colour = known.colours_KB[k, colours_HW[y, x]] + 1
            of_place = known.places_KP[k, places_HW[y, x]] + 1
            assert of_place == (labels_HW[y, x] == k) + 1
            score = (own + 1) / (256 + 2) * of_colour / (own + COLOURS) * of_place / (own + PLACES)
            assert found_KHW[k, y, x] == pytest.approx(math.log(score), rel=1e-6)


def test_between_the_middles_of_cells_the_place_is_interpolated() -> None:
    """One class lies in the last column of cells alone: its score rises from that of an empty cell to that of its own,
    and beyond the last middle it stays."""
    places_KP = np.zeros((1, PLACES), dtype=np.int64)
    places_KP[0, CELLS - 1 :: CELLS] = 1000
    known = Appearance(colours_KB=np.zeros((1, COLOURS), dtype=np.int64), places_KP=places_KP)
    row_W = pixel_scores(np.zeros((CELLS, CELLS * 4, 3), dtype=np.uint8), known)[0, 0].astype(float)
    low, high = row_W[0], row_W[-1]
    assert high - low == pytest.approx(math.log(1001), rel=1e-5)
    shares = [0.125, 0.375, 0.625, 0.875, 1, 1]  # of the way between the last two middles, at 57.5 and 61.5
    np.testing.assert_allclose((row_W[-6:] - low) / (high - low), shares, rtol=1e-5)
    assert row_W[: 4 * (CELLS - 1) - 2] == pytest.approx(low)


def test_who_has_counted_nothing_prefers_nothing() -> None:
    nothing = Appearance(colours_KB=np.zeros((3, COLOURS), np.int64), places_KP=np.zeros((3, PLACES), np.int64))
    scores_KHW = pixel_scores(noise(7, 9), nothing)
    assert np.isfinite(scores_KHW).all()
    assert (scores_KHW == scores_KHW[0, 0, 0]).all()
