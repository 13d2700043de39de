"""Whole nights without Ray: board, champion and its mirror in MLflow; nothing done twice; what a bad night leaves.

Two stories of nights that follow each other, each told once for the module: one with MLflow up all the time, one
where it comes back after a night.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from segpipe import promotion, storage
from segpipe.config import Recipe
from segpipe.errors import InputError, SegpipeError
from segpipe.shards import open_dataset
from segpipe.stages import evaluate as evaluate_stage
from segpipe.stages import layout, nights, parts
from segpipe.stages import train as train_stage
from segpipe.stages.retrain import RetrainResult, check, retrain
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.small import OPTIONS

pytestmark = pytest.mark.xdist_group("nights")

NOBODY = "http://127.0.0.1:9"
ARCHITECTURES = [{"arch": name, "options": options} for name, options in OPTIONS.items()]
SCENES: dict[str, Any] = {
    "name": "toy",
    "description": "Two small models on a few made-up streets.",
    "dataset": {
        "name": "streets",
        "format": "scenes",
        "options": {"train": 8, "val": 2, "test": 3, "height": 32, "width": 40},
    },
    "architectures": ARCHITECTURES,
    "train": {"epochs": 1, "batch_size": 4, "augment": {"crop": [32, 32]}},
    "evaluate": {"pictures": 2},
}


def recipe(*overrides: str, document: dict[str, Any] = SCENES) -> Recipe:
    return Recipe.parse(document, origin="toy.yaml", overrides=overrides)


@contextmanager
def surroundings(home: Path, *, mlflow_uri: str | None = None) -> Iterator[pytest.MonkeyPatch]:
    """A home, one core, and maybe an MLflow of another address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGPIPE_HOME", str(home))
        patch.setattr(os, "sched_getaffinity", lambda _: {0})
        if mlflow_uri:
            patch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
        else:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield patch


def forbid_work(patch: pytest.MonkeyPatch) -> None:
    """Makes it an error to read an image, to train or to evaluate."""
    patch.setattr(parts, "write_part", lambda part: pytest.fail("an image was read"))
    patch.setattr(train_stage, "fit", lambda job, runtime: pytest.fail("a model was trained"))
    patch.setattr(evaluate_stage, "evaluate_share", lambda share: pytest.fail("a model was evaluated"))


@dataclass(frozen=True, kw_only=True)
class Told:
    """One night as it ended: what was returned, and how many records lay in the home then."""

    result: RetrainResult
    decisions: int
    nights: int
    steps: tuple[str, ...] = ()


def tell(recipe: Recipe) -> Told:
    steps: list[str] = []
    result = retrain(recipe, runtime="local", on_step=steps.append)
    return Told(
        result=result,
        decisions=len(promotion.history(layout.ledger_uri(recipe.name))),
        nights=len(storage.records(layout.nights_uri(recipe.name))),
        steps=tuple(steps),
    )


# --- MLflow is up


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    return new_home()


@pytest.fixture(scope="module")
def first(home: Path) -> Told:
    with surroundings(home):
        return tell(recipe())


@pytest.fixture(scope="module")
def again(home: Path, first: Told) -> Told:
    with surroundings(home) as patch:
        forbid_work(patch)
        return tell(recipe())


@pytest.fixture(scope="module")
def grown(home: Path, again: Told) -> Told:
    """The night after the dataset has changed."""
    with surroundings(home):
        return tell(recipe("dataset.options.seed=1"))


@pytest.fixture
def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow.db")


