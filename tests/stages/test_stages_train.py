"""The training stage: done once, and refused for what the dataset does not have.

`test_stages_train_damage.py` has what it does about damage and folders that cannot be written.
"""

import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segpipe import checkpoint, models, storage
from segpipe.config import CrfConfig, ResourceConfig, RunConfig
from segpipe.data.loader import EvalBatches
from segpipe.errors import ConflictError, InputError, NonFiniteError
from segpipe.evaluate import count
from segpipe.shards import open_dataset
from segpipe.stages import train as stage
from segpipe.stages.identity import resolve
from segpipe.stages.train import finished, run_location
from segpipe.tasks import TASKS, views
from segpipe.types import CrfSettings, ModelBundle
from tests.fixtures.small import small_run
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")


def test_a_run_leaves_its_config_its_result_and_a_model_that_loads(shapes: Shapes) -> None:
    result, folder = shapes.result, Path(shapes.result.run_uri)
    assert folder.parent == shapes.runs
    assert folder.name.startswith("unet-")
    assert json.loads((folder / "run.json").read_text()) == shapes.run.identity
    assert (result.steps, result.epochs, result.stopped) == (8, 2, "finished")
    assert (result.dataset_version, result.config_digest) == (shapes.version, shapes.run.digest)
    model, bundle = checkpoint.load_model(result.model_uri)
    assert bundle.weights_sha256 == result.weights_sha256
    assert sum(p.numel() for p in model.parameters()) == result.parameters


