"""segpipe/promotion/gate.py: only a comparable and better challenger passes."""

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from segpipe.promotion import is_better, judge
from segpipe.types import Task
from tests.fixtures.example_reports import scored


@pytest.mark.parametrize(
    ("challenger", "margin", "outcome"),
    [(0.51, 0.0, "promoted"), (0.5, 0.0, "kept"), (0.49, 0.0, "kept"), (0.55, 0.05, "kept"), (0.551, 0.05, "promoted")],
)
def test_a_challenger_must_exceed_the_champion_by_more_than_the_margin(
    challenger: float, margin: float, outcome: str
) -> None:
    verdict = judge(scored(challenger, "new"), scored(0.5, "old"), floor=0.9, margin=margin)
    assert verdict.outcome == outcome
    assert verdict.delta == pytest.approx(challenger - 0.5)
    assert verdict.previous is not None
    assert verdict.champion is not None
    assert verdict.champion.label == ("new" if outcome == "promoted" else "old")
    assert "new (miou 0.5" in verdict.reason or "new (miou 0.4" in verdict.reason


def test_a_tie_with_the_margin_is_not_decided_by_binary_rounding() -> None:
    for percent in range(95):
        old, new = percent / 100, (percent + 5) / 100
        assert not is_better(scored(new), scored(old), 0.05)[0], (old, new)


def test_the_first_champion_must_reach_the_floor() -> None:
    low = judge(scored(0.59, "low"), None, floor=0.6, margin=0.5)
    assert (low.outcome, low.champion, low.delta) == ("refused", None, None)
    assert low.reason == "low (miou 0.5900) would be the first champion, but is below the floor of 0.6"
    exact = judge(scored(0.6, "exact"), None, floor=0.6, margin=0.5)
    assert exact.outcome == "promoted"
    assert exact.champion == exact.challenger
    assert exact.reason.endswith("reaches the floor of 0.6; sky everywhere would score 0.2500")


# What makes a challenger that scores 0.9 incomparable with a champion that scores 0.5, and what the reason then names.
UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "nan value": ({"value": math.nan}, "value = nan"),
    "infinite bound": ({"high": math.inf}, "high = inf"),
    "nan metric": ({"metrics": {"miou": 0.9, "dice": math.nan}}, "dice = nan"),
    "nan class": ({"per_class": {"sky": {"iou": math.nan}, "car": {"iou": None}}}, "sky.iou = nan"),
    "missing class": ({"per_class": {"sky": {"iou": 0.9}}}, "'car'"),
    "other classes": ({"per_class": {"sky": {"iou": 0.9}, "tram": {"iou": 0.9}}}, "'car'"),
    "other truth": ({"truth_counts": (5, 4)}, "different truths"),
    "other samples": ({"sample_ids": ("a", "c")}, "different samples (b)"),
    "other order": ({"sample_ids": ("b", "a")}, "in another order"),
    "fewer samples": ({"sample_ids": ("a",)}, "different samples (b)"),
    "other version": ({"dataset_version": "v2"}, "dataset_version is 'v2'"),
    "other split": ({"split": "val"}, "split is 'val'"),
    "other protocol": ({"protocol": "crop"}, "protocol is 'crop'"),
    "other primary": ({"primary": "dice"}, "primary is 'dice'"),
    "other task": ({"task": Task.INSTANCE}, "task is 'instance'"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_challenger_is_refused_however_good_it_looks(name: str) -> None:
    changes, named = UNFIT[name]
    verdict = judge(replace(scored(0.9, "new"), **changes), scored(0.5, "old"), floor=0.0, margin=0.0)
    assert (verdict.outcome, verdict.delta) == ("refused", None)
    assert verdict.champion == verdict.previous
    assert named in verdict.reason


def test_a_broken_report_of_the_champion_promotes_nobody() -> None:
    verdict = judge(scored(0.9, "new"), scored(math.nan, "old"), floor=0.0, margin=0.0)
    assert verdict.outcome == "refused"
    assert "old has value = nan" in verdict.reason


def test_of_a_hundred_generated_pairs_only_fit_and_better_challengers_pass() -> None:
    rng = random.Random(20)
    for i, fault in zip(range(120), itertools.cycle([None, *UNFIT]), strict=False):
        old, new, margin = rng.randrange(100), rng.randrange(100), rng.choice([0, 1, 5])
        new = old if i % 7 == 0 else new
        challenger = replace(scored(new / 100, "new"), **(UNFIT[fault][0] if fault else {}))
        verdict = judge(challenger, scored(old / 100, "old"), floor=0.0, margin=margin / 100)
        should_pass = fault is None and new - old > margin
        assert (verdict.outcome == "promoted") == should_pass, (i, fault, old, new, margin, verdict)
        assert (verdict.outcome == "refused") == (fault is not None), (i, fault, verdict)
