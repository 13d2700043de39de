"""J, F and what DAVIS makes of them: by hand, pixel by pixel, on real sequences, and what is refused."""

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
from segpipe.metrics import contour_accuracy, dataset_jf, davis_scores, region_similarity
from tests.fixtures.real_davis import SEQUENCES, masks

Pair = tuple[np.ndarray, np.ndarray]

# What davis2017-evaluation's metrics.py says of OSVOS' predictions, without the first and the last frame; then J and F
# of all frames, and J of the first.
OFFICIAL = {
    "blackswan": ("0.9430 1.0000 0.0014 0.9741 1.0000 -0.0004 0.9586", "0.9431 0.9746", "0.9465"),
    "car-shadow": ("0.9284 1.0000 0.1103 0.9174 1.0000 0.1697 0.9229", "0.9237 0.9131", "0.9707"),
    "libby": ("0.6230 0.6170 0.4986 0.7512 0.9149 0.3495 0.6871", "0.6198 0.7474", "0.9158"),
}


def square(left: int) -> np.ndarray:
    """A square of 6 in 20x20, `left` columns from the border."""
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[5:11, left : left + 6] = 1
    return mask


HIT, MISS = (square(0), square(0)), (square(12), square(0))


def frames(*pairs: Pair) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [prediction for prediction, _ in pairs], [truth for _, truth in pairs]


def slow_contour(mask: np.ndarray) -> list[tuple[int, int]]:
    """The pixels whose block of 2x2, as far as it lies in the image, holds both."""
    places = np.ndindex(*mask.shape)
    return [(y, x) for y, x in places if 0 < np.count_nonzero(block := mask[y : y + 2, x : x + 2]) < block.size]


