"""The training loop in one process: killed anywhere it goes on as if nothing had happened, and it stops on nonsense."""

import json
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from segpipe import checkpoint, models, storage
from segpipe.config import AugmentConfig, CrfConfig, InferenceConfig, RunConfig, WindowConfig
from segpipe.errors import InputError
from segpipe.models.spec import DenseOutput
from segpipe.models.unet import UNet
from segpipe.predictions import LabelMap
from segpipe.tasks import views
from segpipe.tasks.semantic import SemanticOps
from segpipe.train.loop import fit, train_step
from segpipe.train.runtime import LocalRuntime
from segpipe.train.session import Session, TrainJob
from segpipe.types import CrfSettings, Inference, TrainProgress, TrainResult, Window
from tests.fixtures.bundles import parts_of, report_of, share_of
from tests.fixtures.small import ONE_VIEW, OPTIONS, small_run
from tests.fixtures.train_worker import DieAt, moved, run_child, same, train

# Two epochs of four steps each, every way of training that has a state of its own.
RUNS: dict[str, RunConfig] = {
    "plain": small_run(),
    "saves in mid-epoch": small_run(checkpoint_every=3),
    "saves where an epoch ends": small_run(checkpoint_every=2, optimizer="sgd"),
    "average": small_run(checkpoint_every=3, ema_decay=0.9),
    "accumulates": small_run(batch_size=2, accumulate=2, checkpoint_every=3, warmup_steps=2, clip_norm=1.0),
    "dropout and auxiliary head": small_run(
        "fcn_mobilenet_v3_large", checkpoint_every=3, channels_last=False
    ).model_copy(update={"options": {"aux": True}}),
}
# Killed before the first checkpoint, in an epoch, at the last step of one, right after a save, in the last step.
KILLS = {
    "plain": [(2,), (6,), (4, 7)],
    "saves in mid-epoch": [(5,), (4, 8)],
    "saves where an epoch ends": [(4,), (5,)],
    "average": [(5, 8)],
    "accumulates": [(4,), (2, 7)],
    "dropout and auxiliary head": [(5,)],
}
FAILPOINTS = ["checkpoint.begin:1", "checkpoint.file:2", "checkpoint.state:1", "checkpoint.begin:2", "commit.created:7"]