def runs_of(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """The runs of an experiment by name."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs), "no run is there twice"
    return {run.info.run_name: run for run in runs}


def test_a_night_ends_with_a_board_and_a_champion(home: Path, first: Told) -> None:
    result = first.result
    assert (result.experiment, result.did_nothing, result.failures) == ("toy", False, {})
    assert result.dataset.splits == {"train": 8, "val": 2, "test": 3}
    assert [row.rank for row in result.board] == [1, 2]
    assert {row.label for row in result.board} == {"unet", "deeplab_v3plus"}
    assert result.board[0].value >= result.board[1].value
    assert (result.verdict.outcome, result.verdict.previous) == ("promoted", None)
    assert result.verdict.champion is not None
    assert result.verdict.champion.weights_sha256 == result.board[0].weights_sha256
    assert (first.decisions, first.nights) == (1, 1)
    assert (result.home, result.mlflow_uri) == (str(home), f"sqlite:///{home}/mlflow.db")
    assert first.steps == ("ingesting streets", "training unet", "training deeplab_v3plus", "choosing the champion")


def test_the_board_is_there_without_the_night(home: Path, first: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    assert tuple(nights.board("toy")) == first.result.board
    assert "toy" in nights.experiments()
    with pytest.raises(InputError, match=r"no experiment 'tyo'; there are: .*toy"):
        nights.board("tyo")


def test_mlflow_shows_a_parent_and_a_child_for_each_architecture(home: Path, first: Told, client: MlflowClient) -> None:
    version = first.result.dataset.version
    runs = runs_of(client, "toy")
    parent = runs[f"retrain {version[:8]}"]
    assert (parent.info.status, parent.data.tags["dataset_version"]) == ("FINISHED", version)
    assert "Two small models on a few made-up streets." in parent.data.tags["mlflow.note.content"]
    for row in first.result.board:
        child = runs[row.label]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
        assert child.data.params["arch"] == row.arch
        assert child.data.params["train.epochs"] == "1"
        assert child.data.params["options.backbone"] == "mobilenet_v3_large"
        assert child.data.metrics["test/miou"] == pytest.approx(row.value)
        assert [metric.step for metric in client.get_metric_history(child.info.run_id, "train/loss")] == [1, 2]
        assert client.get_metric_history(child.info.run_id, "val/miou")[0].step == 2
        inputs = {(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in child.inputs.dataset_inputs}
        assert inputs == {
            ("streets/train", version[:12], "training"),
            ("streets/val", version[:12], "validation"),
            ("streets/test", version[:12], "evaluation"),
        }


def test_mlflow_holds_recipe_report_and_pictures(home: Path, first: Told, client: MlflowClient) -> None:
    run = runs_of(client, "toy")["unet"]
    artifacts = {item.path for folder in (None, "evaluation", "pictures") for item in
                 client.list_artifacts(run.info.run_id, folder)}  # fmt: skip
    assert {"recipe.yaml", "evaluation/report.json", "evaluation/per_class.json"} <= artifacts
    assert len([path for path in artifacts if path.startswith("pictures/") and path.endswith(".png")]) == 2
    local = client.download_artifacts(run.info.run_id, "recipe.yaml", str(home))
    assert Recipe.load(local) == recipe()


def test_the_champion_is_registered_and_loads_by_its_alias(first: Told, client: MlflowClient, home: Path) -> None:
    champion = client.get_model_version_by_alias("toy", "champion")
    challenger = client.get_model_version_by_alias("toy", "challenger")
    assert first.result.verdict.champion is not None
    registered = {v.tags["segpipe.weights_sha256"]: v for v in client.search_model_versions("name = 'toy'")}
    assert registered[champion.tags["segpipe.weights_sha256"]].tags["dataset"] == "streets"
    assert "Use it" in champion.description
    assert first.result.verdict.champion.weights_sha256 in registered
    assert challenger.tags["segpipe.weights_sha256"] in registered


def test_the_same_again_does_nothing_and_says_so(first: Told, again: Told) -> None:
    assert again.result.did_nothing
    assert again.result.dataset.status == "already_published"
    assert (again.result.board, again.result.verdict) == (first.result.board, first.result.verdict)
    assert (again.decisions, again.nights) == (first.decisions, first.nights)


def test_a_new_dataset_version_scores_the_champion_on_it_as_well(home: Path, first: Told, grown: Told) -> None:
    version, champion = grown.result.dataset.version, first.result.verdict.champion
    assert champion is not None
    assert version != first.result.dataset.version
    assert (grown.result.did_nothing, grown.decisions, grown.nights) == (False, 2, 2)
    assert {row.dataset_version for row in grown.result.board} == {version}
    record = promotion.history(str(home / "ledger" / "toy"))[-1]
    assert record.evaluation is not None
    assert (record.evaluation.dataset_version, record.evaluation.split) == (version, "test")
    assert record.previous == champion
    assert record.previous_score is not None
    assert record.previous_score.num_samples == 3
    assert record.challenger_score is not None
    assert record.challenger_score.value == pytest.approx(grown.result.board[0].value)
    assert record.delta == pytest.approx(record.challenger_score.value - (record.previous_score.value or 0))
    rescored = [
        evaluate_stage.load_report(str(folder)) for folder in (home / "evaluations" / "toy" / version[:12]).iterdir()
    ]
    assert champion.weights_sha256 in {report.weights_sha256 for report in rescored}
    assert open_dataset(grown.result.dataset.uri).version == version


def test_the_alias_follows_the_ledger(home: Path, grown: Told, client: MlflowClient) -> None:
    standing = promotion.champion(str(home / "ledger" / "toy"))
    assert standing is not None
    assert standing.champion is not None
    alias = client.get_model_version_by_alias("toy", "champion")
    assert alias.tags["segpipe.weights_sha256"] == standing.champion.weights_sha256
    challenger = client.get_model_version_by_alias("toy", "challenger")
    assert challenger.tags["segpipe.weights_sha256"] == grown.result.board[0].weights_sha256
    weights = {v.tags["segpipe.weights_sha256"] for v in client.search_model_versions("name = 'toy'")}
    assert len(weights) == len(client.search_model_versions("name = 'toy'")), "no weights are registered twice"


def test_when_every_architecture_fails_the_night_is_an_error_that_says_why(
    home: Path, first: Told, client: MlflowClient
) -> None:
    faults = ("architectures.0.train={batch_size: 64}", "architectures.1.train={learning_rate: 1e30}")
    doomed = recipe("name=doomed", *faults)
    with surroundings(home), pytest.raises(SegpipeError) as caught:
        retrain(doomed, runtime="local")
    message = str(caught.value)
    assert message.startswith("doomed: no architecture could be trained and evaluated: ")
    assert "unet: " in message
    assert "has 8 samples, and one step needs 64" in message
    assert "deeplab_v3plus: loss" in message
    assert promotion.history(str(home / "ledger" / "doomed")) == []
    statuses = {name: run.info.status for name, run in runs_of(client, "doomed").items()}
    parent = f"retrain {first.result.dataset.version[:8]}"
    assert statuses == {parent: "FAILED", "unet": "FAILED", "deeplab_v3plus": "FAILED"}


# --- MLflow is down for a night


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
    child = runs_of(client, "mine")["unet"]
    assert child.data.metrics["test/miou"] == pytest.approx(row.value)
    assert len(client.get_metric_history(child.info.run_id, "train/loss")) == 3
    assert len(client.list_artifacts(child.info.run_id, "pictures")) == 1
    alias = client.get_model_version_by_alias("mine", "champion")
    standing = promotion.champion(str(other_home / "ledger" / "mine"))
    assert standing is not None
    assert standing.champion is not None
    assert alias.tags["segpipe.weights_sha256"] == standing.champion.weights_sha256 == row.weights_sha256
    parent = next(run for name, run in runs_of(client, "mine").items() if name.startswith("retrain "))
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {run.info.status for run in runs_of(client, "mine").values()} == {"FINISHED"}


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


# --- before any work


def test_everything_that_a_recipe_names_wrongly_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    wrong = recipe(
        "dataset={name: a, format: foldr, root: x}",
        "architectures=[{arch: unett}, {arch: unet, options: {backbone: resnet19}}, {arch: unet, label: b, "
        "options: {depth: 3}}, {arch: fcn_resnet18, train: {batch_size: 3}}]",
        "resources.workers=2",
    )
    for refuse in (check, lambda found: retrain(found, runtime="local")):
        with pytest.raises(InputError) as caught:
            refuse(wrong)
        lines = str(caught.value).splitlines()
        assert lines[0] == "recipe 'toy':"
        assert "architectures.0: architecture: unknown 'unett'; did you mean 'unet'?" in lines[1]
        assert "architectures.1: " in lines[2]
        assert "resnet19" in lines[2]
        assert "architectures.2: unet: unknown option 'depth'" in lines[3]
        assert "architectures.3: batch_size 3 does not divide over resources.workers 2" in lines[4]
        assert "dataset: unknown source format 'foldr'; did you mean 'folder'" in lines[5]
        assert len(lines) == 6
    assert not Path(layout.home()).exists(), "nothing was written"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.options.heigth=4", "source 'scenes' has no option 'heigth'"),
        ("dataset.options.height=4", "source 'scenes', option 'height': 4; expected 32 to 4096"),
        ("dataset={name: a, format: camvid, root: $NOT_SET_ANYWHERE/camvid}", "names an environment variable"),
        ("dataset={name: a, format: folder, root: /absent}", "/absent"),
        ("architectures.0.options.width=wide", "option width: expected int, found 'wide'"),
    ],
)
def test_each_fault_of_a_recipe_is_refused_before_any_work(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check(recipe(override))
    assert message in str(caught.value)


def test_a_sound_recipe_passes(tmp_path: Path) -> None:
    check(recipe())
    assert not Path(layout.home()).exists()


def test_a_home_without_nights_has_no_board() -> None:
    assert nights.experiments() == []
    for look in (nights.board, nights.history):
        with pytest.raises(InputError, match="no retrain has finished here; run `segpipe retrain RECIPE`"):
            look("toy")