def test_training_again_is_free(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
    assert shapes.train() == shapes.result


def test_other_hardware_is_the_same_run(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
    resources = ResourceConfig(workers=4, cpus_per_worker=2, max_failures=0)
    again = stage.train(
        shapes.run, data=shapes.data, version=shapes.version, to=str(shapes.runs), resources=resources, runtime="ray"
    )
    assert again == shapes.result


def test_what_reaches_no_weight_is_the_same_run(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an attempt left its run.json and nothing else: the next one, with other threads, goes on there."""
    monkeypatch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
    train = shapes.run.train.model_copy(update={"loader_threads": 3, "checkpoint_every": 2})
    other = shapes.run.model_copy(update={"train": train})
    assert shapes.train(run=other) == shapes.result
    assert storage.write_json_once(f"{shapes.result.run_uri}/run.json", resolve(other).identity) is False


def test_defaults_left_out_are_the_same_run() -> None:
    short = small_run("deeplab_v3plus")
    whole = short.model_copy(update={"options": {**models.spec(short.arch).options, **short.options}})
    assert len(short.options) < len(whole.options)
    assert resolve(short) == resolve(whole) == resolve(resolve(short))
    other = whole.model_copy(update={"options": {**whole.options, "channels": 32}})
    assert resolve(other).digest != resolve(whole).digest
    with pytest.raises(InputError, match="deeplab_v3plus: unknown option 'depth'"):
        resolve(short.model_copy(update={"options": {"depth": 3}}))


def test_a_run_is_known_by_the_bytes_of_its_weights(tmp_path: Path) -> None:
    here, there = tmp_path / "here.pth", tmp_path / "there.pth"
    here.write_bytes(b"first")
    there.write_bytes(b"first")
    run = small_run().model_copy(update={"pretrained": str(here)})
    first = resolve(run)
    assert first.digest == resolve(run.model_copy(update={"pretrained": str(there)})).digest
    assert str(here) not in json.dumps(first.identity)
    here.write_bytes(b"second")
    assert resolve(run).digest != first.digest
    assert resolve(first) == first, "what was resolved stays, whatever becomes of the file"
    here.unlink()
    assert resolve(first) == first
    with pytest.raises(InputError, match=r"here\.pth: no such file"):
        resolve(run)


def test_config_dataset_version_and_code_name_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run()
    folders = {
        run_location(run, version="a" * 64, to="runs"),
        run_location(run, version="b" * 64, to="runs"),
        run_location(small_run(seed=1), version="a" * 64, to="runs"),
    }
    monkeypatch.setattr(stage, "code_version", lambda: "0.1.0+other")
    folders.add(run_location(run, version="a" * 64, to="runs"))
    assert len(folders) == 4
    assert all(folder.startswith(str(Path("runs/unet-").absolute())) for folder in folders)


def test_a_run_that_was_killed_before_its_last_file_goes_on_from_its_checkpoint(shapes: Shapes, tmp_path: Path) -> None:
    run = shapes.copy_run(tmp_path)
    (run / "train.json").unlink()
    result = shapes.train(tmp_path)
    assert result.weights_sha256 == shapes.result.weights_sha256
    assert (result.steps, result.history) == (shapes.result.steps, shapes.result.history)


def test_what_another_driver_finished_first_stands(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, finish = shapes.copy_run(tmp_path), stage.fit
    theirs = (run / "train.json").read_bytes()
    (run / "train.json").unlink()

    def race(*arguments: object) -> object:
        result = finish(*arguments)  # type: ignore[arg-type]
        replace_with = json.loads(theirs) | {"train_seconds": 1.5}
        (run / "train.json").write_text(json.dumps(replace_with))
        return result

    monkeypatch.setattr(stage, "fit", race)
    assert shapes.train(tmp_path).train_seconds == 1.5


def test_a_second_driver_is_refused_and_the_first_goes_on_undisturbed(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nightly and an ad hoc deployment of one recipe, say; the second meets a save, a model half written, ..."""
    save, save_model = checkpoint.save, checkpoint.save_model
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(ConflictError) as caught:
            shapes.train(tmp_path)
        refused.append(str(caught.value))

    def save_disturbed(run_uri: str, point: checkpoint.Checkpoint, *, keep_step: int | None = None) -> None:
        second()
        save(run_uri, point, keep_step=keep_step)
        second()

    def save_model_disturbed(run_uri: str, *arguments: Any) -> ModelBundle:
        storage.write_once(storage.join(checkpoint.model_uri(run_uri), "weights.safetensors"), b"")
        second()
        storage.delete(storage.join(checkpoint.model_uri(run_uri), "weights.safetensors"))
        return save_model(run_uri, *arguments)

    monkeypatch.setattr(checkpoint, "save", save_disturbed)
    monkeypatch.setattr(checkpoint, "save_model", save_model_disturbed)
    result = shapes.train(tmp_path)
    assert (result.weights_sha256, result.history) == (shapes.result.weights_sha256, shapes.result.history)
    assert len(refused) == 5
    assert all(
        message.startswith(f"{result.run_uri}: process {os.getpid()} on {socket.gethostname()} (user ")
        for message in refused
    )


def test_what_was_finished_while_one_waited_for_it_is_not_taken_for_damage(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lease = shapes.copy_run(tmp_path), storage.lease
    done = (run / "train.json").read_bytes()
    (run / "train.json").unlink()

    def finish_first(*arguments: Any, **names: Any) -> Any:
        (run / "train.json").write_bytes(done)
        return lease(*arguments, **names)

    monkeypatch.setattr(storage, "lease", finish_first)
    monkeypatch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
    assert shapes.train(tmp_path).weights_sha256 == shapes.result.weights_sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 17}, "split 'train' has 16 samples, and one step needs 17"),
        ({"accumulate": 5}, "one step needs 20"),
        ({"validation_split": "dev"}, "split 'dev' is missing or empty; the dataset has"),
        ({"train_split": "training"}, "split 'training' is missing or empty; the dataset has"),
    ],
)
def test_what_the_dataset_does_not_have_is_an_input_error_that_names_it(
    changes: dict[str, object], message: str, shapes: Shapes, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        shapes.train(tmp_path, small_run(**changes))
    assert message in str(caught.value)
    assert shapes.data in str(caught.value)


def test_a_training_that_blows_up_names_step_and_samples(shapes: Shapes, tmp_path: Path) -> None:
    run = small_run(optimizer="sgd", learning_rate=1e30)
    with pytest.raises(NonFiniteError, match=r"^loss .* at step \d+ .*in samples train/00\d\d, .*Lower train"):
        shapes.train(tmp_path, run)
    assert finished(run_location(run, version=shapes.version, to=str(tmp_path))) is None


def test_a_training_starts_from_the_finished_weights_of_another(shapes: Shapes) -> None:
    """Whose steps are too small to move it: what is trained is the parent, but for what batches leave in its norms."""
    still = shapes.run.train.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1})
    child = shapes.run.model_copy(update={"label": "child", "train": still, "start_from": shapes.run})
    result = shapes.train(run=child)
    model, _ = checkpoint.load_model(result.model_uri)
    parent, _ = checkpoint.load_model(shapes.result.model_uri)
    named = dict(parent.named_parameters())
    moved = {key: float((value - named[key]).detach().abs().max()) for key, value in model.named_parameters()}
    assert max(moved.values()) < 1e-28, moved  # a weight of exactly 0 moves by as much as a step is long
    assert json.loads((Path(result.run_uri) / "run.json").read_text())["start_from"] == shapes.run.identity
    orphan = child.model_copy(update={"start_from": shapes.run.model_copy(update={"label": "nobody"})})
    with pytest.raises(InputError, match=r"start_from: .*/nobody-\w+ holds no finished training of nobody on this"):
        shapes.train(run=orphan)


