"""The flows that do one part of a night: ingest with its announcement, evaluate, promote. On a real Prefect server."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

from flows import ingest as ingest_flow
from flows.endings import EndedRedError
from flows.evaluate import evaluate, evaluate_model
from flows.ingest import ingest
from flows.predict import predict, predict_images
from flows.promote import judge_last_night, promote
from flows.retrain import retrain
from flows.train import train
from segpipe.config import Recipe
from segpipe.drift import Shift
from segpipe.errors import CorruptError, InputError, UnreachableError
from segpipe.stages import predict_dataset as predict_stage
from segpipe.stages.drift import Drift
from segpipe.stages.predict_dataset import PredictedDataset
from segpipe.stages.results import Verdict
from segpipe.types import QuarantineEntry
from tests.flows.conftest import Stages

pytestmark = pytest.mark.xdist_group("prefect")
Artifacts = Callable[[str], dict[str, Any]]
MOVED = Shift(
    statistic="brightness",
    distance=0.9,
    chance=0.0001,
    has_moved=True,
    is_undecided=False,
    before=(100, 102, 104),
    now=(20, 25, 30),
    images_before=50,
    images=5,
    sentence="brightness went from 40 % to 10 %, distance 0.90",
)
DRIFTED = Drift(
    has_drifted=True,
    is_undecided=False,
    sentence=f"drift: {MOVED.sentence}",
    threshold=0.2,
    images=5,
    groups=None,
    experiment="roofs",
    dataset="roofs",
    shifts=(MOVED, replace(MOVED, statistic="width", has_moved=False)),
    to_label=("images/7",),
    notes=(),
)


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, UUID]]:
    """(event with its resource, version, id) of every announcement."""
    told: list[tuple[str, str, UUID]] = []

    def emit(event: str, resource: dict[str, str], payload: dict[str, str], id: UUID) -> None:  # noqa: A002
        told.append((f"{event} {resource['prefect.resource.id']}", payload["version"], id))

    monkeypatch.setattr("flows.ingest.emit_event", emit)
    return told


def test_a_new_version_is_announced_once_and_one_that_nobody_heard_of_again(
    stages: Stages, recipe: str, announced: list[tuple[str, str, UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The announcement goes nowhere here, as that of a run that was killed: the next run makes up for it."""

    def damaged(version: str) -> list[str]:
        raise CorruptError("a night")

    dataset = Recipe.load(recipe).dataset
    first, second = ingest(dataset), ingest(dataset)
    assert (first.status, second.status) == ("published", "already_published")
    assert [each[:2] for each in announced] == [
        ("segpipe.dataset.ingested segpipe.dataset.tiny_set", first.version),
        ("segpipe.dataset.ingested segpipe.dataset.tiny_set", first.version),
    ]
    assert announced[0][2] == announced[1][2]
    with monkeypatch.context() as patch:
        patch.setattr("segpipe.stages.nights.on_version", lambda version: ["tiny_set"])
        ingest(dataset)
        assert len(announced) == 2, "a night was on it"
        patch.setattr("segpipe.stages.nights.on_version", damaged)
        ingest(dataset)
        assert len(announced) == 3, "a damaged record says nothing, and ends nothing"
        other = ingest(dataset.model_copy(update={"options": {**dataset.options, "seed": 1}}))
    assert (len(announced), announced[3][1]) == (4, other.version)
    assert announced[2][2] != announced[3][2]
    with get_client(sync_client=True) as client:
        heard = {
            "occurred": datetime.now(UTC).isoformat(),
            "event": "segpipe.dataset.ingested",
            "resource": {"prefect.resource.id": "segpipe.dataset.tiny_set"},
            "id": str(announced[3][2]),
        }
        client.request("POST", "/events", json=[heard])
        for _ in range(100):  # the server writes it down in its own time
            if ingest_flow._was_heard(other):
                break
            time.sleep(0.1)
    assert ingest(dataset.model_copy(update={"options": {**dataset.options, "seed": 1}})).version == other.version
    assert len(announced) == 4, "the server has it"