def slow_accuracy(prediction: np.ndarray, truth: np.ndarray, bound: float) -> float:
    radius = bound if bound >= 1 else math.ceil(bound * math.hypot(*truth.shape))
    found, true = slow_contour(prediction), slow_contour(truth)
    if not found or not true:
        return float(found == true)
    precision, recall = (
        sum(min(math.hypot(y - v, x - u) for v, u in others) <= radius for y, x in ours) / len(ours)
        for ours, others in ((found, true), (true, found))
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
pairs = sizes.flatmap(lambda size: hnp.arrays(np.bool_, (3, *size)))
bounds = st.sampled_from([0, 0.008, 0.1, 0.25, 0.99, 1, 1.5, 2, 5, 1e9])


def test_the_worked_example() -> None:
    """The contour of a square of 6 is a ring of 24 pixels. Moved by 3 to the right, 18 of 54 pixels are common; of each
    ring, 12 pixels lie within 1 of the other (0.008 of the diagonal, rounded up), 16 within 2 and all within 3."""
    truth, moved = square(5), square(8)
    assert len(slow_contour(truth)) == 24
    assert region_similarity(moved, truth) == 18 / 54
    assert contour_accuracy(moved, truth) == 12 / 24
    assert [contour_accuracy(moved, truth, bound) for bound in (1, 2, 2.9, 3)] == [12 / 24, 16 / 24, 16 / 24, 1.0]
    assert contour_accuracy(moved, truth, 0.07) == 16 / 24, "0.07 of the diagonal is 1.98 pixels"
    assert region_similarity(truth, truth) == contour_accuracy(truth, truth, 0) == 1.0


@settings(max_examples=80)
@given(pairs, bounds)
def test_contours_agree_as_they_do_pixel_by_pixel(drawn: np.ndarray, bound: float) -> None:
    prediction, truth, _ = drawn
    assert contour_accuracy(prediction, truth, bound) == slow_accuracy(prediction, truth, bound)


@settings(max_examples=50)
@given(pairs, bounds)
def test_neither_side_is_the_better_one_and_more_room_never_hurts(drawn: np.ndarray, bound: float) -> None:
    first, second, _ = drawn
    assert region_similarity(first, second) == region_similarity(second, first)
    found = contour_accuracy(first, second, bound)
    assert found == contour_accuracy(second, first, bound) == contour_accuracy(first.T, second.T, bound)
    wider = [0.0, *(contour_accuracy(first, second, pixels) for pixels in (1, 1.5, 2, 3, 5, 20)), 1.0]
    assert wider == sorted(wider)
    assert region_similarity(first, first) == contour_accuracy(first, first, bound) == 1.0


@settings(max_examples=50)
@given(pairs)
def test_what_is_void_is_in_no_mask(drawn: np.ndarray) -> None:
    prediction, truth, void = drawn
    cleared = prediction & ~void, truth & ~void
    assert region_similarity(prediction, truth, void=void) == region_similarity(*cleared)
    assert contour_accuracy(prediction, truth, void=void) == contour_accuracy(*cleared)
    assert davis_scores([prediction], [truth], voids=[void]) == davis_scores(*frames(cleared))


def test_empty_masks_and_masks_without_a_contour() -> None:
    empty, full, some = np.zeros((20, 20), dtype=bool), np.ones((20, 20), dtype=bool), square(5)
    assert region_similarity(empty, empty) == contour_accuracy(empty, empty) == 1.0
    for one, other in ((empty, some), (some, empty)):
        assert region_similarity(one, other) == contour_accuracy(one, other) == 0.0
    assert (region_similarity(empty, full), contour_accuracy(empty, full)) == (0.0, 1.0), "the border is no contour"
    assert contour_accuracy(full, some) == 0.0
    nothing = np.zeros((0, 5), dtype=bool)
    assert region_similarity(nothing, nothing) == contour_accuracy(nothing, nothing) == 1.0


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize(("dtype", "inside"), [(np.bool_, 1), (np.uint8, 255), (np.int64, 7)])
def test_every_family_and_type_counts_alike(make: Any, dtype: Any, inside: int) -> None:
    prediction, truth = (make((mask * inside).astype(dtype)) for mask in (square(8), square(5)))
    found = region_similarity(prediction, truth), contour_accuracy(prediction, truth)
    assert found == (1 / 3, 0.5)
    assert [type(each) for each in found] == [float, float]
    assert davis_scores([prediction], [truth])["JF_mean"] == (1 / 3 + 0.5) / 2


@pytest.mark.parametrize(
    ("hits", "decay"),
    [
        ("1", 0),
        ("10", 1),
        ("100", 0.5),
        ("001", -1),
        ("1110", 0.5),
        ("11111000", 1),
        ("00011011", -2 / 3),
        ("1" * 76 + "0" * 148 + "1" * 76, 0),  # of 300 frames, the first 76 and the last 76
        ("1" * 76 + "0" * 224, 1),
        ("0" * 75 + "1" * 149 + "0" * 76, 1 / 76),
    ],
)
def test_recall_and_decay_over_the_frames(hits: str, decay: float) -> None:
    scores = davis_scores(*frames(*(HIT if hit == "1" else MISS for hit in hits)))
    share = hits.count("1") / len(hits)
    assert list(scores) == ["J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay", "JF_mean"]
    assert list(scores.values()) == pytest.approx([share, share, decay, share, share, decay, share])


def test_half_is_not_found() -> None:
    half = square(5)
    half[5:8] = 0
    assert region_similarity(half, square(5)) == 0.5
    assert davis_scores([half], [square(5)])["J_recall"] == 0.0


def test_objects_count_alike_however_long_they_are_seen() -> None:
    first, second = frames(HIT, HIT, HIT, MISS), frames((square(8), square(5)))
    each = [davis_scores(*first), davis_scores(*second)]
    both = davis_scores([np.stack(first[0]), np.stack(second[0])], [np.stack(first[1]), np.stack(second[1])])
    assert both == pytest.approx({name: (each[0][name] + each[1][name]) / 2 for name in each[0]})
    counts = np.array([[[one["J_mean"], one["F_mean"], 1]] for one in each])
    assert dataset_jf(counts.sum(axis=0)) == pytest.approx(both["JF_mean"])


def test_classes_without_an_object_drop_out() -> None:
    assert dataset_jf([[1.2, 1.6, 2], [0, 0, 0], [0.5, 0.3, 1]]) == pytest.approx((0.7 + 0.4) / 2)
    assert np.isnan(dataset_jf([[0, 0, 0]]))


@pytest.mark.parametrize("sequence", OFFICIAL)
def test_real_sequences_have_the_official_numbers(sequence: str) -> None:
    if sequence in SEQUENCES:
        without_ends, whole, first = OFFICIAL[sequence]
        predictions, truths = masks(sequence)
        scores = davis_scores(predictions[1:-1], truths[1:-1])
        assert " ".join(f"{value:.4f}" for value in scores.values()) == without_ends
        scores = davis_scores(predictions, truths)
        assert f"{scores['J_mean']:.4f} {scores['F_mean']:.4f}" == whole
        assert f"{region_similarity(predictions[0], truths[0]):.4f}" == first


TWO_OBJECTS = square(5) + 2 * square(13)


@pytest.mark.parametrize(
    ("prediction", "truth", "void", "message"),
    [
        (square(5)[:9], square(5), None, r"DAVIS: prediction \(9, 20\), truth \(20, 20\); expected masks of one size"),
        (square(5), square(5), square(5)[:9], r"truth \(20, 20\), void \(9, 20\); expected masks of one size"),
        (
            square(5) / 2,
            square(5),
            None,
            r"DAVIS: expected a prediction of shape \(H, W\), .* found \(20, 20\) float64",
        ),
        (square(5), square(5)[None], None, r"DAVIS: expected a truth of shape \(H, W\), .* found \(1, 20, 20\)"),
        (square(5), square(5), "abc", r"DAVIS: expected a void of shape"),
        (square(5), TWO_OBJECTS, None, "the truth holds 1 and 2; expected the mask of one object, .*give objects one"),
    ],
)
def test_what_is_no_mask_is_refused(prediction: Any, truth: Any, void: Any, message: str) -> None:
    for measure in (region_similarity, contour_accuracy):
        with pytest.raises(InputError, match=message):
            measure(prediction, truth, void=void)


@pytest.mark.parametrize("bound", [-0.1, math.nan, math.inf])
def test_a_bound_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(InputError, match=f"bound={bound}; expected pixels, or below 1 a share"):
        contour_accuracy(square(5), square(5), bound)


@pytest.mark.parametrize(
    ("predictions", "truths", "voids", "message"),
    [
        ([], [], None, "DAVIS, frames: 0 predictions, 0 truths; expected as many of each, and at least one"),
        ([square(5)], [], None, "DAVIS, frames: 1 predictions, 0 truths;"),
        ([square(5)], [square(5)], [], "DAVIS, frames: 1 predictions, 1 truths, 0 voids;"),
        ([square(5)[None]], [square(5)[None]] * 2, None, "DAVIS, objects: 1 predictions, 2 truths;"),
        ([square(5)[None]], [square(5)[None][:0]], None, "DAVIS, object 0, frames: 1 predictions, 0 truths;"),
        ([square(5)] * 2, [square(5), TWO_OBJECTS], None, "DAVIS, frame 1: the truth holds 1 and 2;"),
        ([square(5)[None]], [square(5)[None, 1:]], None, r"DAVIS, object 0, frame 0: prediction \(20, 20\), truth \(1"),
    ],
)
def test_a_sequence_that_is_none_is_refused(predictions: Any, truths: Any, voids: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        davis_scores(predictions, truths, voids=voids)
