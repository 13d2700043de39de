"""The flows run for real on a Prefect server; what they call is replaced, except for a tiny ingest."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import __main__ as door
from flows import environment, hooks, limits
from flows.endings import EndedRedError
from flows.retrain import retrain
from flows.train import train, train_architecture
from segpipe.config import Recipe
from segpipe.errors import InputError, NonFiniteError, SegpipeError, StorageFullError, UnreachableError
from segpipe.stages import opening
from segpipe.stages import retrain as night_stage
from segpipe.stages.halving import search as halving
from segpipe.stages.halving.ladder import Climb, Rung
from segpipe.stages.halving.search import Search
from segpipe.stages.ingest import IngestResult
from segpipe.stages.results import RetrainResult
from segpipe.types import TrainPause
from tests.flows.conftest import Stages

pytestmark = pytest.mark.xdist_group("prefect")
Artifacts = Callable[[str], dict[str, Any]]


def run(flow_state: State[Any]) -> tuple[FlowRun, list[TaskRun]]:
    """The flow run that ended in this state, and its task runs, as the server has them."""
    assert flow_state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(flow_state.state_details.flow_run_id)
        only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        return flow_run, client.read_task_runs(flow_run_filter=only)


def test_a_night_trains_every_architecture_judges_and_shows(
    stages: Stages, recipe: str, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night_stage, "best_picture", lambda recipe, candidates: b"\x89PNG...")
    state = retrain(recipe, return_state=True)
    result = state.result()
    assert isinstance(result, RetrainResult)
    assert (state.type, result.did_nothing, dict(result.failures)) == (StateType.COMPLETED, False, {})
    assert stages.tried == ["first", "second", "third"]
    assert sorted(stages.trained) == ["first", "second", "third"]
    assert stages.judged == ["first", "second", "third"]  # in the recipe's order, whoever was ready first
    assert [row.label for row in result.board] == ["second", "third", "first"]

    flow_run, task_runs = run(state)
    assert flow_run.name == "retrain tiny_set"
    expected = {"train first", "train second", "train third", "choose the champion of tiny_set"}
    assert expected <= {task_run.name for task_run in task_runs}
    story = artifacts("markdown")["night-tiny-set"]
    rows = [line.split(" | ")[:3] for line in story.splitlines() if line.startswith(("| 1", "| 2", "| 3"))]
    assert rows == [["| 1", "second", "0.7000"], ["| 2", "third", "0.6000"], ["| 3", "first", "0.5000"]]
    assert "![predictions](data:image/png;base64,iVBORy4uLg==)" in story
    assert story.startswith("## promoted\n\nsecond (miou 0.7000) is the first champion")
    assert "| train | 2 |" in artifacts("markdown")["dataset-tiny-set"]


def test_a_failed_architecture_does_not_stop_the_others_but_the_night_ends_red(stages: Stages, recipe: str) -> None:
    stages.outcomes["second"] = NonFiniteError("loss nan at step 3")
    state = retrain(recipe, return_state=True)
    assert state.type == StateType.FAILED
    assert (state.message or "").startswith("promoted: third (miou 0.6000) is the first champion")
    assert (state.message or "").endswith("; second failed: loss nan at step 3")
    ended = state.result(raise_on_failure=False)
    assert isinstance(ended, EndedRedError)
    result = ended.result
    assert isinstance(result, RetrainResult)
    assert [row.label for row in result.board] == ["third", "first"]
    assert dict(result.failures) == {"second": "loss nan at step 3"}
    assert stages.trained.count("second") == 1  # a NaN is not tried again


def test_a_night_that_left_no_model_says_what_became_of_each(stages: Stages, recipe: str, artifacts: Artifacts) -> None:
    stages.outcomes |= dict.fromkeys(stages.outcomes, NonFiniteError("a NaN"))
    assert retrain(recipe, return_state=True).type == StateType.FAILED
    assert "- **third** failed: a NaN" in artifacts("markdown")["night-tiny-set"]


def test_a_night_within_a_budget_pauses_at_rungs_and_trains_the_better_part_to_its_end(
    stages: Stages, recipe: str, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "home"))
    scores = {"first": 0.1, "second": 0.3, "third": 0.2}
    climbs = [Climb(label=label, start=0, until=10, steps=100, planned=0.1) for label in scores]
    opened = stages.open_night

    def open_night(recipe: Recipe, dataset: IngestResult) -> opening.OpenNight:
        assert recipe.budget is not None
        night = opened(recipe, dataset)
        rung = Rung(number=1, share=0.1, climbs=tuple(climbs))
        search = Search(recipe=recipe, budget=recipe.budget, runs=night.runs, version="v1")
        return dataclasses.replace(night, search=halving._recorded(search, rung))

    def train_part(search: Search, climb: Climb, **_: Any) -> TrainPause:
        return TrainPause(
            label=climb.label,
            step=climb.until,
            total_steps=climb.steps,
            primary="miou",
            score=scores[climb.label],
            train_seconds=360.0,
            scoring_seconds=0.0,
        )

    monkeypatch.setattr(opening, "open_night", open_night)
    monkeypatch.setattr(halving, "train_part", train_part)
    unlike = (
        "architectures.1.arch=enet",
        "architectures.2.arch=segnet",
    )  # of one kind, one's weights are all of theirs
    state = retrain(recipe, ("budget.hours=2", *unlike), return_state=True)
    result = state.result()
    assert (stages.trained, [row.label for row in result.board]) == (["second"], ["second"])
    assert {f"train {label} to step 10" for label in scores} <= {task_run.name for task_run in run(state)[1]}
    page = artifacts("markdown")["night-tiny-set"]
    rungs = page[page.index("### The budget") : page.index("### Look closer")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rungs.splitlines() if line.startswith("|")]
    assert [(row[0], row[1], row[-1]) for row in rows[2:]] == [
        ("1", "second", "goes on"),
        ("1", "third", "dropped"),
        ("1", "first", "dropped"),
        ("2", "second", "not finished"),
    ]
    stages.outcomes["second"] = NonFiniteError("a NaN")
    assert retrain(recipe, ("budget.hours=2", *unlike), return_state=True).type == StateType.FAILED
    page = artifacts("markdown")["night-tiny-set"]
    assert page.startswith("## failed: no architecture of those that the budget left could be trained and evaluated")
    assert "- **second** failed: a NaN" in page
    assert [row in page for row in ("| dropped |", "### The budget")] == [True, True]


def test_one_that_starts_from_another_waits_for_it_even_where_it_fails(stages: Stages, recipe: str) -> None:
    stages.outcomes["second"] = NonFiniteError("a NaN")
    starts = ("architectures.1.start_from=first", "architectures.2.start_from=second")
    state = retrain(recipe, starts, return_state=True)
    assert stages.trained == ["first", "second", "third"]
    assert stages.judged == ["first", "third"]
    assert state.type == StateType.FAILED


def test_a_wrong_recipe_fails_before_any_work(stages: Stages, recipe: str) -> None:
    with pytest.raises(InputError, match="no_such_key"):
        retrain(recipe, ("train.no_such_key=1",))
    assert stages.trained == []


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (UnreachableError("Ray went away"), 3),
        (InputError("no such split"), 1),
        (SegpipeError("its workers failed more than 3 times"), 1),
        (StorageFullError("3 bytes short"), 1),
        (KeyError("a bug"), 1),
    ],
    ids=["lost cluster", "wrong input", "workers that die", "disk full", "bug"],
)
def test_training_is_tried_again_only_when_that_can_help(
    stages: Stages, recipe: str, error: Exception, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.outcomes["first"] = error
    monkeypatch.setattr(train_architecture, "retry_delay_seconds", 0)
    with pytest.raises(type(error)):
        train(recipe, "first")
    assert stages.trained == ["first"] * attempts
    assert stages.closed == ["failed"]


def test_a_training_on_its_own_ends_its_run_in_mlflow_and_is_named(stages: Stages, recipe: str) -> None:
    state = train(recipe, "second", return_state=True)
    assert (state.result().label, stages.closed) == ("second", ["finished"])
    assert run(state)[0].name == "train tiny_set second"
    with pytest.raises(InputError, match="no architecture is labelled 'fourth'; there are: first, second, third"):
        train(recipe, "fourth")
    assert stages.trained == ["second"]


def test_a_night_whose_challenger_is_refused_ends_red(stages: Stages, recipe: str) -> None:
    stages.floor = 0.9
    state = retrain(recipe, return_state=True)
    assert state.type == StateType.FAILED
    assert "refused: second (miou 0.7000) would be the first champion, but is below the floor" in (state.message or "")
    ended = state.result(raise_on_failure=False)
    assert isinstance(ended, EndedRedError)
    assert isinstance(ended.result, RetrainResult)


def test_the_training_limit_is_made_once_and_a_person_s_value_stays(stages: Stages) -> None:
    with limits.slot_for_training(), get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(limits.TRAINING).active_slots == 1
        client.upsert_global_concurrency_limit_by_name(limits.TRAINING, 5)
    with limits.slot_for_training(), get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(limits.TRAINING).limit == 5


def test_without_a_server_there_is_no_limit_that_a_killed_run_could_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "get_client", lambda **_: pytest.fail("a server was asked"))
    with temporary_settings(restore_defaults={PREFECT_API_URL}), limits.slot_for_training():
        entered = True
    assert entered


def test_from_a_terminal_it_shows_the_board_and_how_to_look_around(
    stages: Stages, recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "prepare", lambda: None)
    with pytest.raises(SystemExit) as left:
        door.main(recipe)
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert "Leaderboard: test split" in printed
    assert "promoted:" in printed
    assert "mlflow server" in printed
    assert "prefect server start" in printed


def test_from_a_terminal_a_refused_challenger_has_status_1_as_in_the_command_line(
    stages: Stages, recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "prepare", lambda: None)
    stages.floor = 0.9
    with pytest.raises(SystemExit) as left:
        door.main(recipe)
    assert left.value.code == 1
    assert "refused:" in capsys.readouterr().out


def test_from_a_terminal_a_typo_is_named_and_has_the_status_of_wrong_input(
    stages: Stages, recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "prepare", lambda: None)
    with pytest.raises(SystemExit) as left:
        door.main(recipe, ["train.epoch=3"])
    assert left.value.code == 2
    assert "train.epoch: unknown key" in capsys.readouterr().out


def test_prefect_s_home_is_ours_unless_the_user_chose_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_HOME")
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_LOGGING_EXTRA_LOGGERS", "mine")
    environment.prepare()
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "home" / "prefect")
    assert Path(os.environ["PREFECT_HOME"]).is_dir()
    assert os.environ["PREFECT_LOGGING_EXTRA_LOGGERS"] == "mine"
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "chosen"))
    environment.prepare()
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "chosen")


# By a thread: where SIGALRM has a handler, as by the other method, Prefect's own limit cannot interrupt a wait.
@pytest.mark.timeout(method="thread")
def test_a_night_that_hangs_is_ended_when_its_time_is_over(
    stages: Stages, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its process: Prefect itself would wait for the thread that hangs, and what it holds would stay held."""
    over, ended, freed = threading.Event(), list[tuple[int, bool]](), list[bool]()

    def end(status: int) -> None:
        ended.append((status, over.is_set()))
        over.set()

    monkeypatch.setattr(hooks, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(hooks.os, "_exit", end)
    monkeypatch.setattr(night_stage, "train_and_evaluate", lambda *_, **__: freed.append(over.wait(60)))
    state = retrain.with_options(timeout_seconds=5)(recipe, return_state=True)
    assert ended == [(1, False)]
    assert freed
    assert all(freed), "by the end of the process, not by the hanging thread's own"
    assert state.name == "TimedOut"


def test_a_night_that_ends_red_is_announced(stages: Stages, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr("flows.hooks.emit_event", lambda event, resource, payload: told.append((event, payload)))
    stages.outcomes["first"] = InputError("no such split")
    retrain(recipe, return_state=True)
    ((event, payload),) = told
    assert event == "segpipe.flow.failed"
    assert (payload["run"], payload["state"]) == ("retrain tiny_set", "Failed")
    assert "first failed: no such split" in payload["message"]
