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
from segpipe.shards import open_dataset, publish
from segpipe.stages import layout, nights
from segpipe.stages.evaluate import evaluate, location
from segpipe.stages.identity import resolve
from segpipe.stages.nights import Night
from segpipe.stages.promote import champion_scorer, judge_again
from segpipe.types import EvalReport
from tests.fixtures.example_reports import scored
from tests.fixtures.small import publish_small, small_run
from tests.fixtures.unproven import promote_unproven as promote
from tests.stages.conftest import Shapes
from tests.stages.toy_night import recipe

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


def test_the_next_best_is_judged_where_the_best_was_taken_back() -> None:
    first, second, third = scored(0.5, "first"), scored(0.7, "second"), scored(0.6, "third")
    for report in (first, second):
        promote("camvid", [report], config=PromoteConfig(), champion_report_of=scorer_of(first))
    ledger = layout.ledger_uri("camvid")
    promotion.roll_back(ledger, name="camvid", who="ann", why="halos around poles")
    night = [second, first, third]
    verdict = promote("camvid", night, config=PromoteConfig(), champion_report_of=scorer_of(first))
    assert (verdict.outcome, verdict.challenger.label, verdict.number) == ("promoted", "third", 4)
    again = promote("camvid", [second], config=PromoteConfig(), champion_report_of=nobody)
    assert (again.outcome, again.challenger.label) == ("refused", "second")
    assert "second was champion and is so no more since record 3" in again.reason


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


def test_a_champion_of_other_classes_refuses_the_challenger_and_says_what_to_do(shapes: Shapes, tmp_path: Path) -> None:
    """A class was renamed, or added: the night ends with a verdict and a board, not with an error."""
    result, uri = shapes.result, str(tmp_path / "renamed")
    publish_small(uri)
    manifest = open_dataset(uri).manifest
    renamed = (replace(manifest.classes[0], name="soil"), *manifest.classes[1:])
    version, _ = publish(uri, replace(manifest, classes=renamed))
    first = replace(scored(0.5, "unet"), checkpoint=result.model_uri, weights_sha256=result.weights_sha256)
    promote("shapes", [first], config=PromoteConfig(), champion_report_of=nobody)
    score = champion_scorer("shapes", data=uri, version=version, config=EvaluateConfig(pictures=0), runtime="local")
    challenger = replace(scored(0.9, "new"), dataset_version=version)
    verdict = promote("shapes", [challenger], config=PromoteConfig(), champion_report_of=score)
    assert verdict.outcome == "refused"
    assert verdict.champion is not None
    assert verdict.champion.weights_sha256 == result.weights_sha256
    assert "not comparable: the champion unet (ledger record 1) answers another question" in verdict.reason
    assert "knows the classes ['ground', 'box', 'disc'], dataset 'shapes' has ['soil', " in verdict.reason
    assert "give the recipe another `name`" in verdict.reason


def test_the_last_night_is_judged_again_where_it_was_scored_though_the_dataset_has_changed(
    shapes: Shapes, tmp_path: Path
) -> None:
    data, config = layout.dataset_uri("shapes"), EvaluateConfig(split="val", pictures=0)
    assert publish_small(data) == shapes.version
    other = shapes.train(tmp_path / "runs", resolve(small_run(optimizer="sgd", learning_rate=0.01)))
    to = layout.evaluations_uri("shapes")
    score = champion_scorer("shapes", data=data, version=shapes.version, config=config, runtime="local")
    folders = []
    for result in (shapes.result, other):
        report = evaluate(
            result.model_uri,
            data=data,
            version=shapes.version,
            to=to,
            config=config,
            experiment="shapes",
            label=result.label,
            runtime="local",
        )
        promote("shapes", [report], config=PromoteConfig(margin=0.99), champion_report_of=score)
        folders.append(
            location(report.weights_sha256, label=report.label, version=shapes.version, config=config, to=to)
        )
    last = Night(
        dataset_uri=data,
        dataset_version=shapes.version,
        evaluations=tuple(folders[1:]),
        champion=shapes.result.weights_sha256,
        outcome="kept",
        reason="by the margin",
        failures={},
    )
    nights.record("shapes", last)
    assert publish_small(data, seed=1) != shapes.version

    settings = ("name=shapes", "evaluate={split: val, pictures: 0}")
    verdict = judge_again(recipe(*settings, "promote.margin=0.5"), runtime="local")
    assert (verdict.outcome, verdict.challenger.weights_sha256) == ("kept", other.weights_sha256)
    verdict = judge_again(recipe(*settings, "evaluate.split=test", "promote.margin=0.5"), runtime="local")
    assert verdict.outcome == "kept", "both were scored on the other split"
    assert [(row.split, row.label) for row in nights.board("shapes")] == [("test", "unet")], "the board follows"
    decisions = [record.evaluation for record in nights.history("shapes")]
    assert [(d.dataset_version, d.split) for d in decisions if d] == [
        (shapes.version, split) for split in ("val", "val", "val", "test")
    ]


def test_there_is_nothing_to_judge_again_before_the_first_night() -> None:
    with pytest.raises(InputError, match="no retrain has finished here"):
        judge_again(recipe())
