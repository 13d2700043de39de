"""The thresholds of each class are the best there are: every box is tried, slowly, on a coarser grid of colours."""

import itertools

import numpy as np
import pytest

from segpipe.classical import colour_thresholds
from segpipe.classical.appearance import COLOURS, PLACES, SIDES, Appearance, colours_of, count, lab_of
from segpipe.classical.colour_thresholds import scores_of_colours, segment, sums_of_boxes, thresholds


@pytest.mark.parametrize("seed", range(4))
def test_the_box_of_a_class_has_the_best_iou_of_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 4
    monkeypatch.setattr(colour_thresholds, "SIDES", side)
    rng = np.random.default_rng(seed)
    own_B = rng.poisson(0.4, side**3) * 10
    all_B = own_B + rng.poisson(3.0, side**3)
    own_sss, all_sss = own_B.reshape((side,) * 3), all_B.reshape((side,) * 3)
    intervals = list(itertools.combinations(range(side + 1), 2))
    best = 0.0
    for box in itertools.product(intervals, repeat=3):
        cut = tuple(slice(*interval) for interval in box)
        hit = own_sss[cut].sum()
        best = max(best, hit / (own_B.sum() + all_sss[cut].sum() - hit))
    found = tuple(slice(*interval) for interval in thresholds(own_B, sums_of_boxes(all_B)).tolist())
    hit = own_sss[found].sum()
    assert hit / (own_B.sum() + all_sss[found].sum() - hit) == best > 0


def test_within_the_thresholds_of_several_the_one_that_is_right_more_often_wins() -> None:
    """Class 0 has all greys between 20 and 80, class 1 most of those between 40 and 60 and class 2 nothing."""
    colours_KB = np.zeros((3, COLOURS), np.int64)
    greys = [level * 256 + 8 * 16 + 8 for level in range(SIDES)]
    colours_KB[0, greys[3:12]] = 100
    colours_KB[0, greys[6:9]] = 10
    colours_KB[1, greys[6:9]] = 90
    known = Appearance(colours_KB=colours_KB, places_KP=np.zeros((3, PLACES), np.int64))
    assert thresholds(colours_KB[1], sums_of_boxes(colours_KB.sum(axis=0))).tolist() == [[6, 9], [8, 9], [8, 9]]
    assert thresholds(colours_KB[0], sums_of_boxes(colours_KB.sum(axis=0))).tolist() == [[3, 12], [8, 9], [8, 9]]
    assert thresholds(colours_KB[2], sums_of_boxes(colours_KB.sum(axis=0))).tolist() == [[0, 1], [0, 1], [0, 1]]
    scores_KB = scores_of_colours(known)
    assert np.exp(scores_KB[1, greys[7]]) == pytest.approx(271 / 303)
    assert scores_KB[:2].argmax(axis=0)[greys].tolist() == [0] * 6 + [1] * 3 + [0] * 7
    steps = np.diff(scores_KB[0, greys[11:]])
    assert steps == pytest.approx([-31, -1, -1, -1]), "each step away from the box is worse"


def test_two_flat_colours_are_told_apart() -> None:
    labels_HW = (np.arange(30) // 10 + np.zeros((20, 1))).astype(np.int64)
    image_HW3 = np.array([[200, 40, 40], [40, 200, 40], [250, 250, 250]], np.uint8)[labels_HW]
    known = count(image_HW3, labels_HW, 3)
    scores_KHW = segment(image_HW3, known)
    assert scores_KHW.dtype == np.float32
    assert np.array_equal(scores_KHW.argmax(axis=0), labels_HW)
    assert len(np.unique(colours_of(lab_of(image_HW3)))) == 3
    near_HW3 = np.array([[[190, 60, 50], [60, 180, 60], [230, 230, 230]]], np.uint8)
    assert segment(near_HW3, known).argmax(axis=0).tolist() == [[0, 1, 2]], "the nearest, where none fits"
