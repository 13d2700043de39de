"""Promotion: the best of the night challenges the ledger's champion; MLflow may be down all the while."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from segpipe import promotion
from segpipe.config import EvaluateConfig, PromoteConfig
from segpipe.errors import InputError, NonFiniteError
from segpipe.promotion import Record
from segpipe.stages import layout, nights
from segpipe.stages.promote import champion_scorer, promote
from segpipe.types import EvalReport
from tests.fixtures.example_reports import scored
from tests.stages.conftest import Shapes

pytestmark = [pytest.mark.usefixtures("mlflow_down"), pytest.mark.xdist_group("shapes")]


def nobody(record: Record) -> EvalReport:
    raise AssertionError("there is no champion to score")


def scorer_of(*reports: EvalReport) -> Callable[[Record], EvalReport]:
    """Scores a champion by the report that has its weights."""

    def score(record: Record) -> EvalReport:
        assert record.champion is not None
        return next(report for report in reports if report.weights_sha256 == record.champion.weights_sha256)

    return score


def test_the_best_candidate_becomes_the_first_champion(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        verdict = promote(
            "camvid",
            [scored(0.4), scored(0.6), scored(0.5)],
            config=PromoteConfig(floor=0.3),
            champion_report_of=nobody,
        )
    assert (verdict.outcome, verdict.challenger.label) == ("promoted", "m0.6")
    assert verdict.champion == verdict.challenger
    (record,) = nights.history("camvid")
    assert (record.number, record.kind, record.reason) == (1, "promoted", verdict.reason)
    assert (record.floor, record.margin) == (0.3, 0.0)
    (warning,) = caplog.messages
    assert warning.startswith("the verdict on m0.6 is not in MLflow yet and will be caught up by the next run: ")
    assert "http://127.0.0.1:9 cannot be used" in warning


@pytest.mark.parametrize(
    ("value", "config", "outcome", "reason"),
    [
        (0.7, PromoteConfig(), "promoted", "beats"),
        (0.7, PromoteConfig(margin=0.1), "kept", "not by more than the margin of 0.1"),
        (0.6, PromoteConfig(), "kept", "equally good, and a tie keeps the champion"),
        (0.5, PromoteConfig(), "kept", "is worse by 0.1"),
    ],
)
def test_a_challenger_against_the_champion(value: float, config: PromoteConfig, outcome: str, reason: str) -> None:
    first = scored(0.6, "first")
    promote("camvid", [first], config=config, champion_report_of=nobody)
    challenger = scored(value, "second")
    verdict = promote("camvid", [scored(0.1), challenger], config=config, champion_report_of=scorer_of(first))
    assert verdict.outcome == outcome
    assert reason in verdict.reason
    assert verdict.champion is not None
    assert verdict.previous is not None
    assert (verdict.challenger.label, verdict.previous.label) == ("second", "first")
    standing = promotion.champion(layout.ledger_uri("camvid"))
    assert standing is not None
    assert standing.champion == verdict.champion
    assert verdict.champion.label == ("second" if outcome == "promoted" else "first")


def test_the_same_question_again_gives_the_recorded_verdict() -> None:
    first, second = scored(0.6, "first"), scored(0.5, "second")
    verdict = promote("camvid", [first], config=PromoteConfig(), champion_report_of=nobody)
    assert promote("camvid", [first], config=PromoteConfig(), champion_report_of=nobody) == verdict
    kept = promote("camvid", [second], config=PromoteConfig(), champion_report_of=scorer_of(first))
    assert promote("camvid", [second], config=PromoteConfig(), champion_report_of=nobody) == kept
    assert [record.kind for record in nights.history("camvid")] == ["promoted", "kept"]


def test_below_the_floor_nobody_is_champion() -> None:
    verdict = promote("camvid", [scored(0.2)], config=PromoteConfig(floor=0.3), champion_report_of=nobody)
    assert (verdict.outcome, verdict.champion) == ("refused", None)
    assert "below the floor of 0.3" in verdict.reason
    assert promotion.champion(layout.ledger_uri("camvid")) is None


def test_experiments_have_ledgers_of_their_own() -> None:
    for experiment in ("camvid", "scenes"):
        promote(experiment, [scored(0.5)], config=PromoteConfig(), champion_report_of=nobody)
    assert [len(nights.history(experiment)) for experiment in ("camvid", "scenes")] == [1, 1]


def test_no_candidate_and_unlike_candidates_are_refused_and_nothing_is_written() -> None:
    with pytest.raises(InputError, match="camvid: no evaluated model to promote; train and evaluate at least one"):
        promote("camvid", [], config=PromoteConfig(), champion_report_of=nobody)
    other = replace(scored(0.9), dataset_version="v2")
    with pytest.raises(InputError, match="these reports cannot be compared: dataset_version is 'v1' for"):
        promote("camvid", [scored(0.5), other], config=PromoteConfig(), champion_report_of=nobody)
    with pytest.raises(NonFiniteError, match="has no rank"):
        promote("camvid", [scored(0.5), scored(float("nan"))], config=PromoteConfig(), champion_report_of=nobody)
    assert promotion.history(layout.ledger_uri("camvid")) == []


def test_the_champion_of_a_record_is_scored_on_the_version_that_is_asked_for(shapes: Shapes, tmp_path: Path) -> None:
    result = shapes.result
    report = replace(
        scored(0.5, "unet"), checkpoint=result.model_uri, weights_sha256=result.weights_sha256, dataset_version="older"
    )
    promote("shapes", [report], config=PromoteConfig(), champion_report_of=nobody)
    standing = promotion.champion(layout.ledger_uri("shapes"))
    assert standing is not None
    config = EvaluateConfig(split="val", pictures=0)
    score = champion_scorer("shapes", data=shapes.data, version=shapes.version, config=config, runtime="local")
    fresh = score(standing)
    assert (fresh.dataset_version, fresh.split, fresh.label) == (shapes.version, "val", "unet")
    assert fresh.weights_sha256 == result.weights_sha256
    with pytest.raises(InputError, match="record 1 of shapes names no champion"):
        score(replace(standing, champion=None))
