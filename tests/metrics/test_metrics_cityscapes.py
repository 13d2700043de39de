"""Cityscapes' AP against a version that thresholds and matches anew for every score, and examples worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.errors import InputError
from segpipe.metrics import cityscapes_average_precision

PERSON, CAR, ROAD = 24, 26, 7
CLASSES = (24, 25, 26, 27, 28, 31, 32, 33)
VOID = {*range(-1, 7), 9, 10, 14, 15, 16, 18, 29, 30}


def mask_of(size: tuple[int, int], top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(size, dtype=np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def found(mask: np.ndarray, score: float, category: int = CAR, image: int | str = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "mask": mask, "score": score}


# ---- the slow version


def slow_precision(
    truths: list[dict[str, Any]], predictions: list[dict[str, Any]], category: int, least: float
) -> float:
    maps = {truth["image_id"]: truth["map"] for truth in truths}
    objects, regions = [], []
    for image, ids in maps.items():
        for id_ in np.unique(ids):
            if id_ == category or id_ // 1000 == category:
                region = (image, int(id_), ids == id_)
                regions.append(region)
                if id_ >= 1000 and region[2].sum() >= 100:
                    objects.append(region)
    mine = [p for p in predictions if p["category_id"] == category and p["mask"].any()]
    if not objects:
        return math.nan
    if not mine:
        return 0.0

    def covers(prediction: dict[str, Any], region: tuple[Any, int, np.ndarray]) -> bool:
        if prediction["image_id"] != region[0]:
            return False
        inside = prediction["mask"] != 0
        return bool((inside & region[2]).sum() / (inside | region[2]).sum() > least)

    def excused(prediction: dict[str, Any]) -> bool:
        inside = prediction["mask"] != 0
        share = np.isin(maps[prediction["image_id"]][inside], sorted(VOID)).sum()
        for image, id_, region in regions:
            if image == prediction["image_id"]:
                share += (inside & region).sum() * (int(id_ < 1000) + int(region.sum() < 100))
        return bool(share / inside.sum() > least)

    right = [p for p in mine if any(covers(p, o) for o in objects)]
    wrong = [p for p in mine if not any(covers(p, r) for r in regions) and not excused(p)]
    points = []
    for threshold in sorted({p["score"] for p in right + wrong}):  # what is excused is no point of the curve
        kept = [p for p in right if p["score"] >= threshold]
        hit = sum(any(covers(p, o) for p in kept) for o in objects)
        count = len(kept) + sum(p["score"] >= threshold for p in wrong)
        points.append((hit / count, hit / len(objects)))
    recall = [points[0][1] if points else 0.0, *(r for _, r in points), 0.0, 0.0]
    precision = [*(p for p, _ in points), 1.0]
    return sum(p * (recall[i] - recall[i + 2]) / 2 for i, p in enumerate(precision))


def made(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Three images of cars and persons, large, small and in groups, on road and void; and what was found of them."""
    rng = np.random.default_rng(seed)
    size = (30, 40)
    truths, predictions = [], []
    for image in range(3):
        ids = np.full(size, ROAD, dtype=np.int32)
        ids[: rng.integers(0, 12)] = rng.choice([0, 4, 29, 29000, 15])
        for number in range(rng.integers(0, 6)):
            category = int(rng.choice([PERSON, CAR, CAR]))
            place = mask_of(size, *rng.integers(0, 25, 2), *rng.integers(6, 18, 2))
            ids[place > 0] = category if rng.random() < 0.2 else category * 1000 + number
        truths.append({"image_id": image, "map": ids})
        for id_ in np.unique(ids):
            for _ in range(rng.integers(0, 3)):
                place = np.roll(ids == id_, rng.integers(-3, 4, 2) * rng.integers(0, 2), (0, 1))
                category = int(rng.choice([PERSON, CAR, ROAD])) if id_ < 1000 else int(id_) // 1000
                score = float(rng.choice([0.1, 0.5, 0.5, 0.9, rng.random()]))
                predictions.append(found((place & (rng.random(size) < 0.95)).astype(np.uint8), score, category, image))
    return truths, predictions


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30))
def test_scores_equal_the_slow_version(seed: int) -> None:
    truths, predictions = made(seed)
    scores = cityscapes_average_precision(truths, predictions)
    table = [[slow_precision(truths, predictions, c, t) for t in np.arange(0.5, 1.0, 0.05)] for c in CLASSES]
    for row, category in zip(table, CLASSES, strict=True):
        expected = {"AP": sum(row) / 10, "AP50": row[0]}
        assert scores["per_class"][category] == pytest.approx(expected, nan_ok=True, abs=1e-12)
    defined = [row for row in table if not math.isnan(row[0])]
    mean = sum(sum(row) / 10 for row in defined) / len(defined) if defined else math.nan
    mean50 = sum(row[0] for row in defined) / len(defined) if defined else math.nan
    assert (scores["AP"], scores["AP50"]) == pytest.approx((mean, mean50), nan_ok=True, abs=1e-12)


