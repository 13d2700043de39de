"""Drift: counts that add up, an alarm that few images do not raise by chance, and real shifts that are found."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import distance as scipy_distance

from segpipe import drift, masks
from segpipe.drift import UNSURE, Levels
from segpipe.predictions import LEVELS, Detections, LabelMap, PanopticMap, Poses
from segpipe.types import ClassInfo, Segment

CLASSES = tuple(ClassInfo(name=name, colour=(0, 0, 0)) for name in ("road", "car"))


def street(generator: np.random.Generator, *, darker: float = 0.0, wider: int = 0) -> Levels:
    """What an image of a drawn crowd of them counts as; `darker` in standard deviations of brightness."""
    road = float(generator.beta(2, 3))
    return {
        "brightness": int(generator.normal(130 - 25 * darker, 25)),
        "contrast": int(generator.normal(50, 8)),
        "warmth": int(generator.normal(0, 6)),
        "width": int(generator.choice([480, 640])) + wider,
        UNSURE: int(generator.gamma(4, 20)),
        "share of road": int(1000 * road),
        "share of car": int(1000 * (1 - road) * (generator.random() < 0.4)),
    }


def streets(number: int, *, seed: int, **shifted: Any) -> list[Levels]:
    generator = np.random.default_rng(seed)
    return [street(generator, **shifted) for _ in range(number)]


def moved(before: list[Levels], now: list[Levels], **options: float) -> list[str]:
    shifts = drift.compare(drift.counted(before), drift.counted(now), **options)
    return [shift.statistic for shift in shifts if shift.has_moved]


def test_an_image_s_look_in_whole_numbers() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    pixels[..., 2] //= 2
    levels = drift.of_look(masks.look_at(Image.fromarray(pixels)))
    red, green, blue = (float(pixels[..., c].mean()) for c in range(3))
    assert levels == {
        "brightness": int(pixels.mean()),
        "contrast": int(np.sqrt(np.mean([pixels[..., c].var() for c in range(3)]))),
        "warmth": int(np.floor(red - blue)),
        "tint": int(np.floor(green - (red + blue) / 2)),
        "width": 60,
        "height": 40,
    }


def test_what_a_model_says_in_whole_numbers() -> None:
    ids_HW = np.zeros((10, 150), dtype=np.uint8)
    ids_HW[0, 0] = 1
    assert drift.of_prediction(LabelMap(ids_HW=ids_HW), CLASSES) == {"share of road": 1000, "share of car": 1}
    levels_KP = np.full((2, 8), LEVELS // 2, dtype=np.uint8)  # logits just above 0: a half
    said = drift.of_prediction(LabelMap(ids_HW=ids_HW, levels_KP=levels_KP), CLASSES)
    assert said[UNSURE] == pytest.approx(500, abs=10)
    segments = (Segment(segment_id=3, class_id=1, area=750.0),)
    panoptic = PanopticMap(ids_HW=np.zeros((10, 150), dtype=np.int32), segments=segments)
    assert drift.of_prediction(panoptic, CLASSES) == {"share of road": 0, "share of car": 500}
    boxes_N4 = np.zeros((3, 4))
    found = Detections(
        size=(10, 10), class_ids_N=np.array([1, 1, 0]), scores_N=np.array([0.9, 0.7, 0.2]), boxes_N4=boxes_N4
    )
    assert drift.of_prediction(found, CLASSES) == {"number of road": 0, "number of car": 2, UNSURE: 200}
    nothing = Detections(size=(10, 10), class_ids_N=np.zeros(0, int), scores_N=np.zeros(0), boxes_N4=np.zeros((0, 4)))
    assert drift.of_prediction(nothing, CLASSES)[UNSURE] == 0
    points_NP3 = np.full((3, 2, 3), 0.75)
    poses = Poses(
        size=(9, 9), class_ids_N=np.zeros(3, int), scores_N=np.ones(3), boxes_N4=boxes_N4, points_NP3=points_NP3
    )
    assert drift.of_prediction(poses, CLASSES) == {UNSURE: 250}


def test_counts_are_the_same_for_any_order_and_levels_survive_their_columns() -> None:
    images = streets(50, seed=0)
    shuffled = random.Random(0).sample(images, len(images))
    assert list(drift.counted(images).items()) == list(drift.counted(shuffled).items())
    assert list(drift.in_rows(drift.in_columns(images))) == images
    assert list(drift.in_rows(drift.in_columns([]))) == []


def test_the_distance_is_scipy_s() -> None:
    sides_2B = np.random.default_rng(0).integers(0, 9, (20, 2, 6)) + np.eye(2, 6, dtype=int)
    expected = [scipy_distance.jensenshannon(*pair, base=2) for pair in sides_2B]
    np.testing.assert_allclose(drift.distance(sides_2B), expected, atol=1e-12)
    assert drift.distance(np.array([[3, 0], [0, 7]])) == 1


def test_images_of_one_kind_raise_an_alarm_in_a_hundredth_of_the_calls_at_most() -> None:
    """Whole calls, all statistics together, of few images and of many: 150 of them, where 0.01 allows 1.5. More than 5
    would come of a true rate of 0.01 in less than one case of two hundred."""
    alarms = []
    for number, (size, asked) in enumerate([(40, 5), (300, 12), (200, 60)] * 50):
        crowd = streets(size + asked, seed=number)
        alarms.append(bool(moved(crowd[:size], crowd[size:], threshold=0.01)))
    assert sum(alarms) <= 5


@pytest.mark.parametrize(("size", "darker"), [(12, 4.0), (30, 2.0), (100, 1.2), (1000, 0.7)])
def test_a_real_shift_is_found_and_nothing_else_is(size: int, darker: float) -> None:
    found = [moved(streets(300, seed=seed), streets(size, seed=100 + seed, darker=darker)) for seed in range(5)]
    assert found == [["brightness"]] * 5


def test_a_shift_too_small_to_matter_is_none_however_sure_it_is() -> None:
    before, now = streets(4000, seed=0), streets(4000, seed=1, darker=0.25)
    assert moved(before, now) == []
    assert moved(before, now, threshold=0.05) == ["brightness"]


def test_sizes_that_were_never_seen_are_told_from_what_to_what() -> None:
    before, now = drift.counted(streets(100, seed=0)), drift.counted(streets(40, seed=1, wider=1000))
    (first, *others) = drift.compare(before, now)
    assert (first.statistic, first.has_moved, first.distance) == ("width", True, 1.0)
    assert (first.images_before, first.images, first.chance < 0.01) == (100, 40, True)
    assert first.sentence == "width went from 640 pixels (480 to 640) to 1480 pixels (1480 to 1640), distance 1.00"
    assert not any(shift.has_moved for shift in others)
    assert drift.compare(before, now) == drift.compare(before, now)


def test_a_spread_that_is_another_one_is_told_as_that() -> None:
    wide = drift.counted({"warmth": level} for level in range(-50, 51))
    narrow = drift.counted({"warmth": level // 10} for level in range(-50, 51))
    (found,) = drift.compare(wide, narrow)
    assert found.has_moved
    assert found.sentence.startswith("warmth is spread otherwise, from 0 % (-15.7 to 15.7) to 0 % (-1.57 to 1.57), ")


def test_a_model_that_is_surer_than_it_was_has_not_drifted() -> None:
    def unsure(levels: range) -> dict[str, dict[str, int]]:
        return drift.counted([{UNSURE: level} for level in levels])

    low, high = unsure(range(50)), unsure(range(100, 150))
    assert drift.compare(low, high)[0].has_moved
    (fallen,) = drift.compare(high, low)
    assert (fallen.has_moved, fallen.distance) == (False, 1.0)


def test_what_only_one_side_knows_is_not_compared() -> None:
    assert drift.compare(drift.counted([{"width": 1}] * 9), drift.counted([{UNSURE: 1}] * 9)) == ()
    assert drift.compare({}, {}) == ()


def test_the_images_to_label_are_those_that_are_least_like_before() -> None:
    before = drift.counted({"brightness": 100 + n % 40, UNSURE: 50} for n in range(200))
    images = [(f"day{n}", {"brightness": 110 + n, UNSURE: 50}) for n in range(20)]
    images += [(f"night{n}", {"brightness": 10, UNSURE: 100 + n}) for n in range(20)]
    now = drift.counted(levels for _, levels in images)
    named = [shift.statistic for shift in drift.compare(before, now) if shift.has_moved]
    assert named[0] == "brightness"
    assert drift.most_unlike(images, before, now, named, at_most=3) == ("night19", "night18", "night17")
