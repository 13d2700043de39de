"""A real night within a budget, without Ray: four become two and one; killed in its middle, told again when done."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from segpipe import storage
from segpipe.stages import rehearsal
from segpipe.stages import train as train_stage
from segpipe.stages.gc import runs as gc_runs
from segpipe.stages.retrain import RetrainResult, retrain
from segpipe.types import TrainProgress
from tests.fixtures.train_worker import run_child
from tests.stages import toy_night
from tests.stages.halved_night import patched, recipe

pytestmark = pytest.mark.xdist_group("nights")


def night_that_dies(home: str, step: int) -> None:
    """Is killed when a training reports a step."""

    def watch(label: str, progress: TrainProgress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)  # as here: sums of two threads end in other bits
    with toy_night.surroundings(Path(home)) as patch:
        patched(patch)
        retrain(recipe(), runtime="local", on_progress=watch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """A night that was killed and goes on, what it said, and the one after it, in which nothing was left to do."""

    result: RetrainResult
    again: RetrainResult
    told: tuple[str, ...]


@pytest.fixture(scope="module")
def story(home: Path) -> Story:
    told: list[str] = []
    assert run_child(night_that_dies, str(home), 3) == (-9, None)  # in rung two
    with toy_night.surroundings(home) as patch:
        patched(patch)
        result = retrain(recipe(), runtime="local", on_step=told.append)
        toy_night.forbid_work(patch)
        patch.setattr(train_stage, "fit_until", lambda *_, **__: pytest.fail("a model was trained"))
        patch.setattr(rehearsal, "rehearse_night", lambda *_, **__: pytest.fail("a training was tried"))
        return Story(result=result, again=retrain(recipe(), runtime="local"), told=tuple(told))


def test_four_become_two_and_one_though_the_night_was_killed(story: Story) -> None:
    budget = story.result.budget
    assert budget is not None
    assert [[climb.until for climb in rung.climbs] for rung in budget.rungs] == [[2, 2, 2, 2], [5, 5], [8]]
    assert [climb.fate for climb in budget.rungs[-1].climbs] == ["trained"]
    assert budget.spent == 4 * 2 + 2 * 3 + 3
    assert (budget.full_grid, round(budget.saved, 4)) == (4 * 8, round(1 - 17 / 32, 4))
    winner = budget.rungs[-1].climbs[0].label
    assert [row.label for row in story.result.board] == [winner]
    assert set(budget.left_out) == {"rate0", "rate1", "rate2", "rate3", "both"} - {winner}
    assert story.result.failures == {}
    assert {part[:8] for part in story.told if "rung" in part} == {"rung 2: "}, "the first is not trained again"


def test_the_winner_is_what_a_training_without_a_budget_would_have_been(story: Story, home: Path) -> None:
    (row,) = story.result.board
    run = recipe().run_config(recipe().index_of(row.label))
    with toy_night.surroundings(home):
        unpaused = train_stage.train(
            run,
            data=story.result.dataset.uri,
            version=story.result.dataset.version,
            to=str(home / "elsewhere"),
            resources=recipe().resources,
            runtime="local",
        )
    assert unpaused.weights_sha256 == row.weights_sha256


def test_a_paused_training_is_none_that_is_finished(story: Story, home: Path) -> None:
    assert story.result.budget is not None
    left = {Path(place.name).name.rpartition("-")[0] for place in gc_runs.look(str(home / "runs"))[1]}
    assert left == set(story.result.budget.left_out) - {"both"}
    for folder in (home / "runs" / "halved").iterdir():
        ended = folder.name.rpartition("-")[0] not in left
        assert (folder / "train.json").exists() == (folder / "model" / "model.json").exists() == ended
    evaluated = {path.name.rpartition("-")[0] for path in (home / "evaluations" / "halved").glob("*/*")}
    assert evaluated == {row.label for row in story.result.board}


def test_the_night_is_on_record_and_done(story: Story, home: Path) -> None:
    assert story.again.did_nothing
    assert story.again.budget == story.result.budget
    assert story.again.board == story.result.board
    ((_, night),) = storage.records(str(home / "nights" / "halved"))
    assert night["budget"] == json.loads(json.dumps(dataclasses.asdict(story.result.budget)))  # type: ignore[arg-type]


def test_mlflow_shows_who_was_dropped(story: Story, home: Path) -> None:
    runs = toy_night.runs_of(MlflowClient(f"sqlite:///{home}/mlflow.db"), "halved")
    assert story.result.budget is not None
    trained = {name: run.info.status for name, run in runs.items() if name.startswith("rate")}
    gone = story.result.budget.left_out
    assert trained == {name: "KILLED" if name in gone else "FINISHED" for name in trained}
    assert len(trained) == 4