# ---- examples worked by hand: cars of 20 x 20 = 400 pixels in one image of 60 x 60

SIZE = (60, 60)
CAR_AT = {26001: (0, 0), 26002: (0, 30), 26003: (30, 0)}


def scene(*ids: int, **changes: Any) -> list[dict[str, Any]]:
    canvas = np.full(SIZE, ROAD, dtype=np.uint16)
    for id_ in ids:
        canvas[mask_of(SIZE, *CAR_AT[id_], 20, 20) > 0] = id_
    for _, (place, id_) in changes.items():
        canvas[place > 0] = id_
    return [{"image_id": 1, "map": canvas}]


def car(id_: int, width: int = 20) -> np.ndarray:
    """The car's `width` columns on the left: width / 20 of it."""
    return mask_of(SIZE, *CAR_AT[id_], 20, width)


ELSEWHERE = mask_of(SIZE, 40, 40, 10, 10)


@pytest.mark.parametrize(
    ("truths", "predictions", "ap50"),
    [
        (scene(26001), [found(car(26001), 0.9)], 1.0),
        # Precision 1 at recall 1/2, and 1 at none: the two halves of a step from 1/2 to 0.
        (scene(26001, 26002), [found(car(26001), 0.9)], 0.5),
        # Nothing found, nothing right, nothing true.
        (scene(26001), [], 0.0),
        (scene(26001), [found(ELSEWHERE, 0.9)], 0.0),
        (scene(), [found(ELSEWHERE, 0.9)], math.nan),
        # A false alarm below the right one: points (1/2, 1), (1, 1), (1, 0) give 1/2 * 0 + 1 * 1/2 + 1 * 1/2.
        (scene(26001), [found(car(26001), 0.9), found(ELSEWHERE, 0.1)], 1.0),
        # Above it: points (1/2, 1), (0, 0), (1, 0) give 1/2 * 1/2 alone.
        (scene(26001), [found(car(26001), 0.1), found(ELSEWHERE, 0.9)], 0.25),
        # Found twice: the better counts, the other is a false alarm below it.
        (scene(26001), [found(car(26001), 0.2), found(car(26001, 19), 0.9)], 1.0),
        # IoU of exactly one half is none.
        (scene(26001), [found(car(26001, 10), 0.9)], 0.0),
        (scene(26001), [found(car(26001, 11), 0.9)], 1.0),
        # On void, on a group, on a car of 99 pixels: no false alarm.
        (scene(26001, a=(ELSEWHERE, 4)), [found(car(26001), 0.1), found(ELSEWHERE, 0.9)], 1.0),
        (scene(26001, a=(ELSEWHERE, 26)), [found(car(26001), 0.1), found(ELSEWHERE, 0.9)], 1.0),
        (scene(26001, a=(mask_of(SIZE, 40, 40, 9, 11), 26009)), [found(car(26001), 0.1), found(ELSEWHERE, 0.9)], 1.0),
        # A car of 100 is to be found.
        (scene(26001, a=(ELSEWHERE, 26009)), [found(car(26001), 0.9)], 0.5),
        # Half on void is too little, as is a group of another class.
        (scene(26001, a=(mask_of(SIZE, 40, 40, 5, 10), 4)), [found(car(26001), 0.1), found(ELSEWHERE, 0.9)], 0.25),
        (scene(26001, a=(ELSEWHERE, 24)), [found(car(26001), 0.1), found(ELSEWHERE, 0.9)], 0.25),
        # Caravans excuse as a group (29), and not one by one, as in the script.
        (scene(26001, a=(ELSEWHERE, 29)), [found(car(26001), 0.1), found(ELSEWHERE, 0.9)], 1.0),
        (scene(26001, a=(ELSEWHERE, 29000)), [found(car(26001), 0.1), found(ELSEWHERE, 0.9)], 0.25),
        # What is all excused leaves no point at all (there the script ends with an IndexError).
        (scene(26001, a=(ELSEWHERE, 4)), [found(ELSEWHERE, 0.9)], 0.0),
        # Equal scores are one threshold: points (1/2, 1), (1, 0).
        (scene(26001), [found(car(26001), 0.5), found(ELSEWHERE, 0.5)], 0.5 * 0.5 + 0.5),
        # An empty mask is none, and another class's does not count.
        (scene(26001), [found(car(26001), 0.1), found(ELSEWHERE * 0, 0.9), found(ELSEWHERE, 0.9, ROAD)], 1.0),
    ],
)
def test_each_rule_on_one_image(truths: Any, predictions: Any, ap50: float) -> None:
    scores = cityscapes_average_precision(truths, predictions)
    assert scores["AP50"] == pytest.approx(ap50, nan_ok=True)
    assert scores["per_class"][CAR]["AP50"] == pytest.approx(ap50, nan_ok=True)
    assert slow_precision(truths, predictions, CAR, 0.5) == pytest.approx(ap50, nan_ok=True)
    assert math.isnan(scores["per_class"][PERSON]["AP"])


