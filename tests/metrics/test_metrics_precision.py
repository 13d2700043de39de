"""AP as an area in all its ways, and what score thresholds buy: worked examples, and loops over thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segpipe.errors import InputError
from segpipe.metrics import average_precision, precision_recall

# Two truths, found first and third of four detections.
RECALL, PRECISION = [0.5, 0.5, 1.0, 1.0], [1.0, 0.5, 2 / 3, 0.5]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (None, 0.5 * 1 + 0.5 * 2 / 3),
        (5, (3 * 1 + 2 * 2 / 3) / 5),
        (11, (6 * 1 + 5 * 2 / 3) / 11),
        (101, (51 * 1 + 50 * 2 / 3) / 101),
    ],
)
def test_the_worked_example(points: int | None, expected: float) -> None:
    for kind in (list, np.array, torch.tensor):
        found = average_precision(kind(RECALL), kind(PRECISION), points)
        assert type(found) is float
        assert found == pytest.approx(expected, rel=1e-6 if kind is torch.tensor else 1e-15)


@pytest.mark.parametrize("points", [None, 5, 11, 101])
def test_the_ends_of_the_scale(points: int | None) -> None:
    assert average_precision([], [], points) == 0.0
    assert average_precision([1.0], [1.0], points) == 1.0
    assert average_precision([0.0, 0.0], [0.0, 0.0], points) == 0.0


def test_a_curve_that_ends_early_has_no_area_behind_its_end() -> None:
    assert average_precision([0.5], [1.0]) == 0.5
    assert average_precision([0.5], [1.0], 5) == 3 / 5
    assert average_precision([0.5], [1.0], 11) == 6 / 11


def test_eleven_recalls_are_those_that_matlab_makes() -> None:
    # 0:0.1:1 holds 0.30000000000000004 but 0.6 and 0.7, where numpy.arange(0, 1.1, 0.1) is too high as well.
    reached = [average_precision([recall], [1.0], 11) * 11 for recall in (0.3, 0.30000000000000004, 0.6, 0.7, 0.8)]
    assert reached == pytest.approx([3, 4, 7, 8, 9])


hits = st.lists(st.booleans(), max_size=12)


def curve(found: list[bool], truths: int) -> tuple[list[float], list[float]]:
    right = [sum(found[: end + 1]) for end in range(len(found))]
    return [count / truths for count in right], [count / (end + 1) for end, count in enumerate(right)]


@given(hits, st.integers(0, 3))
def test_every_area_is_the_mean_or_sum_of_the_best_precision_to_come(found: list[bool], missed: int) -> None:
    truths = max(sum(found) + missed, 1)
    recall, precision = curve(found, truths)

    def best(at_least: float) -> float:
        return max((p for r, p in zip(recall, precision, strict=True) if r >= at_least), default=0.0)

    assert average_precision(recall, precision) == pytest.approx(
        sum(best(step / truths) / truths for step in range(1, truths + 1))
    )
    assert average_precision(recall, precision, 5) == pytest.approx(sum(best(step / 4) for step in range(5)) / 5)
    coco = np.linspace(0, 1, 101)
    assert average_precision(recall, precision, 101) == pytest.approx(sum(best(step) for step in coco) / 101)


@pytest.mark.parametrize(
    ("recall", "precision", "points", "message"),
    [
        ([0.5], [0.5, 0.5], None, "1 recalls and 2 precisions"),
        ([0.5, 0.4], [1.0, 1.0], None, "recall falls at point 1"),
        ([0.5, 1.5], [1.0, 1.0], None, r"recall goes from 0\.5 to 1\.5; expected 0\.\.1"),
        ([0.5], [-1.0], None, r"precision goes from -1\.0"),
        ([0.5, float("nan")], [1.0, 1.0], None, "recall: entry 1 is nan"),
        ([[0.5]], [[0.5]], None, r"one row of numbers, found float64 \(1, 1\)"),
        (["x"], ["y"], None, "one row of numbers"),
        ([0.5], [0.5], 10, "points = 10; expected 5, 11"),
    ],
)
def test_what_is_no_curve_is_refused(recall: Any, precision: Any, points: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        average_precision(recall, precision, points)


def test_what_a_threshold_buys() -> None:
    # By score: hit 0.9, miss 0.8, hit 0.5, hit 0.5, miss 0.1; four truths. The two at 0.5 come and go together.
    found = precision_recall([0.5, 0.9, 0.8, 0.1, 0.5], [True, True, False, False, True], 4)
    assert found.thresholds.tolist() == [0.9, 0.8, 0.5, 0.1]
    assert found.precision.tolist() == [1.0, 0.5, 0.75, 0.6]
    assert found.recall.tolist() == [0.25, 0.25, 0.75, 0.75]
    assert found.f1.tolist() == pytest.approx([0.4, 1 / 3, 0.75, 2 / 3])


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, -1.0, 7.0]), st.booleans()), max_size=12), st.integers(0, 2))
def test_each_threshold_keeps_its_score_and_higher_ones(pairs: list[tuple[float, bool]], missed: int) -> None:
    scores, matched = [score for score, _ in pairs], [hit for _, hit in pairs]
    truths = sum(matched) + missed
    found = precision_recall(torch.tensor(scores), torch.tensor(matched, dtype=torch.bool), truths)
    assert found.thresholds.tolist() == sorted(set(scores), reverse=True)
    for at, threshold in enumerate(found.thresholds):
        kept = [hit for score, hit in pairs if score >= threshold]
        assert found.precision[at] == sum(kept) / len(kept)
        if truths:
            assert found.recall[at] == sum(kept) / truths
            p, r = found.precision[at], found.recall[at]
            assert found.f1[at] == pytest.approx(2 * p * r / (p + r) if p + r else 0)
        else:
            assert np.isnan([found.recall[at], found.f1[at]]).all()


@pytest.mark.parametrize(
    ("scores", "matched", "truths", "message"),
    [
        ([0.5], [True, False], 3, "expected 1 booleans"),
        ([0.5], [1], 3, r"expected 1 booleans, found int64"),
        ([float("nan")], [True], 3, "scores: entry 0 is nan"),
        ([0.5, 0.4], [True, True], 1, "2 detections match 1 truths"),
    ],
)
def test_wrong_matches_are_refused(scores: Any, matched: Any, truths: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        precision_recall(scores, matched, truths)
