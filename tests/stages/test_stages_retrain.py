"""Whole nights without Ray, told once for the module: board, champion and its mirror in MLflow; nothing done twice.

`test_stages_retrain_dark.py` tells of nights without MLflow.
"""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from segpipe import promotion, storage
from segpipe.config import Recipe
from segpipe.errors import InputError, SegpipeError
from segpipe.shards import open_dataset
from segpipe.stages import nights
from segpipe.stages.evaluations import load_report
from segpipe.stages.retrain import retrain
from tests.fixtures.page_rules import check_page, data_of
from tests.stages.toy_night import TRIED, Told, columns_of, forbid_work, recipe, runs_of, surroundings, tell

pytestmark = pytest.mark.xdist_group("nights")


@pytest.fixture(scope="module")
def first(home: Path) -> Told:
    """As a user's: each training is tried first, and the smoke prediction has its process."""
    with surroundings(home, fresh_process=True):
        return tell(recipe(TRIED))


@pytest.fixture(scope="module")
def again(home: Path, first: Told) -> Told:
    with surroundings(home) as patch:
        forbid_work(patch)
        return tell(recipe(TRIED))


@pytest.fixture(scope="module")
def grown(home: Path, again: Told) -> Told:
    """The night after the dataset has changed."""
    with surroundings(home):
        return tell(recipe("dataset.options.seed=1"))


@pytest.fixture
def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow.db")


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
    trained = ("training unet", "training deeplab_v3plus")
    steps = [
        step for step in first.steps if not step.startswith(("unet: ", "deeplab_v3plus: ", "at most "))
    ]  # of the trials
    assert steps == ["ingesting streets", "trying each training for some seconds", *trained, "choosing the champion"]


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


def test_a_table_of_all_runs_has_columns_that_can_be_looked_at(first: Told, client: MlflowClient) -> None:
    columns = columns_of(client, "toy")
    assert {"train/loss", "val/miou", "test/miou", "test/miou_low", "test/latency_ms", "cost/parameters"} <= columns
    assert len(columns) < 30
    assert not [name for name in columns if "sky" in name], "they do not grow with the classes"


def test_mlflow_holds_recipe_report_and_pictures(home: Path, first: Told, client: MlflowClient) -> None:
    run = runs_of(client, "toy")["unet"]
    artifacts = {item.path for folder in (None, "evaluation", "pictures") for item in
                 client.list_artifacts(run.info.run_id, folder)}  # fmt: skip
    assert {"recipe.yaml", "evaluation/report.json", "evaluation/per_class.json"} <= artifacts
    assert len([path for path in artifacts if path.startswith("pictures/") and path.endswith(".png")]) == 2
    local = client.download_artifacts(run.info.run_id, "recipe.yaml", str(home))
    assert Recipe.load(local) == recipe(TRIED)


def test_cards_and_the_page_of_the_night_lie_in_the_home_and_in_mlflow(
    home: Path, first: Told, client: MlflowClient
) -> None:
    result, runs = first.result, runs_of(client, "toy")
    page = check_page(Path(result.side_by_side or "").read_text())
    assert data_of(page)["labels"] == [row.label for row in result.board]
    night = runs[f"retrain {result.dataset.version[:8]}"]
    assert "side_by_side.html" in [item.path for item in client.list_artifacts(night.info.run_id)]
    assert "side_by_side.html" in night.data.tags["mlflow.note.content"]
    for row in result.board:
        assert "card.html" in [item.path for item in client.list_artifacts(runs[row.label].info.run_id)]
    card = check_page(Path(result.card or "").read_text())
    assert result.verdict.reason in card.text, "the challenger's card has the verdict"
    shown = client.download_artifacts(runs[result.board[0].label].info.run_id, "card.html")
    assert Path(shown).read_text() == Path(result.card or "").read_text()
    version = client.get_model_version_by_alias("toy", "champion")
    assert f"/runs/{version.run_id}/artifactPath/card.html" in version.description
    assert f") among the artifacts of the run `{result.board[0].label}`." in version.description


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
    rescored = [load_report(str(folder)) for folder in (home / "evaluations" / "toy" / version[:12]).iterdir()]
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
    (night,) = storage.records(str(home / "nights" / "doomed"))
    assert (night[1]["outcome"], night[1]["champion"], night[1]["evaluations"]) == ("failed", None, [])
    assert set(night[1]["failures"]) == {"unet", "deeplab_v3plus"}
    statuses = {name: run.info.status for name, run in runs_of(client, "doomed").items()}
    parent = f"retrain {first.result.dataset.version[:8]}"
    assert statuses == {parent: "FAILED", "unet": "FAILED", "deeplab_v3plus": "FAILED"}