@pytest.fixture(scope="module")
def undisturbed(small: TrainJob, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainResult]:
    """The result of each of `RUNS` without a fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {
        name: train(replace(small, run=run, run_uri=f"{folder}/{number}"))
        for number, (name, run) in enumerate(RUNS.items())
    }


def steps(run_uri: str) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in Path(run_uri, "checkpoints").iterdir())


def losses(result: TrainResult) -> list[float]:
    return [entry["metrics"]["train/loss"] for entry in result.history if "train/loss" in entry["metrics"]]


def test_each_term_of_a_loss_is_logged_apart(undisturbed: dict[str, TrainResult]) -> None:
    logged = [entry["metrics"] for entry in undisturbed["dropout and auxiliary head"].history]
    terms = [metrics for metrics in logged if "train/loss" in metrics]
    assert len(terms) == 8
    for metrics in terms:
        assert metrics["train/losses/main"] > 0 < metrics["train/losses/aux"]
        assert metrics["train/loss"] == metrics["train/losses/main"] + metrics["train/losses/aux"]
    (alone,) = {tuple(sorted(entry["metrics"])) for entry in undisturbed["plain"].history if entry["step"] == 1}
    assert alone == ("train/learning_rate", "train/loss"), "one term is the loss itself"


# B1: killed and continued.


@pytest.mark.parametrize(("name", "kills"), [(name, kills) for name, sets in KILLS.items() for kills in sets])
def test_a_killed_run_ends_as_the_undisturbed_one(
    job: TrainJob, undisturbed: dict[str, TrainResult], name: str, kills: tuple[int, ...]
) -> None:
    job = replace(job, run=RUNS[name])
    for step in kills:
        assert run_child(train, job, DieAt(step)) == (-9, None)
        assert not Path(job.run_uri, "model").exists()
    assert same(train(job)) == same(undisturbed[name])


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_run_killed_in_a_save_ends_as_the_undisturbed_one(
    job: TrainJob, undisturbed: dict[str, TrainResult], failpoint: str
) -> None:
    name = "saves in mid-epoch"
    job = replace(job, run=RUNS[name])
    status, _ = run_child(train, job, environment={"SEGPIPE_FAILPOINT": failpoint})
    assert status == 137
    assert same(train(job)) == same(undisturbed[name])


@pytest.mark.parametrize("file", ["weights.safetensors", "training.safetensors", "state.json"])
def test_a_run_whose_newest_checkpoint_is_damaged_ends_as_the_undisturbed_one(
    job: TrainJob, undisturbed: dict[str, TrainResult], file: str
) -> None:
    name = "saves in mid-epoch"
    job = replace(job, run=RUNS[name])
    assert run_child(train, job, DieAt(7)) == (-9, None)
    path = Path(job.run_uri, "checkpoints", f"step-{steps(job.run_uri)[-1]:08d}", file)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert same(train(job)) == same(undisturbed[name])


def test_a_resume_does_not_look_for_pretrained_weights(job: TrainJob, tmp_path: Path) -> None:
    """It has its own: the file may be gone, the network down."""
    file = tmp_path / "weights.safetensors"
    save_file(models.create("unet", 3, **OPTIONS["unet"]).backbone.state_dict(), file)
    job = replace(job, run=RUNS["saves in mid-epoch"].model_copy(update={"pretrained": str(file)}))
    train(job)
    file.unlink()
    assert Session(job, LocalRuntime()).resumed_at == 8
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        Session(moved(job, str(tmp_path / "fresh")), LocalRuntime())


def test_a_resume_repeats_at_most_one_interval(job: TrainJob) -> None:
    job = replace(job, run=RUNS["saves in mid-epoch"])
    assert run_child(train, job, DieAt(8)) == (-9, None)
    news: list[TrainProgress] = []
    fit(job, LocalRuntime(on_progress=news.append))
    assert min(each.step for each in news) == 7, "step 6 was saved"
    assert {each.resumed_at for each in news} == {6}


def test_a_finished_run_is_not_trained_again(job: TrainJob) -> None:
    first, reported = train(job), []
    again = train(job, lambda metrics, step: reported.append(step))
    assert reported == []
    assert same(again) == same(first)
    assert again.train_seconds == first.train_seconds


def test_two_runs_of_one_recipe_are_equal_and_of_another_seed_are_not(
    job: TrainJob, undisturbed: dict[str, TrainResult]
) -> None:
    plain = undisturbed["plain"]
    assert same(train(job)) == same(plain)
    other = train(replace(moved(job, f"{job.run_uri}-other"), run=small_run(seed=1)))
    assert other.weights_sha256 != plain.weights_sha256
    assert losses(other) != losses(plain)


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_lie_as_the_weights_do(job: TrainJob, channels_last: bool) -> None:
    """Alone they would bring the network into a layout in which torch computes wrongly, and which nobody asked for."""
    session = Session(replace(job, run=small_run(channels_last=channels_last)), LocalRuntime())
    entering: list[torch.Tensor] = []
    session.model.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    with closing(session.batches.epoch(0)) as batches:
        train_step(session, [next(batches)])
    layouts = {False: torch.contiguous_format, True: torch.channels_last}
    found = [images.is_contiguous(memory_format=layouts[channels_last]) for images in entering]
    assert found == [True]


def test_the_end_of_an_epoch_is_saved_where_checkpoint_every_meets_it(job: TrainJob) -> None:
    """An evaluation that is not in the checkpoint is made again by every resume."""
    job = replace(job, run=RUNS["saves where an epoch ends"])
    assert run_child(train, job, DieAt(5)) == (-9, None)
    found = checkpoint.latest(job.run_uri)
    assert found is not None
    assert (found.step, found.state["epoch"], found.state["cursor"]) == (4, 1, 0)
    assert (found.state["best_step"], found.state["best_epoch"]) == (4, 1)
    assert "val/miou" in found.state["history"][-1]["metrics"]
    train(job)
    ended = checkpoint.newest_state(job.run_uri)
    assert ended is not None
    assert (ended["step"], ended["stopped"]) == (8, "finished")


def test_how_often_one_saves_changes_nothing(undisturbed: dict[str, TrainResult]) -> None:
    assert same(undisturbed["saves in mid-epoch"]) == same(undisturbed["plain"])


# What comes out.


def test_training_learns(job: TrainJob) -> None:
    result = train(replace(job, run=small_run(epochs=4)))
    found = losses(result)
    assert len(found) == 16
    assert sum(found[-4:]) < 0.85 * sum(found[:4])
    values = [entry["metrics"]["val/miou"] for entry in result.history if "val/miou" in entry["metrics"]]
    assert result.best_value == max(values) > 0.2
    assert result.best_epoch == values.index(max(values)) + 1


def test_the_result_says_what_was_done(job: TrainJob, undisturbed: dict[str, TrainResult]) -> None:
    result = undisturbed["plain"]
    assert (result.epochs, result.steps, result.stopped) == (2, 8, "finished")
    assert (result.experiment, result.arch, result.label, result.primary) == ("shapes", "unet", "unet", "miou")
    assert (result.dataset_version, result.config_digest) == (job.version, RUNS["plain"].digest)
    assert result.train_seconds > 0
    assert [entry["step"] for entry in result.history] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    json.dumps(result.history, allow_nan=False)
    model, bundle = checkpoint.load_model(result.model_uri)
    assert bundle.weights_sha256 == result.weights_sha256
    assert sum(p.numel() for p in model.parameters()) == result.parameters
    assert (bundle.input_scale, bundle.inference, bundle.classes[1].name) == (1.0, ONE_VIEW, "box")


def test_the_model_is_that_of_the_best_epoch(job: TrainJob) -> None:
    """It is kept though it is neither of the newest two."""
    run = small_run(epochs=6, learning_rate=0.02, schedule="constant", augment=AugmentConfig(crop=(32, 32)))
    result = train(replace(job, run=run))
    values = {e["epoch"]: e["metrics"]["val/miou"] for e in result.history if "val/miou" in e["metrics"]}
    assert result.best_value == values[result.best_epoch] == max(values.values())
    kept = steps(job.run_uri)
    assert kept == sorted({4 * result.best_epoch, 20, 24})
    best = checkpoint.load(job.run_uri, 4 * result.best_epoch)
    model, _ = checkpoint.load_model(result.model_uri)
    assert all(torch.equal(tensor, best.weights[key]) for key, tensor in model.state_dict().items())


def test_the_average_is_what_is_validated_and_kept(undisturbed: dict[str, TrainResult]) -> None:
    result = undisturbed["average"]
    assert losses(result) == losses(undisturbed["saves in mid-epoch"]), "an average beside it does not change training"
    newest = checkpoint.latest(result.run_uri)
    assert newest is not None
    raw = newest.training["model/head.weight"]
    assert not torch.equal(raw, newest.weights["head.weight"])
    assert result.weights_sha256 != undisturbed["saves in mid-epoch"].weights_sha256


def test_how_a_model_looks_at_an_image_is_nothing_to_its_training(
    job: TrainJob, undisturbed: dict[str, TrainResult]
) -> None:
    views = InferenceConfig(scales=(1.0, 1.5), mirror=True, window=WindowConfig(size=(16, 24), overlap=0.25))
    result = train(replace(job, run=small_run(inference=views)))
    assert losses(result) == losses(undisturbed["plain"])
    _, bundle = checkpoint.load_model(result.model_uri)
    window = Window(size=(16, 24), overlap=0.25)
    assert bundle.inference == Inference(scales=views.scales, mirror=views.mirror, window=window)
    share = share_of(job, result, split="val", batch_size=8)
    report = report_of(share, parts_of(share, 1))
    assert report.value == pytest.approx(result.best_value, abs=0.002), "validation and evaluation look alike"


def test_validation_goes_without_the_crf(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a CRF in validation costs as much as the model, every time")

    monkeypatch.setattr(views, "refined", refuse)
    found = [
        train(replace(job, run=small_run(epochs=1, inference=InferenceConfig(crf=crf)), run_uri=f"{job.run_uri}-{at}"))
        for at, crf in enumerate((None, CrfConfig(iterations=2)))
    ]
    assert found[0].best_value == found[1].best_value
    assert [checkpoint.load_bundle(result.model_uri).inference.crf for result in found] == [
        None,
        CrfSettings(iterations=2),
    ]


def test_validation_takes_no_samples(job: TrainJob) -> None:
    """A pass with dropout off chooses the epoch as well, at a fortieth of the time."""
    options = {"arch": "bayesian_segnet", "options": {"backbone": "vgg16_bn_slim"}}
    found = [
        train(
            replace(
                job,
                run=small_run(epochs=1, inference=InferenceConfig(samples=samples)).model_copy(update=options),
                run_uri=f"{job.run_uri}-{samples}",
            )
        )
        for samples in (0, 3)
    ]
    assert found[0].best_value == found[1].best_value
    assert [checkpoint.load_bundle(result.model_uri).inference.samples for result in found] == [0, 3]


def test_accumulation_is_the_mean_over_its_micro_batches(job: TrainJob) -> None:
    """Without batch statistics in play (one step, the loss before it) the two are the same up to rounding."""
    at_once = train(replace(job, run=small_run(epochs=1, batch_size=4)))
    in_parts = train(replace(moved(job, f"{job.run_uri}-parts"), run=small_run(epochs=1, batch_size=2, accumulate=2)))
    assert len(losses(at_once)) == len(losses(in_parts)) == 4
    assert losses(in_parts)[0] == pytest.approx(losses(at_once)[0], rel=0.1)


def test_the_sink_gets_the_history_as_it_happens(job: TrainJob) -> None:
    seen: list[dict[str, Any]] = []
    result = train(job, lambda metrics, step: seen.append({"step": step, "metrics": dict(metrics)}))
    assert seen == [{"step": entry["step"], "metrics": entry["metrics"]} for entry in result.history]


def test_the_learning_rate_of_the_head_is_reported(job: TrainJob) -> None:
    result = train(replace(job, run=small_run(epochs=1, schedule="constant", backbone_learning_rate_factor=0.1)))
    rates = {e["metrics"]["train/learning_rate"] for e in result.history if "train/loss" in e["metrics"]}
    assert rates == {0.01}


def test_bfloat16_trains(job: TrainJob) -> None:
    result = train(replace(job, run=small_run(epochs=1, precision="bfloat16", train_split="val")))
    assert all(math.isfinite(loss) for loss in losses(result))
    found = checkpoint.latest(job.run_uri)
    assert found is not None
    assert found.weights["head.weight"].dtype == torch.float32


def test_validation_reads_in_float32_what_the_model_says_in_bfloat16(
    job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = [], []
    forward, predict = UNet.forward, SemanticOps.predict

    def model(self: UNet, images_NCHW: torch.Tensor) -> DenseOutput:
        inside.append(torch.is_autocast_enabled("cpu"))
        return forward(self, images_NCHW)

    def read(self: SemanticOps, network: torch.nn.Module, *rest: Any, **beside: Any) -> list[LabelMap]:
        outside.append(torch.is_autocast_enabled("cpu"))
        return predict(self, network, *rest, **beside)

    monkeypatch.setattr(UNet, "forward", model)
    monkeypatch.setattr(SemanticOps, "predict", read)
    train(replace(job, run=small_run(epochs=1, precision="bfloat16", train_split="val")))
    assert (set(inside), set(outside)) == ({True}, {False})


# When it stops.


def patient_run() -> RunConfig:
    """A rate too small to change a prediction: the first evaluation stays the best one."""
    return small_run(epochs=6, learning_rate=1e-12, patience=2)


def test_patience_ends_a_run_that_does_not_get_better(job: TrainJob) -> None:
    result = train(replace(job, run=patient_run()))
    values = [e["metrics"]["val/miou"] for e in result.history if "val/miou" in e["metrics"]]
    assert result.stopped == "patience"
    assert result.epochs == result.best_epoch + 2 == len(values)
    assert result.epochs < 6


def test_patience_survives_a_resume(job: TrainJob) -> None:
    expected = train(replace(moved(job, f"{job.run_uri}-undisturbed"), run=patient_run()))
    job = replace(job, run=patient_run())
    last = expected.steps
    for step in (last - 5, last - 1):
        assert run_child(train, job, DieAt(step)) == (-9, None)
    assert same(train(job)) == same(expected)


def test_evaluation_happens_every_so_many_epochs_and_at_the_end(job: TrainJob) -> None:
    result = train(replace(job, run=small_run(epochs=5, batch_size=16, evaluate_every=2)))
    assert [e["epoch"] for e in result.history if "val/miou" in e["metrics"]] == [2, 4, 5]


def test_a_run_holds_only_what_the_layout_names(undisturbed: dict[str, TrainResult]) -> None:
    for result in undisturbed.values():
        for path in storage.list_tree(result.run_uri):
            folder, name = path.rsplit("/", 1)
            assert name in {"weights.safetensors", "training.safetensors", "state.json", "model.json"}
            assert folder == "model" or folder.startswith("checkpoints/step-")