def test_ap_is_the_mean_over_ten_overlaps() -> None:
    """IoU 16/20 exceeds 0.5 to 0.75, and 0.8, which is 0.8000000000000002 in the script's list, is not reached."""
    scores = cityscapes_average_precision(scene(26001), [found(car(26001, 16), 0.9)])
    assert scores["AP"] == pytest.approx(0.6)
    assert scores["AP50"] == 1.0


def test_torch_counts_as_numpy() -> None:
    truths, predictions = made(5)
    expected = cityscapes_average_precision(truths, predictions)
    as_torch = cityscapes_average_precision(
        [truth | {"map": torch.from_numpy(truth["map"])} for truth in truths],
        [each | {"mask": torch.from_numpy(each["mask"]).bool()} for each in predictions],
    )
    assert repr(as_torch) == repr(expected)


GOOD = found(car(26001), 0.9)


@pytest.mark.parametrize(
    ("truths", "prediction", "message"),
    [
        (scene(26001) * 2, GOOD, "image 1: has two truths"),
        ([{"map": np.ones((2, 2), int)}], GOOD, "image None: expected a whole number or a text"),
        ([{"image_id": 1}], GOOD, r"image 1: expected a map of shape \(H, W\) in integers"),
        (scene(), GOOD | {"image_id": 2}, "image 2: has a prediction and no truth"),
        (scene(), GOOD | {"image_id": [1]}, r"image \[1\]: has a prediction and no truth"),
        (scene(), GOOD | {"category_id": 34}, "category_id 34; expected a Cityscapes label id"),
        (scene(), GOOD | {"category_id": "car"}, "category_id 'car'"),
        (scene(), GOOD | {"score": math.nan}, "score nan; expected a finite number"),
        (scene(), GOOD | {"score": None}, "score None"),
        (scene(), GOOD | {"mask": np.ones((3, 3), int)}, r"the map is \(60, 60\), a predicted mask \(3, 3\)"),
        (scene(), GOOD | {"mask": np.ones(SIZE)}, "expected a mask of shape .* float64"),
    ],
)
def test_bad_input_names_the_image(truths: Any, prediction: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cityscapes_average_precision(truths, [prediction])
