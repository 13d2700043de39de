"""What MLflow is shown, and that it gives way; the nights of `test_stages_retrain.py` show the rest."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from segpipe import promotion, storage, tracking
from segpipe.config import EvaluateConfig, PromoteConfig, ResourceConfig
from segpipe.errors import CorruptError, SegpipeError, UnreachableError
from segpipe.stages import display, layout, mirror, registration
from segpipe.stages.evaluate import evaluate, location
from segpipe.stages.evaluations import load_pictures
from segpipe.stages.identity import resolve
from segpipe.stages.ingest import ingest
from segpipe.stages.train import train
from tests.fixtures.ingest_worker import streets, write_streets
from tests.fixtures.small import small_run
from tests.fixtures.unproven import promote_unproven as promote


@pytest.mark.parametrize("fault", [UnreachableError, tracking.RefusedError, CorruptError])
def test_whatever_cannot_be_shown_gives_way(fault: type[SegpipeError], caplog: pytest.LogCaptureFixture) -> None:
    for later in (None, lambda: False, lambda: True):
        with caplog.at_level(logging.WARNING), mirror.giving_way("the night", later=later):
            raise fault("MLflow at x cannot be used")
    assert caplog.messages == [
        "the night is not in MLflow: MLflow at x cannot be used",
        "the night is not in MLflow: MLflow at x cannot be used",
        "the night is not in MLflow yet and will be caught up by the next run: MLflow at x cannot be used",
    ]


def test_a_bug_does_not_give_way() -> None:
    with pytest.raises(ZeroDivisionError), mirror.giving_way("the night"):
        raise ZeroDivisionError


def test_parameters_are_flat_and_say_everything_that_decides_a_run() -> None:
    params = display.parameters(small_run(clip_norm=1.0))
    assert params["arch"] == "unet"
    assert params["options.backbone"] == "mobilenet_v3_large"
    assert (params["train.epochs"], params["train.clip_norm"]) == (2, 1.0)
    assert params["train.augment.crop"] == "[32, 32]"
    assert "train.ema_decay" not in params, "what is off is not shown"
    assert "pretrained" not in params


def test_another_training_is_named_and_not_told_again() -> None:
    parent = small_run().model_copy(update={"label": "parent"})
    child = small_run().model_copy(update={"start_from": parent, "trained_as": parent, "common": ("epochs",)})
    params = display.parameters(child)
    assert (params["start_from"], params["trained_as"]) == ("parent", "parent")
    assert params.keys() - display.parameters(small_run()).keys() == {"start_from", "trained_as"}


def test_a_training_that_nobody_judges_ends_its_runs(
    new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(new_home()))
    monkeypatch.setattr(mirror, "CLOSING_SECONDS", 60.0)
    run, client = resolve(small_run()), MlflowClient(mirror.uri())
    parent = tracking.open_parent(mirror.uri(), experiment="e", key="k", name="night", description="", tags={})
    with mirror.live_metrics(parent, run, version="v") as sink:
        assert sink is not None
        sink({"train/loss": 1.0}, 1)
    mirror.show_failure(run, parent=parent, version="v")
    mirror.close_finished("e", parent=parent)
    shown = {found.info.run_name: found for found in client.search_runs([parent.experiment_id])}
    assert (shown["night"].info.status, shown["unet"].info.status) == ("FINISHED", "FAILED")
    assert shown["unet"].data.metrics == {"train/loss": 1.0}, "the last values are sent before the sender ends"


def test_a_night_that_mlflow_does_not_know_has_nothing_to_end(caplog: pytest.LogCaptureFixture) -> None:
    absent = tracking.RunRef(tracking_uri="http://127.0.0.1:9", experiment_id="", run_id="", key="k")
    with mirror.live_metrics(absent, small_run(), version="v") as sink:
        assert sink is None
    mirror.show_failure(small_run(), parent=absent, version="v")
    mirror.close_failed("e", parent=absent)
    mirror.close_finished("e", parent=absent)
    assert caplog.messages == []


def test_an_experiment_without_champion_has_nothing_to_set_right(mlflow_down: str) -> None:
    mirror.reconcile("nobody")


def test_a_night_whose_home_is_an_object_store(
    tmp_path: Path, s3_root: str, monkeypatch: pytest.MonkeyPatch, mlflow_down: str, one_core: None
) -> None:
    """Every stage on s3://, and what MLflow would upload from there."""
    monkeypatch.setenv("SEGPIPE_HOME", s3_root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.chdir(tmp_path)
    dataset = ingest(streets(write_streets(tmp_path / "source", splits={"train": 2, "val": 1, "test": 2})))
    assert dataset.uri == f"{s3_root}/datasets/streets"
    run = small_run(epochs=1, batch_size=2, augment={"crop": (16, 16)})
    where = {"data": dataset.uri, "version": dataset.version}
    results = [
        train(run, **where, to=layout.runs_uri("streets"), resources=ResourceConfig(), runtime="local")
        for _ in range(2)
    ]
    assert results[0] == results[1]
    to, config = layout.evaluations_uri("streets"), EvaluateConfig(pictures=1)
    report = evaluate(
        results[0].model_uri, **where, to=to, config=config, experiment="streets", label="unet", runtime="local"
    )
    folder = location(report.weights_sha256, label="unet", version=dataset.version, config=config, to=to)
    assert len(load_pictures(folder)) == 1
    verdict = promote("streets", [report], config=PromoteConfig(), champion_report_of=lambda record: report)
    standing = promotion.champion(layout.ledger_uri("streets"))
    assert standing is not None
    assert standing.champion == verdict.champion
    with registration.local_bundle(results[0].model_uri) as bundle:
        assert storage.sha256_file(str(bundle / "weights.safetensors")) == report.weights_sha256
        assert (bundle / "model.json").exists()
    assert not bundle.exists()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["caches", "source"], "nothing is left on this machine but copies of shards"
