"""The paired bootstrap against scipy's, against loops over the same draws, and on models whose difference is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from segpipe.errors import InputError
from segpipe.metrics import ApEvidence, bootstrap, dataset_miou, paired_bootstrap, paired_bootstrap_ap, resampled_ap

PIXELS = 1000


def counted(right_nK: np.ndarray) -> np.ndarray:
    """(n, 2, 3) of images half of either class, of which so many pixels were named rightly."""
    truth = np.full_like(right_nK, PIXELS)
    return np.stack((right_nK, truth, right_nK + (PIXELS - right_nK)[:, ::-1]), axis=-1)


def two_models(
    images: int, generator: np.random.Generator, *, better: float = 0.0, own: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    """Two models on images that are easy or hard for both, and a little for each alone."""
    ease_n1 = generator.normal(0.75, 0.12, (images, 1))
    sides = []
    for shift in (0.0, better):
        share_n2 = np.clip(ease_n1 + shift + generator.normal(0, own, (images, 2)), 0, 1)
        sides.append(counted(generator.binomial(PIXELS, share_n2)))
    return sides[0], sides[1]


def test_it_is_scipys_paired_percentile_interval() -> None:
    """`scipy.stats.bootstrap`, which draws otherwise: equal up to what 10,000 draws leave open."""
    champion, challenger = two_models(80, np.random.default_rng(0), better=0.01)

    def difference(places: np.ndarray, axis: int) -> np.ndarray:
        drawn = np.moveaxis(places, axis, -1).astype(int)
        ours, theirs = (dataset_miou(side[drawn].sum(axis=-3)) for side in (challenger, champion))
        return ours - theirs

    reference = stats.bootstrap(
        (np.arange(80),), difference, n_resamples=10_000, method="percentile", batch=500, rng=np.random.default_rng(1)
    ).confidence_interval
    found = paired_bootstrap(champion, challenger)
    width = reference.high - reference.low
    assert found["low"] == pytest.approx(reference.low, abs=0.05 * width)
    assert found["high"] == pytest.approx(reference.high, abs=0.05 * width)
    assert found["delta"] == pytest.approx(difference(np.arange(80)[None], -1)[0])


def test_it_is_a_loop_over_the_draws_of_whole_groups() -> None:
    champion, challenger = two_models(12, np.random.default_rng(3), better=0.02)
    groups = [f"drive{image // 3}" for image in range(12)]
    values = []
    for drawn in bootstrap.draw(4, 50, np.random.default_rng(7)):
        images = np.concatenate([np.arange(3) + 3 * group for group in drawn])
        values.append(float(dataset_miou(challenger[images].sum(0)) - dataset_miou(champion[images].sum(0))))
    found = paired_bootstrap(champion, challenger, resamples=50, seed=7, groups=groups)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)
    assert found["p"] == (sum(value <= 0 for value in values) + 1) / 51


def test_what_is_hard_for_both_models_cancels_out() -> None:
    champion, challenger = two_models(100, np.random.default_rng(5), better=0.02)
    found = paired_bootstrap(champion, challenger, resamples=2000)
    low, high = bootstrap.interval(champion, resamples=2000)
    assert found["high"] - found["low"] < 0.4 * (high - low)
    assert found["low"] > 0
    assert found["p"] < 0.01


def test_a_model_against_itself_is_no_better() -> None:
    champion, _ = two_models(20, np.random.default_rng(6))
    assert paired_bootstrap(champion, champion) == {"delta": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_equal_models_pass_by_luck_about_as_often_as_the_level_says() -> None:
    """A lower bound above 0 at 95 % two-sided is luck in about one of 40 nights; and a better model mostly passes."""
    generator = np.random.default_rng(8)
    lucky = sum(paired_bootstrap(*two_models(60, generator), resamples=200)["low"] > 0 for _ in range(300))
    truly = sum(paired_bootstrap(*two_models(60, generator, better=0.02), resamples=200)["low"] > 0 for _ in range(50))
    assert lucky / 300 <= 0.055
    assert truly / 50 >= 0.85


def test_a_difference_that_is_not_defined_has_no_bounds() -> None:
    nothing = np.zeros((3, 2, 3), dtype=np.int64)
    assert all(math.isnan(value) for value in paired_bootstrap(nothing, nothing, resamples=10).values())


def evidence(found: float, seed: int) -> ApEvidence:
    """Of 40 images with three objects each, what a model that finds this share of them leaves, mistakes among it."""
    draw = np.random.default_rng(seed)
    images_D, hits_D = np.repeat(np.arange(40), 5), draw.random(200) < found
    hits_D[4::5] = hits_D[3::5] = False  # at most three objects an image
    return ApEvidence(
        images_D=images_D,
        classes_D=np.zeros(200, np.int64),
        scores_D=np.where(hits_D, draw.uniform(0.3, 1, 200), draw.uniform(0, 0.7, 200)),
        matched_D=np.where(hits_D, 0b11111, 0).astype(np.uint16),
        ignored_D=np.zeros(200, np.uint16),
        truths_nK=np.full((40, 1), 3),
    )


def test_average_precision_is_paired_by_the_same_draws() -> None:
    champion, challenger = evidence(0.6, 0), evidence(0.75, 1)
    values = []
    for drawn in bootstrap.draw(40, 60, np.random.default_rng(2)):
        weights = np.bincount(drawn, minlength=40)[None]
        ours, theirs = (resampled_ap(side, weights).mean() for side in (challenger, champion))
        values.append(ours - theirs)
    found = paired_bootstrap_ap(champion, challenger, resamples=60, seed=2)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)
    ones = np.ones((1, 40), np.int64)
    assert found["delta"] == pytest.approx(
        float(resampled_ap(challenger, ones).mean() - resampled_ap(champion, ones).mean())
    )
    assert paired_bootstrap_ap(champion, champion, resamples=10)["p"] == 1.0


def test_models_on_other_images_or_objects_are_not_compared() -> None:
    champion, challenger = two_models(5, np.random.default_rng(0))
    with pytest.raises(InputError, match=r"shape \(5, 2, 3\) against \(4, 2, 3\)"):
        paired_bootstrap(champion, challenger[:4])
    other = dataclasses.replace(evidence(0.6, 0), truths_nK=np.full((40, 1), 4))
    with pytest.raises(InputError, match="scored on different objects"):
        paired_bootstrap_ap(evidence(0.6, 0), other)
    with pytest.raises(InputError, match="found 0 and"):
        paired_bootstrap(champion, challenger, resamples=0)
