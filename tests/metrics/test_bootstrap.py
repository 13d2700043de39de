"""The bootstrap of dataset mIoU against a gather loop with the same draws, and its coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.errors import InputError
from segpipe.metrics import (
    bootstrap,
    confusion_matrix,
    dataset_miou,
    dataset_pq,
    interval,
    resampling_unit,
    semantic_scores,
)


def random_counts(images: int, classes: int, seed: int) -> np.ndarray:
    """(n, K, 3) with intersections that fit, and classes that most images lack."""
    generator = np.random.default_rng(seed)
    sides = generator.integers(0, 50, (images, classes, 2)) * (generator.random((images, classes, 1)) < 0.4)
    intersection = np.floor(sides.min(axis=-1) * generator.random((images, classes))).astype(np.int64)
    return np.concatenate((intersection[..., None], sides), axis=-1)


def slow_miou(sums: np.ndarray) -> float:
    values = [i / (t + p - i) for i, t, p in sums.tolist() if t + p - i > 0]
    return sum(values) / len(values) if values else float("nan")


def slow_interval(
    counts: np.ndarray, groups: list[int], resamples: int, seed: int, level: float
) -> tuple[float, float]:
    names = list(dict.fromkeys(groups))
    draws = bootstrap.draw(len(names), resamples, np.random.default_rng(seed))
    values = []
    for draw in draws.tolist():
        total = np.zeros(counts.shape[1:], dtype=np.int64)
        for drawn in draw:
            for image, group in zip(counts, groups, strict=True):
                if group == names[drawn]:
                    total += image
        values.append(slow_miou(total))
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 10_000), st.booleans(), st.sampled_from([0.5, 0.95]))
def test_the_matrix_product_equals_gathering(images: int, classes: int, seed: int, grouped: bool, level: float) -> None:
    counts = random_counts(images, classes, seed)
    groups = [image // 2 for image in range(images)] if grouped else list(range(images))
    found = interval(counts, groups=groups if grouped else None, resamples=30, seed=seed, level=level)
    assert found == pytest.approx(slow_interval(counts, groups, 30, seed, level), nan_ok=True, abs=1e-12)


def test_blocks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = random_counts(20, 3, 1)
    whole = interval(counts, resamples=101)
    monkeypatch.setattr(bootstrap, "BLOCK_CELLS", 20 * 7)
    assert interval(counts, resamples=101) == whole


def test_the_interval_is_a_function_of_the_seed() -> None:
    counts = random_counts(30, 3, 2)
    assert interval(counts, seed=4) == interval(counts, seed=4)
    assert interval(counts, seed=4) != interval(counts, seed=5)


def test_the_interval_holds_the_estimate_and_widens_with_the_level() -> None:
    counts = random_counts(60, 4, 3)
    estimate = slow_miou(counts.sum(axis=0))
    narrow, wide = interval(counts, level=0.5), interval(counts, level=0.99)
    assert wide[0] < narrow[0] < estimate < narrow[1] < wide[1]


def test_images_of_one_group_are_drawn_together() -> None:
    # Ten drives of ten like images: by image the spread looks small, by drive it is what ten draws can show.
    drives = random_counts(10, 2, 4)
    images, groups = np.repeat(drives, 10, axis=0), [f"drive{index // 10}" for index in range(100)]
    low, high = interval(images, groups=groups)
    assert (low, high) == pytest.approx(interval(drives), abs=1e-12)
    alone = interval(images)
    assert alone[1] - alone[0] < 0.6 * (high - low)


def test_coverage_is_near_the_level() -> None:
    """200 splits of 60 images, drawn from a known population: the truth lies in the 90 % interval about as often."""
    generator = np.random.default_rng(0)
    size, accuracy = 100, (0.9, 0.6)
    # Each image holds both classes half and half; its own accuracy scatters. Truth: the mean counts' IoU.
    covered = 0
    for split in range(200):
        right = generator.binomial(size, np.clip(generator.normal(accuracy, 0.1, (60, 2)), 0, 1))
        truth = np.full_like(right, size)
        predicted = right + (size - right)[:, ::-1]
        counts = np.stack((right, truth, predicted), axis=-1)
        low, high = interval(counts, resamples=200, seed=split, level=0.9)
        expected = np.array([[90, 100, 90 + 40], [60, 100, 60 + 10]])
        covered += low <= slow_miou(expected) <= high
    assert 0.82 <= covered / 200 <= 0.97


def test_a_handful_of_groups_is_not_resampled() -> None:
    assert resampling_unit([f"drive{i % 2}" for i in range(50)]) == "images"
    assert resampling_unit([f"drive{i % 10}" for i in range(50)]) == "groups"
    assert resampling_unit(["only"]) == "images"


def test_one_image_has_a_point_for_an_interval_and_no_pixels_have_none() -> None:
    counts = np.array([[[2, 3, 3], [0, 0, 0]]])
    assert interval(counts) == (0.5, 0.5)
    assert all(math.isnan(bound) for bound in interval(np.zeros((4, 2, 3), dtype=np.int64)))


def test_a_class_that_a_resample_lacks_drops_out_of_its_mean() -> None:
    # Class 1 is wrong and lives in one image of two: resamples hold mIoU 1 (without it), 1/2 or 0.
    counts = np.array([[[4, 4, 4], [0, 0, 0]], [[0, 0, 0], [0, 4, 0]]])
    assert interval(counts, level=0.9) == (0.0, 1.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_dataset_miou_is_semantic_scores_miou(seed: int) -> None:
    generator = np.random.default_rng(seed)
    table = confusion_matrix(generator.integers(0, 4, 9), generator.integers(0, 5, 9), 5)
    sums = np.stack((np.diagonal(table), table.sum(axis=1), table.sum(axis=0)), axis=1)
    assert dataset_miou(sums) == pytest.approx(semantic_scores(table)["miou"])
    assert dataset_miou(np.stack((sums, sums))).shape == (2,)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        (np.zeros((0, 2, 3), dtype=np.int64), {}, r"found \(0, 2, 3\) int64"),
        (np.zeros((4, 2), dtype=np.int64), {}, r"expected counts of shape \(images >= 1, K, 3\)"),
        (np.zeros((4, 2, 3)), {}, r"in integers, found \(4, 2, 3\) float64"),
        (np.zeros((4, 2, 3), dtype=np.int64), {"groups": ["a"]}, r"1 groups for 4 images; expected one per image"),
        (np.zeros((4, 2, 3), dtype=np.int64), {"resamples": 0}, r"found 0 and 0\.95"),
        (np.zeros((4, 2, 3), dtype=np.int64), {"level": 95}, r"found 1000 and 95"),
    ],
)
def test_wrong_use_is_named(counts: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        interval(counts, **options)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_any_statistic_of_sums_has_an_interval(images: int, classes: int, seed: int) -> None:
    """Panoptic quality, whose first count is no whole number, against a loop over the same draws."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 3, (images, classes, 4)).astype(float)
    counts[..., 0] = counts[..., 1] * random.uniform(0.5, 1.0, (images, classes))
    found = interval(counts, statistic=dataset_pq, resamples=40, seed=seed)
    values = []
    for drawn in bootstrap.draw(images, 40, np.random.default_rng(seed)).tolist():
        total = sum(counts[image] for image in drawn)
        scores = [i / (t + p / 2 + n / 2) for i, t, p, n in total.tolist() if t + p + n > 0]
        values += [sum(scores) / len(scores)] if scores else []
    expected = np.quantile(values, [0.025, 0.975]) if values else [math.nan, math.nan]
    assert found == pytest.approx(tuple(expected), nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("counts", [np.full((2, 1, 4), np.nan), np.zeros((2, 4)), np.zeros((0, 1, 4))])
def test_counts_of_a_statistic_are_finite_and_of_images(counts: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected counts of shape \(images >= 1, K, C\) in finite numbers, found"):
        interval(counts, statistic=dataset_pq)
