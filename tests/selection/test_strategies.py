"""segpipe/selection/strategies.py: what the scores of an image are, beside what one counts by hand."""

import math

import numpy as np
import pytest

from segpipe.predictions import LEVELS, grid, level_probabilities
from segpipe.selection import COMMITTEE, UNCERTAINTY, disagreement, uncertainty
from segpipe.selection.strategies import worst_patch


def levels_of(probabilities_K: list[float], pixels: int) -> np.ndarray:
    """The levels of the same probabilities at every pixel."""
    each = np.abs(level_probabilities()[:, None] - np.array(probabilities_K)).argmin(axis=0)
    return np.tile(each[:, None], (1, pixels)).astype(np.uint8)


@pytest.mark.parametrize("probabilities", [[0.5, 0.3, 0.2], [0.9, 0.08, 0.02], [0.4, 0.4, 0.2], [0.99, 0.005, 0.005]])
def test_scores_are_those_of_the_survey(probabilities: list[float]) -> None:
    found = uncertainty(levels_of(probabilities, 16 * 24), 16, 24)
    expected = {
        "entropy": -sum(p * math.log(p) for p in probabilities) / math.log(3),
        "margin": 1 - (probabilities[0] - probabilities[1]),
        "least-confidence": (1 - probabilities[0]) * 3 / 2,
    }
    assert list(found) == list(UNCERTAINTY)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.02)


def test_the_ends_are_nought_and_one() -> None:
    sure = np.zeros((3, 100), np.uint8)
    sure[1] = LEVELS - 1
    assert set(uncertainty(sure, 10, 10).values()) == {0.0}
    assert list(uncertainty(np.full((3, 100), 90, np.uint8), 10, 10).values()) == pytest.approx([1, 1, 1])


def test_a_hundred_impossible_classes_add_nothing() -> None:
    few, many = levels_of([0.8, 0.2], 64), np.zeros((150, 64), np.uint8)
    many[:2] = few
    assert uncertainty(many, 8, 8)["margin"] == pytest.approx(uncertainty(few, 8, 8)["margin"])


@pytest.mark.parametrize("levels", [np.zeros((3, 64), np.uint8), np.full((1, 64), 200, np.uint8)])
def test_what_is_no_probability_is_refused(levels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected two, and 1"):
        uncertainty(levels, 8, 8)


def test_a_region_that_is_not_known_counts_more_than_long_borders() -> None:
    """The same doubt in all: as the outlines of a fence, and in one place."""
    size = (64, 64)
    fence = np.zeros(size)
    fence[:, ::8] = 1
    blob = np.zeros(size)
    blob[20:28, 20:28] = 1
    assert fence.mean() > 5 * blob.mean()
    assert worst_patch(blob) == 1 > worst_patch(fence) == pytest.approx(1 / 8)


def test_the_worst_patch_is_found_as_one_would() -> None:
    scores = np.random.default_rng(3).random((33, 41))
    h, w = 4, 5
    expected = max(scores[y : y + h, x : x + w].mean() for y in range(33 - h + 1) for x in range(41 - w + 1))
    assert worst_patch(scores) == pytest.approx(expected)
    assert worst_patch(np.array([[0.25]])) == 0.25


def test_levels_lie_as_the_grid_has_them() -> None:
    rows, columns = grid(300, 200)
    levels = np.zeros((2, rows.size, columns.size), np.uint8)
    levels[0] = LEVELS - 1
    levels[:, :12, :12] = 128  # an unsure corner
    found = uncertainty(levels.reshape(2, -1), 300, 200)
    assert found["entropy"] == pytest.approx(1, abs=0.01)


def test_votes() -> None:
    one = np.zeros((16, 16), np.uint8)
    other = one.copy()
    other[:, 8:] = 1
    for strategy in COMMITTEE:
        assert disagreement(strategy, [one, one]) == 0
    assert disagreement("vote-entropy", [one, other]) == pytest.approx(1)
    assert disagreement("vote-entropy", [one, one, other]) == pytest.approx(
        -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(3)
    )
    # Of class 0 half is common, of class 1 nothing.
    assert disagreement("pairwise-miou", [one, other]) == pytest.approx(1 - (0.5 + 0) / 2)
    assert disagreement("pairwise-miou", [one, one, other]) == pytest.approx(2 / 3 * (1 - 0.25))
