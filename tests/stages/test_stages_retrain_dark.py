"""Nights without Ray in which MLflow is down at first and architectures fail: nothing is lost, and it catches up."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from segpipe import promotion, storage
from segpipe.config import Recipe
from segpipe.stages import layout, nights
from segpipe.stages.retrain import retrain
from tests.fixtures.folder_mini import write_folder_mini
from tests.stages.toy_night import ARCHITECTURES, SCENES, Told, forbid_work, recipe, surroundings, tell

pytestmark = pytest.mark.xdist_group("dark-nights")

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def other_home(new_home: Callable[[], Path]) -> Path:
    return new_home()


@pytest.fixture(scope="module")
def mine(other_home: Path) -> Recipe:
    """A user's folder, a good architecture, one that is asked too much and one that blows up."""
    write_folder_mini(other_home / "mine", count=15, lists=True, height=32, width=40)
    architectures = [
        ARCHITECTURES[0],
        {**ARCHITECTURES[1], "label": "greedy", "train": {"batch_size": 64}},
        {**ARCHITECTURES[0], "label": "wild", "train": {"optimizer": "sgd", "learning_rate": 1e30}},
    ]
    document = SCENES | {
        "name": "mine",
        "dataset": {"name": "mine", "format": "folder", "root": str(other_home / "mine")},
        "architectures": architectures,
        "evaluate": {"split": "val", "pictures": 1},
    }
    return recipe(document=document)


@pytest.fixture(scope="module")
def good(mine: Recipe) -> Recipe:
    """The same without the two that fail."""
    return mine.model_copy(update={"architectures": mine.architectures[:1]})


@dataclass(frozen=True, kw_only=True)
class DarkNight:
    told: Told
    warnings: tuple[str, ...]


@pytest.fixture(scope="module")
def dark(other_home: Path, mine: Recipe) -> DarkNight:
    """A night without MLflow in which two of three architectures fail."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("segpipe").addHandler(handler)
    try:
        with surroundings(other_home, mlflow_uri=NOBODY):
            return DarkNight(told=tell(mine), warnings=tuple(heard))
    finally:
        logging.getLogger("segpipe").removeHandler(handler)


def test_without_mlflow_everything_is_done_all_the_same(dark: DarkNight, other_home: Path) -> None:
    result = dark.told.result
    assert (result.verdict.outcome, result.mlflow_uri, result.mlflow_url) == ("promoted", NOBODY, None)
    assert [row.label for row in result.board] == ["unet"]
    assert (dark.told.decisions, dark.told.nights) == (1, 1)
    assert any("is not in MLflow yet and will be caught up by the next run" in text for text in dark.warnings)
    assert any("http://127.0.0.1:9 cannot be used" in text for text in dark.warnings)
    assert not (other_home / "mlartifacts").exists()


def test_an_architecture_that_fails_is_reported_and_the_others_go_on(dark: DarkNight, other_home: Path) -> None:
    failures = dark.told.result.failures
    assert set(failures) == {"greedy", "wild"}
    assert "split 'train' has 12 samples, and one step needs 64" in failures["greedy"]
    assert failures["wild"].startswith("loss ")
    assert dark.told.result.verdict.champion is not None
    assert dark.told.result.verdict.champion.label == "unet"
    written = storage.records(str(other_home / "nights" / "mine"))[0][1]
    assert (written["failures"], written["outcome"]) == (failures, "promoted")


@pytest.fixture(scope="module")
def unfinished(other_home: Path, good: Recipe, dark: DarkNight) -> Told:
    """The next night finds that the one before was killed before it wrote down what it came to."""
    with surroundings(other_home, mlflow_uri=NOBODY) as patch:
        storage.delete_tree(layout.nights_uri("mine"))
        forbid_work(patch)
        return tell(good)


def test_a_night_killed_before_its_last_record_is_finished_by_the_next(
    unfinished: Told, dark: DarkNight, other_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (unfinished.result.did_nothing, unfinished.nights, unfinished.decisions) == (False, 1, 1)
    assert unfinished.result.verdict == dark.told.result.verdict
    monkeypatch.setenv("SEGPIPE_HOME", str(other_home))
    assert nights.board("mine") == list(dark.told.result.board)
    assert nights.board() == nights.board("mine"), "the only experiment need not be named"


@pytest.fixture(scope="module")
def bright(other_home: Path, good: Recipe, unfinished: Told) -> Told:
    """MLflow is back."""
    with surroundings(other_home) as patch:
        forbid_work(patch)
        return tell(good)


def test_mlflow_catches_up_when_it_is_back(bright: Told, other_home: Path) -> None:
    assert (bright.result.did_nothing, bright.decisions, bright.nights) == (True, 1, 1)
    client = MlflowClient(f"sqlite:///{other_home}/mlflow.db")
    row = bright.result.board[0]
    children, nights_shown = _shown(client)
    child = children["unet"]
    assert child.data.metrics["evaluated_val/miou"] == pytest.approx(row.value)
    assert len(client.get_metric_history(child.info.run_id, "train/loss")) == 3
    assert len(client.list_artifacts(child.info.run_id, "pictures")) == 1
    alias = client.get_model_version_by_alias("mine", "champion")
    standing = promotion.champion(str(other_home / "ledger" / "mine"))
    assert standing is not None
    assert standing.champion is not None
    assert alias.tags["segpipe.weights_sha256"] == standing.champion.weights_sha256 == row.weights_sha256
    assert child.data.tags["mlflow.parentRunId"] == nights_shown[0].info.run_id, "the night that trained it"
    assert ["wild" in run.data.tags["mlflow.note.content"] for run in nights_shown] == [True, False]
    assert all("**promoted**" in run.data.tags["mlflow.note.content"] for run in nights_shown)
    assert {run.info.status for run in (child, *nights_shown)} == {"FINISHED"}
    assert storage.list_names(str(other_home / "pending" / "mine")) == []


def _shown(client: MlflowClient) -> tuple[dict[str, Run], list[Run]]:
    """The runs of architectures by name, and the nights that MLflow was shown, oldest first."""
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    below = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    children = {run.info.run_name: run for run in below}
    assert len(children) == len(below), "no architecture is there twice"
    return children, [run for run in runs if run not in below]


def test_an_alias_that_somebody_moved_is_set_right_by_the_next_night(
    bright: Told, other_home: Path, good: Recipe
) -> None:
    client = MlflowClient(f"sqlite:///{other_home}/mlflow.db")
    right = client.get_model_version_by_alias("mine", "champion").version
    client.delete_registered_model_alias("mine", "champion")
    with surroundings(other_home) as patch:
        forbid_work(patch)
        assert retrain(good, runtime="local").did_nothing
    assert client.get_model_version_by_alias("mine", "champion").version == right


def test_a_registered_champion_predicts(bright: Told, other_home: Path) -> None:
    import numpy as np

    mlflow.set_tracking_uri(f"sqlite:///{other_home}/mlflow.db")
    labels = mlflow.pyfunc.load_model("models:/mine@champion").predict(np.zeros((1, 20, 30, 3), np.uint8))
    assert labels.shape == (1, 20, 30)
    assert int(labels.max()) < 3