def test_fcn_goes_from_one_stage_to_the_next(shapes: Shapes, tmp_path: Path) -> None:
    """As in the recipe fcn_staged: FCN-16s begins as all of FCN-32s with a skip of zero, and learns from there."""
    small = {"options": {"backbone": "vgg16_slim", "fc_channels": 16}}
    first = resolve(small_run("fcn32s").model_copy(update=small))
    parent = checkpoint.load_model(shapes.train(tmp_path, first).model_uri)[0].state_dict()
    models_of = {}
    for label, rate in (("still", 1e-30), ("second", 1e-2)):
        second = small_run("fcn16s", learning_rate=rate, weight_decay=0.0, epochs=1)
        run = resolve(second.model_copy(update={**small, "label": label, "start_from": first}))
        models_of[label] = checkpoint.load_model(shapes.train(tmp_path, run).model_uri)[0].state_dict()
    still, learnt = models_of["still"], models_of["second"]
    assert still.keys() - parent.keys() == {"upscore2.weight", "score_pool4.weight", "score_pool4.bias"}
    for key, value in parent.items():
        torch.testing.assert_close(still[key], value, rtol=0, atol=1e-28)
    assert float(parent["score_fr.weight"].abs().max()) > 0, "which begins at zero, and was trained"
    assert float(still["score_pool4.weight"].abs().max()) < 1e-28
    assert float(learnt["score_pool4.weight"].abs().max()) > 1e-6


def with_crf(run: RunConfig, **crf: Any) -> RunConfig:
    inference = run.train.inference.model_copy(update={"crf": CrfConfig(**crf)})
    return run.model_copy(update={"train": run.train.model_copy(update={"inference": inference})})


def test_another_crf_trains_nothing(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes.copy_run(tmp_path)
    monkeypatch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
    found = [shapes.train(tmp_path, with_crf(shapes.run, iterations=iterations)) for iterations in (1, 2)]
    plain, plain_bundle = checkpoint.load_model(shapes.result.model_uri)
    assert len({shapes.result.weights_sha256, *(result.weights_sha256 for result in found)}) == 3, "three models"
    for iterations, result in zip((1, 2), found, strict=True):
        model, bundle = checkpoint.load_model(result.model_uri)
        assert bundle.inference == replace(plain_bundle.inference, crf=CrfSettings(iterations=iterations))
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, plain.state_dict()[key], rtol=0, atol=0)
        assert (result.history, result.best_value) == (shapes.result.history, shapes.result.best_value)
        assert (result.config_digest, bundle.config_digest) == (
            resolve(with_crf(shapes.run, iterations=iterations)).digest,
        ) * 2
        assert finished(result.run_uri) == result


def test_a_crf_is_trained_as_without_it_and_so_is_an_entry_of_another_label(shapes: Shapes, tmp_path: Path) -> None:
    crf = with_crf(shapes.run).model_copy(update={"label": "crf"})
    result = shapes.train(tmp_path, crf)
    assert sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir()) == ["crf", "crf"]
    assert result.best_value == shapes.result.best_value
    _, bundle = checkpoint.load_model(result.model_uri)
    assert bundle.inference.crf == CrfSettings()
    beside = tmp_path / "beside"
    shapes.copy_run(beside)
    twin = shapes.train(beside, crf.model_copy(update={"trained_as": shapes.run}))
    assert (twin.label, twin.weights_sha256) == ("crf", result.weights_sha256)
    assert sorted(path.name.rpartition("-")[0] for path in beside.iterdir()) == ["crf", "unet"]


def test_an_ensemble_is_validated_as_its_members_are_before_any_crf(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refine = views.refined
    monkeypatch.setattr(views, "refined", lambda *given: pytest.fail("a validation looked through a CRF"))
    one = shapes.run.train.model_copy(update={"epochs": 1})
    members = [with_crf(shapes.run.model_copy(update={"label": label, "train": one})) for label in ("a", "b")]
    others = {"arch": "ensemble", "label": "both", "options": {}, "train": members[0].train, "members": tuple(members)}
    both = shapes.run.model_copy(update=others)
    for member in members:
        shapes.train(tmp_path, member)
    result = shapes.train(tmp_path, both)
    monkeypatch.setattr(views, "refined", refine)
    model, bundle = checkpoint.load_model(result.model_uri)
    assert bundle.inference.crf == CrfSettings()
    assert bundle.members is not None
    assert set(bundle.members) == {"a", "b"}
    batches = EvalBatches(open_dataset(shapes.data), "val", batch_size=4)
    ops = TASKS[bundle.task](bundle.classes, bundle.ignore_index)
    plain = replace(bundle, inference=replace(bundle.inference, crf=None))
    scores = ops.scores(count(model, ops, plain, batches)[0])
    assert result.best_value == pytest.approx(scores[ops.primary], abs=1e-12)


def test_a_child_goes_on_from_its_own_checkpoint_when_its_parent_is_gone(shapes: Shapes, tmp_path: Path) -> None:
    parent = shapes.copy_run(tmp_path)
    one = shapes.run.train.model_copy(update={"epochs": 1})
    child = shapes.run.model_copy(update={"label": "child", "train": one, "start_from": shapes.run})
    whole = shapes.train(tmp_path, child)
    folder = Path(whole.run_uri)
    (folder / "train.json").unlink()
    shutil.rmtree(parent)
    again = shapes.train(tmp_path, child)
    assert (again.weights_sha256, again.history) == (whole.weights_sha256, whole.history)
    (folder / "train.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(InputError, match=r"start_from: .* holds no finished training of unet"):
        shapes.train(tmp_path, child)