def test_a_server_that_does_not_answer_has_not_heard(
    stages: Stages, recipe: str, announced: list[tuple[str, str, UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("no server")

    dataset = Recipe.load(recipe).dataset
    ingest(dataset)
    with monkeypatch.context() as patch:
        patch.setattr("flows.ingest.get_client", refuse)
        ingest(dataset)
    assert len(announced) == 2


def test_an_artifact_that_fails_costs_no_announcement(
    stages: Stages, recipe: str, announced: list[tuple[str, str, UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise UnreachableError("Prefect went away")

    monkeypatch.setattr("flows.ingest.show_dataset", fail)
    with pytest.raises(UnreachableError, match="Prefect went away"):
        ingest(Recipe.load(recipe).dataset)
    assert len(announced) == 1


def test_another_flow_announces_what_it_publishes_and_a_retrain_nothing(
    stages: Stages, recipe: str, announced: list[tuple[str, str, UUID]]
) -> None:
    retrain(recipe)
    train(recipe, "first")
    assert announced == [], "the retrain has trained on it"
    train(recipe, "first", ("dataset.options.seed=1",))
    evaluate(recipe, "models/first", "first", ("dataset.options.seed=1",))
    evaluate(recipe, "models/first", "first", ("dataset.options.seed=2",))
    assert [version for _, version, _ in announced] == [version for _, version, _ in stages.scored]


def test_a_model_is_scored_on_the_newest_state_of_the_dataset(stages: Stages, recipe: str) -> None:
    state = evaluate(recipe, "models/first", "first", ("evaluate.split=val",), return_state=True)
    assert state.result().label == "first"
    version = ingest(Recipe.load(recipe).dataset).version
    assert stages.scored == [("models/first", version, "val")]
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(state.state_details.flow_run_id).name == "evaluate tiny_set first"


def test_an_evaluation_on_a_split_that_is_not_there_ingests_nothing(
    stages: Stages, recipe: str, announced: list[tuple[str, str, UUID]]
) -> None:
    with pytest.raises(InputError, match=r"evaluate\.split is 'dev', but the source scenes has the splits"):
        evaluate(recipe, "models/first", "first", ("evaluate.split=dev",))
    assert (stages.scored, announced) == ([], [])


def test_a_promotion_ingests_nothing_and_shows_its_verdict(
    stages: Stages, recipe: str, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.stages.ingest.ingest", lambda *_, **__: pytest.fail("something was ingested"))
    state = promote(recipe, return_state=True)
    verdict = state.result()
    assert isinstance(verdict, Verdict)
    assert (state.type, verdict.outcome, stages.judged) == (StateType.COMPLETED, "promoted", ["tiny_set again"])
    assert "Champion: **first**" in artifacts("markdown")["verdict-tiny-set"]
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(state.state_details.flow_run_id).name == "promote tiny_set"


def test_a_refused_challenger_ends_the_promotion_red(stages: Stages, recipe: str, artifacts: Artifacts) -> None:
    state = promote(recipe, ("promote.floor=0.9",), return_state=True)
    assert state.type == StateType.FAILED
    assert "refused: first (miou 0.5000) would be the first champion, but is below" in (state.message or "")
    ended = pickle.loads(pickle.dumps(state.result(raise_on_failure=False)))
    assert isinstance(ended, EndedRedError)
    assert isinstance(ended.result, Verdict)
    assert str(ended) == state.message
    assert "Champion: **nobody yet**" in artifacts("markdown")["verdict-tiny-set"]


@pytest.mark.parametrize(
    ("error", "attempts"), [(UnreachableError("the store went away"), 3), (InputError("no such model"), 1)]
)
def test_scoring_and_judging_are_tried_again_only_when_that_can_help(
    stages: Stages, recipe: str, error: Exception, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.outcomes["first"] = error
    tasks: list[Task[..., Any]] = [evaluate_model, judge_last_night]
    for task in tasks:
        monkeypatch.setattr(task, "retry_delay_seconds", 0)
    with pytest.raises(type(error)):
        evaluate(recipe, "models/first", "first")
    with pytest.raises(type(error)):
        promote(recipe)
    assert (len(stages.scored), len(stages.judged)) == (attempts, attempts)


def test_predictions_are_shown_and_tried_again_where_that_can_help(
    stages: Stages, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    told: list[dict[str, Any]] = []
    monkeypatch.setattr("flows.predict.emit_event", lambda event, **said: told.append({"event": event, **said}))
    bad = QuarantineEntry(file="a.jpg", item="a", reason="truncated", detail="")
    made = PredictedDataset(
        name="roofs_said",
        uri="there",
        version="12ab" * 16,
        status="published",
        model="runs/unet/model",
        weights_sha256="cd" * 32,
        splits={"images": 5},
        parts=3,
        kept=1,
        uncertainty=True,
        quarantined=(bad,),
        notes=(),
        seconds=2.0,
        images_per_second=1.5,
        drift=DRIFTED,
    )

    def answer(*arguments: str, on_progress: Callable[[int, int], None], **options: Any) -> PredictedDataset:
        asked.append((arguments, options))
        on_progress(0, 5)
        if len(asked) == 1:
            raise UnreachableError("lost the Ray cluster")
        return made

    monkeypatch.setattr(predict_stage, "predict_dataset", answer)
    monkeypatch.setattr(predict_images, "retry_delay_seconds", 0)
    state = predict("models:/roofs@champion", "photos", "roofs_said", window="512x1024", return_state=True)
    assert state.result() == made
    usual = {"name": "roofs_said", "split": None, "version": None, "window": (512, 1024), "batch_size": 4}
    usual |= {"least_score": 0.5, "drift_threshold": 0.2}
    assert asked == [(("models:/roofs@champion", "photos"), usual)] * 2
    shown = artifacts("markdown")["predictions-roofs-said"]
    assert "| images | 5 |" in shown
    assert "1 of 3 parts were there." in shown
    assert "- a.jpg: truncated" in shown
    assert "## Drift" in shown
    assert f"- {MOVED.sentence}" in shown
    assert "width" not in shown, "which has not moved"
    assert "- `images/7`" in shown
    (event,) = told
    assert (event["event"], event["resource"]) == (
        "segpipe.drift.detected",
        {
            "prefect.resource.id": "segpipe.model.roofs",
            "prefect.resource.name": "runs/unet/model",
            "segpipe.dataset": "roofs",
            "segpipe.weights": "cd" * 32,
        },
    )
    assert event["payload"]["moved"] == {"brightness": 0.9}
    assert (event["payload"]["to_label"], event["payload"]["uri"]) == (["images/7"], "there")
    predict("models:/roofs@champion", "photos", "roofs_said", window="512x1024")
    made = replace(made, version="34cd" * 16)
    predict("models:/roofs@champion", "photos", "roofs_said", window="512x1024")
    assert [each["id"] == event["id"] for each in told] == [True, True, False], "an id for the same answers"
    made = replace(made, drift=replace(DRIFTED, has_drifted=False, shifts=(), to_label=(), sentence="no drift: all"))
    predict("models:/roofs@champion", "photos", "roofs_said", window="512x1024")
    assert len(told) == 3
    assert "no drift: all" in artifacts("markdown")["predictions-roofs-said"]
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(state.state_details.flow_run_id).name == "predict roofs_said"
