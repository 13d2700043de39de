"""segpipe/leaderboard.py: the order of the board, and what may not be on one board."""

import itertools
import math

import numpy as np
import pytest

from segpipe.errors import InputError, NonFiniteError
from segpipe.leaderboard import constant, rank
from segpipe.metrics import semantic_scores
from segpipe.types import Task
from tests.fixtures.example_reports import eval_report


def test_best_first_with_ranks_from_one() -> None:
    rows = rank([eval_report(label=label, value=value) for label, value in [("a", 0.2), ("b", 0.9), ("c", 0.5)]])
    assert [(row.rank, row.label, row.value) for row in rows] == [(1, "b", 0.9), (2, "c", 0.5), (3, "a", 0.2)]


def test_no_reports_no_rows() -> None:
    assert rank([]) == []


def test_a_row_carries_what_its_report_says() -> None:
    report = eval_report(seconds=7.5, parameters=42)
    (row,) = rank([report])
    for name in set(row.__dataclass_fields__) - {"rank", "constant_class", "constant_value"}:
        assert getattr(row, name) == getattr(report, name)


def test_a_row_says_what_the_most_frequent_class_everywhere_would_score() -> None:
    truth = (6, 12, 2, 0)
    report = eval_report(truth_counts=truth, classes=("sky", "road", "car", "tram"))
    assert constant(report) == ("road", 12 / 20 / 3)
    always_road = tuple((0, pixels, 0, 0) for pixels in truth)
    assert semantic_scores(np.array(always_road))["miou"] == pytest.approx(12 / 20 / 3), "as the metric has it"
    (row,) = rank([report])
    assert (row.constant_class, row.constant_value) == constant(report)
    for other in (eval_report(primary="pq"), eval_report(truth_counts=(0, 0))):
        assert constant(other) is None
        assert rank([other])[0].constant_value is None


def test_ties_go_to_the_smaller_model_then_to_the_label_whatever_the_order() -> None:
    reports = [
        eval_report(label="big", value=0.5, parameters=20),
        eval_report(label="small_b", value=0.5, parameters=10),
        eval_report(label="small_a", value=0.5, parameters=10),
        eval_report(label="worse", value=0.4, parameters=1),
    ]
    for order in itertools.permutations(reports):
        assert [row.label for row in rank(order)] == ["small_a", "small_b", "big", "worse"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", Task.PANOPTIC),
        ("dataset_version", "v2"),
        ("split", "val"),
        ("protocol", "half resolution"),
        ("scored_by", "0.0.9"),
        ("primary", "dice"),
    ],
)
def test_unlike_reports_are_refused_with_field_values_and_labels(field: str, value: object) -> None:
    usual = eval_report(label="usual")
    odd = eval_report(label="odd", **{field: value})
    with pytest.raises(InputError) as caught:
        rank([usual, usual, odd])
    message = str(caught.value)
    assert f"{field} is {str(getattr(usual, field))!r} for usual and {str(value)!r} for odd" in message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_not_ranked(value: float) -> None:
    with pytest.raises(NonFiniteError, match=r"runs/unet \(broken\): miou is (nan|inf)"):
        rank([eval_report(), eval_report(label="broken", value=value)])
