"""segpipe/promotion/gate.py: only a comparable and better challenger passes."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from segpipe.promotion import Rules, judge
from segpipe.types import EvalReport
from tests.fixtures.example_reports import PIXELS, scored
from tests.fixtures.promoting import UNFIT


@pytest.mark.parametrize(
    ("challenger", "margin", "outcome"),
    [(0.51, 0.0, "promoted"), (0.5, 0.0, "kept"), (0.49, 0.0, "kept"), (0.55, 0.05, "kept"), (0.551, 0.05, "promoted")],
)
def test_a_challenger_must_exceed_the_champion_by_more_than_the_margin(
    challenger: float, margin: float, outcome: str
) -> None:
    verdict = judge(scored(challenger, "new"), scored(0.5, "old"), Rules(floor=0.9, margin=margin))
    assert verdict.outcome == outcome
    assert verdict.delta == pytest.approx(challenger - 0.5)
    assert verdict.previous is not None
    assert verdict.champion is not None
    assert verdict.champion.label == ("new" if outcome == "promoted" else "old")
    assert "new (miou 0.5" in verdict.reason or "new (miou 0.4" in verdict.reason


def test_a_tie_with_the_margin_is_not_decided_by_binary_rounding() -> None:
    for percent in range(95):
        old, new = percent / 100, (percent + 5) / 100
        verdict = judge(scored(new, "new"), scored(old, "old"), Rules(margin=0.05))
        assert verdict.outcome == "kept", (old, new)


def test_the_first_champion_must_reach_the_floor() -> None:
    low = judge(scored(0.59, "low"), None, Rules(floor=0.6, margin=0.5))
    assert (low.outcome, low.champion, low.delta) == ("refused", None, None)
    assert low.reason == "low (miou 0.5900) would be the first champion, but is below the floor of 0.6"
    exact = judge(scored(0.6, "exact"), None, Rules(floor=0.6, margin=0.5))
    assert exact.outcome == "promoted"
    assert exact.champion == exact.challenger
    assert exact.reason.endswith("reaches the floor of 0.6; sky everywhere would score 0.2500")


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_challenger_is_refused_however_good_it_looks(name: str) -> None:
    changes, named = UNFIT[name]
    verdict = judge(replace(scored(0.9, "new"), **changes), scored(0.5, "old"), Rules())
    assert (verdict.outcome, verdict.delta) == ("refused", None)
    assert verdict.champion == verdict.previous
    assert named in verdict.reason


def test_a_broken_report_of_the_champion_promotes_nobody() -> None:
    verdict = judge(scored(0.9, "new"), scored(math.nan, "old"), Rules())
    assert verdict.outcome == "refused"
    assert "old has value = nan" in verdict.reason


def uneven(shares: list[float], label: str, **changes: Any) -> EvalReport:
    """A report of images of one class each, with these scores."""
    sides = [(round(share * PIXELS), PIXELS, round(share * PIXELS)) for share in shares]
    value = sum(right for right, _, _ in sides) / len(sides) / PIXELS
    counts = tuple((side, side) for side in sides)
    ids = tuple(f"image{place}" for place in range(len(shares)))
    told = {"sample_counts": counts, "sample_ids": ids, "groups": ids, "num_samples": len(ids), **changes}
    return scored(value, label, **told)


def test_a_difference_that_may_be_luck_keeps_the_champion() -> None:
    lucky = judge(
        uneven([0.9, 0.3, 0.5, 0.5, 0.5, 0.52], "new"), uneven([0.5, 0.4, 0.5, 0.5, 0.5, 0.5], "old"), Rules()
    )
    assert lucky.outcome == "kept"
    assert lucky.comparison is not None
    assert lucky.comparison.low < 0 < lucky.comparison.delta < lucky.comparison.high
    assert "not surely by more than the margin of 0" in lucky.reason
    assert f"({lucky.comparison.low:+.4f} to {lucky.comparison.high:+.4f})" in lucky.reason.replace(
        "95 % interval ", ""
    )


def test_a_small_difference_in_every_image_is_no_luck() -> None:
    old = [0.2, 0.9, 0.5, 0.7, 0.4, 0.8, 0.3, 0.6]
    sure = judge(uneven([share + 0.01 for share in old], "new"), uneven(old, "old"), Rules())
    assert sure.outcome == "promoted"
    assert sure.delta == pytest.approx(0.01)
    assert sure.comparison is not None
    assert (sure.comparison.low, sure.comparison.high) == pytest.approx((0.01, 0.01))


def test_five_images_cannot_tell_skill_from_luck() -> None:
    kept = judge(uneven([0.6] * 5, "new"), uneven([0.5] * 5, "old"), Rules())
    assert kept.outcome == "kept"
    assert "5 images, fewer than 6, cannot tell that from luck" in kept.reason
    assert judge(uneven([0.6] * 6, "new"), uneven([0.5] * 6, "old"), Rules()).outcome == "promoted"


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        (Rules(), "promoted"),
        (Rules(max_fall=0.2), "promoted"),
        (Rules(max_fall=0.05), "kept"),
        (Rules(max_fall=0.05, max_falls={"car": 0.2}), "promoted"),
        (Rules(max_fall=0.2, max_falls={"car": 0.01}), "kept"),
    ],
)
def test_no_class_may_fall_too_far(rules: Rules, outcome: str) -> None:
    counts = (((8000, PIXELS, 8000), (4000, PIXELS, 4000)),) * 8
    new = scored(0.6, "new", sample_counts=counts, per_class={"sky": {"iou": 0.8}, "car": {"iou": 0.4}})
    verdict = judge(new, scored(0.5, "old"), rules)
    assert verdict.outcome == outcome
    if outcome == "kept":
        assert "but car falls from 0.5000 to 0.4000, by more than the 0." in verdict.reason
    assert [(change.name, change.champion, change.challenger) for change in verdict.changes] == [
        ("sky", 0.5, 0.8),
        ("car", 0.5, 0.4),
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"value": 0.9}, "miou = 0.900000, and what it counted in its images comes to 0.700000"),
        (
            {"sample_counts": (((1, 2, 2), (1, 2, 2)),) * 7},
            r"counts of shape \(7, 2, 3\), expected finite ones of \(8, 2, 3\)",
        ),
        ({"sample_counts": (((1, 2, 2), (1, 2)),) * 8}, "evidence of uneven length"),
        ({"count_names": ("hits",)}, "counts hits in each image, of which no score is made"),
        ({"count_names": ("truths",)}, r"counts of shape \(8, 2, 3\)"),
    ],
)
def test_a_score_that_its_evidence_does_not_bear_out_is_refused(changes: dict[str, Any], named: str) -> None:
    new = replace(scored(0.7, "new"), **changes)
    for champion in (scored(0.5, "old"), None):
        verdict = judge(new, champion, Rules())
        assert verdict.outcome == "refused"
        assert re.search(named, verdict.reason)


def found(truths: tuple[tuple[int, int], ...], label: str) -> EvalReport:
    """A report of objects of two classes that are all found, with these in each image."""
    return scored(
        1.0,
        label,
        primary="ap",
        count_names=("truths",),
        sample_counts=tuple(tuple((count,) for count in image) for image in truths),
        detections=tuple(
            tuple((of_class, 0.9, 1023, 0) for of_class, count in enumerate(image) for _ in range(count))
            for image in truths
        ),
    )


def test_other_truths_in_an_image_are_refused_and_named() -> None:
    truths, others = ((2, 1), (0, 1), *((1, 1),) * 6), ((1, 1), (1, 1), *((1, 1),) * 6)
    same = judge(found(truths, "new"), found(truths, "old"), Rules())
    assert (same.outcome, same.delta) == ("kept", 0.0), same.reason
    verdict = judge(found(truths, "new"), found(others, "old"), Rules())
    assert (verdict.outcome, verdict.comparison) == ("refused", None)
    assert verdict.reason == "not comparable: new and old were scored on different truths: of sky in a, 2 and 1"
    right, more, less = (7000, PIXELS, 7000), (7000, PIXELS + 9, 7000 + 9), (7000, PIXELS - 9, 7000 - 9)
    new = scored(0.7, "new", sample_counts=((more, right), (less, right), *((right, right),) * 6))
    verdict = judge(new, scored(0.7, "old"), Rules())
    assert verdict.outcome == "refused"
    assert verdict.reason.endswith("of sky in a, 10009 and 10000")


def test_reports_that_counted_something_else_are_refused() -> None:
    right = ((5, 5, 0, 0),) * 2
    panoptic = ("iou", "true_positives", "false_positives", "false_negatives")
    new = scored(1.0, "new", count_names=panoptic, sample_counts=(right,) * 8)
    verdict = judge(new, scored(0.5, "old"), Rules())
    assert verdict.outcome == "refused"
    assert verdict.reason == (
        "not comparable: new counts iou, true_positives, false_positives, false_negatives in each image, and old "
        "intersection, truth, predicted; evaluate both by the same code"
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"classes": ("car", "sky")}, "do not have the scores of the same classes in the same order"),
        ({"groups": ("a",)}, "says the groups of 1 images, expected 8"),
    ],
)
def test_classes_and_groups_that_do_not_fit_are_refused(changes: dict[str, Any], named: str) -> None:
    verdict = judge(scored(0.6, "new", **changes), scored(0.5, "old"), Rules())
    assert verdict.outcome == "refused"
    assert named in verdict.reason
