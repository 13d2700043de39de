"""A night that MLflow did not see is shown by the next one, whatever that one trains; nothing is trained here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from segpipe import checkpoint, promotion, reports, storage
from segpipe.config import PromoteConfig, Recipe
from segpipe.leaderboard import rank
from segpipe.promotion import Verdict
from segpipe.stages import layout, mirror, pending
from segpipe.stages.evaluate import evaluation_uri
from segpipe.stages.identity import resolve
from segpipe.types import EvalReport, TrainResult
from segpipe.version import code_version
from tests.fixtures.example_reports import evidence, scored, train_result
from tests.fixtures.mlflow_store import make_bundle
from tests.fixtures.small import publish_small, small_samples
from tests.fixtures.unproven import promote_unproven as promote
from tests.stages.toy_night import recipe, runs_of, surroundings

NOBODY = "http://127.0.0.1:9"
PICTURES = [("a.png", next(small_samples("test", 1)).image)]


@dataclass(frozen=True, kw_only=True)
class Night:
    """What a night of two architectures leaves in its home, whether or not MLflow sees it."""

    home: Path
    recipe: Recipe
    data: str
    version: str
    results: tuple[TrainResult, ...]
    reports: tuple[EvalReport, ...]

    def tell(self) -> Verdict:
        """Shows all of it, as the stages do."""
        runs = [resolve(run) for run in self.recipe.run_configs()]
        parent = mirror.open_parent(self.recipe, runs, data=self.data, version=self.version)
        for run, result, report in zip(runs, self.results, self.reports, strict=True):
            mirror.show_run(self.recipe, run, result, report, PICTURES, parent=parent, data=self.data)
        config = PromoteConfig()
        verdict = promote(
            "toy", self.reports, config=config, champion_report_of=lambda _: self.reports[0], parent=parent
        )
        mirror.show_pages("toy", self.reports[0], **self.pages, parent=parent)
        return verdict

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.home}/mlflow.db")

    @property
    def pending(self) -> list[str]:
        return pending.files("toy")

    @property
    def pages(self) -> dict[str, str]:
        return {name: storage.join(layout.home(), f"{name}.html") for name in ("card", "side_by_side")}


@pytest.fixture
def night(new_home: Callable[[], Path]) -> Iterator[Night]:
    home, asked = new_home(), recipe()
    data = str(home / "data")
    version = publish_small(data, train=2, val=1, test=2)
    with surroundings(home):
        made = [_result(asked, index, version) for index in range(2)]
        told = tuple(_report(asked, result, value) for result, value in zip(made, (0.5, 0.4), strict=True))
        night = Night(home=home, recipe=asked, data=data, version=version, results=tuple(made), reports=told)
        for name, place in night.pages.items():
            storage.write_once(place, f"<p>{name}".encode())
        yield night


def _result(asked: Recipe, index: int, version: str) -> TrainResult:
    """The run of one architecture; its weights are those of a smaller network."""
    run = resolve(asked.run_config(index))
    run_uri = storage.join(layout.runs_uri("toy"), run.label)
    folder, bundle = make_bundle(Path(run_uri) / "made", seed=index)
    identity = {"config_digest": run.digest, "dataset_version": version, "code_version": code_version()}
    weights = checkpoint.load_model(folder)[0].state_dict()
    saved = checkpoint.save_model(run_uri, weights, replace(bundle, weights_sha256="", dataset="shapes", **identity))
    return train_result(
        experiment="toy",
        arch=run.arch,
        label=run.label,
        run_uri=run_uri,
        model_uri=checkpoint.model_uri(run_uri),
        weights_sha256=saved.weights_sha256,
        history=({"step": 1, "epoch": 0, "metrics": {"train/loss": 2.0}},),
        **identity,
    )


def _report(asked: Recipe, result: TrainResult, value: float) -> EvalReport:
    report = scored(
        value,
        result.label,
        experiment="toy",
        arch=result.arch,
        dataset="shapes",
        dataset_version=result.dataset_version,
        metrics={"miou": value},
        classes=("sky",),
        checkpoint=result.model_uri,
        weights_sha256=result.weights_sha256,
    )
    folder = evaluation_uri(asked, report)
    storage.write_json_once(storage.join(folder, "report.json"), reports.to_plain(report))
    return report


def _status(night: Night) -> dict[str, str]:
    return {name: run.info.status for name, run in runs_of(night.client, "toy").items()}


def test_a_dark_night_is_shown_when_mlflow_answers_again(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", NOBODY)
        verdict = night.tell()
        assert len(night.pending) == 4
        assert night.tell() == verdict
        assert len(night.pending) == 4, "the same again leaves nothing new"
        mirror.reconcile("toy")
        assert len(night.pending) == 4
    mirror.reconcile("toy")
    assert night.pending == []
    parent = f"retrain {night.version[:8]}"
    assert _status(night) == {"unet": "FINISHED", "deeplab_v3plus": "FINISHED", parent: "FINISHED"}
    runs, client = runs_of(night.client, "toy"), night.client
    note = runs[parent].data.tags["mlflow.note.content"]
    assert "**promoted**" in note
    assert "side by side, if that page could be made: [`side_by_side.html`](#/experiments/" in note
    assert runs[parent].data.metrics == {"test/miou": 0.5}
    assert {i.dataset.name for i in runs[parent].inputs.dataset_inputs} == {"shapes/train", "shapes/val", "shapes/test"}
    assert [item.path for item in client.list_artifacts(runs[parent].info.run_id)] == [
        "recipe.yaml",
        "side_by_side.html",
    ]
    assert "card.html" in [item.path for item in client.list_artifacts(runs["unet"].info.run_id)], "the challenger's"
    for result in night.results:
        child = runs[result.label]
        assert child.data.tags["mlflow.parentRunId"] == runs[parent].info.run_id
        assert child.data.metrics["train/loss"] == 2.0
    models = client.search_logged_models([runs[parent].info.experiment_id])
    assert sorted(model.source_run_id for model in models) == sorted(runs[r.label].info.run_id for r in night.results)
    assert client.get_model_version_by_alias("toy", "champion").run_id == runs["unet"].info.run_id


def test_two_dark_nights_of_unlike_recipes_are_both_shown(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    later = replace(night, recipe=night.recipe.model_copy(update={"architectures": night.recipe.architectures[:1]}))
    later = replace(later, results=night.results[:1], reports=night.reports[:1])
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", NOBODY)
        assert night.tell() == later.tell()
    assert len(night.pending) == 7
    mirror.reconcile("toy")
    experiment = night.client.get_experiment_by_name("toy")
    assert experiment is not None
    runs = night.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    first, second = (run for run in runs if run not in children)
    assert sorted(run.info.run_name for run in children) == ["deeplab_v3plus", "unet"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {first.info.run_id}, "the night that trained it"
    notes = [run.data.tags["mlflow.note.content"] for run in (first, second)]
    assert [text.count("deeplab_v3plus") > 0 for text in notes] == [True, False]
    assert all("**promoted**" in text for text in notes)
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_registry_says_who_is_champion_and_why(night: Night) -> None:
    first = night.tell()
    client, page = night.client, night.client.get_registered_model("toy").description
    assert "## Champion: unet, version 1" in page
    assert first.reason in page
    assert "mlflow models serve -m models:/toy@champion" in page
    better = replace(night.reports[1], **evidence(0.9, ("sky",)))
    verdict = promote("toy", [better], config=PromoteConfig(), champion_report_of=lambda _: night.reports[0])
    assert verdict.outcome == "promoted"
    old, new = (client.get_model_version("toy", number).description for number in ("1", "2"))
    assert old.startswith("Champion until ")
    assert "when `deeplab_v3plus` took over" in old
    assert new.startswith("Champion since ")
    assert "## Champion: deeplab_v3plus, version 2" in client.get_registered_model("toy").description


def test_a_champion_of_whom_only_the_ledger_knows_is_shown_with_its_data(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_small(layout.dataset_uri("shapes"), train=2, val=1, test=2)
    for result, run in zip(night.results, night.recipe.run_configs(), strict=True):
        storage.write_json_once(storage.join(result.run_uri, layout.RUN_CONFIG), resolve(run).identity)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", NOBODY)
        night.tell()
        for record in night.pending:
            storage.delete(record)
    mirror.reconcile("toy")
    (run,) = runs_of(night.client, "toy").values()
    shown = {(i.dataset.name, i.tags[0].value) for i in run.inputs.dataset_inputs}
    assert shown == {("shapes/train", "training"), ("shapes/val", "validation"), ("shapes/test", "evaluation")}


def test_a_registered_champion_needs_its_bundle_no_more(night: Night) -> None:
    night.tell()
    night.client.delete_registered_model_alias("toy", "champion")
    storage.delete_tree(night.results[0].model_uri)
    mirror.reconcile("toy")
    assert night.client.get_model_version_by_alias("toy", "champion").version == 1


def test_a_parent_deleted_in_the_night_costs_nobody_a_place(night: Night, caplog: pytest.LogCaptureFixture) -> None:
    runs = [resolve(run) for run in night.recipe.run_configs()]
    parent = mirror.open_parent(night.recipe, runs, data=night.data, version=night.version)
    night.client.delete_run(parent.run_id)
    verdict = promotion.judge(night.reports[0], None, promotion.Rules())
    mirror.show_verdict("toy", verdict, rank(night.reports), parent=parent)
    assert "is not in MLflow yet and will be caught up by the next run: MLflow at sqlite" in caplog.text
    assert len(night.pending) == 1


def test_a_record_that_cannot_be_shown_any_more_is_removed(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", NOBODY)
        night.tell()
    for result, report in zip(night.results, night.reports, strict=True):
        storage.delete_tree(evaluation_uri(night.recipe, report))
        storage.delete_tree(result.model_uri)
    for place in night.pages.values():
        storage.delete(place)
    storage.write_once(storage.join(layout.pending_uri("toy"), "run-damaged.json"), b"{")
    mirror.reconcile("toy")
    assert night.pending == []
