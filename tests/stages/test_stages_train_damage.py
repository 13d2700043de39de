"""The training stage on damaged or unwritable folders: nothing damaged is trusted, and no damage is a dead end."""

import errno
import json
import logging
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace as changed
from pathlib import Path

import pytest

from segpipe import checkpoint
from segpipe.checkpoint import Checkpoint
from segpipe.errors import CorruptError, InputError, StorageFullError
from segpipe.stages import train as stage
from segpipe.stages.train import finished, run_location
from segpipe.storage.faults import explain_write
from segpipe.train.session import lost_best
from tests.fixtures.small import small_run
from tests.fixtures.train_worker import tiny_checkpoint
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")
Damage = Callable[[Path], object]


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    replace(path, bytes(data))


def edit(path: Path, **changes: object) -> None:
    replace(path, json.dumps(json.loads(path.read_text()) | changes).encode())


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: replace(run / "train.json", (run / "train.json").read_bytes()[:100]),
        lambda run: edit(run / "train.json", best_value="high"),
        lambda run: edit(run / "train.json", weights_sha256="0" * 64),
        lambda run: replace(run / "model" / "model.json", b"{}"),
        lambda run: (run / "model" / "model.json").unlink(),
        lambda run: flip(run / "model" / "weights.safetensors"),
        lambda run: (run / "model" / "weights.safetensors").unlink(),
    ],
    ids=["torn", "wrong-type", "other-weights", "empty-bundle", "no-bundle", "flipped-weights", "no-weights"],
)
def test_a_damaged_result_is_made_again_and_not_trusted(
    damage: Damage, shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shapes.copy_run(tmp_path)
    damage(run)
    assert finished(str(run)) is None
    result = shapes.train(tmp_path)
    assert (result.weights_sha256, result.history) == (shapes.result.weights_sha256, shapes.result.history)
    assert checkpoint.load_model(result.model_uri)[1].weights_sha256 == shapes.result.weights_sha256
    monkeypatch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
    assert shapes.train(tmp_path) == result, "mended for good"


# --- run.json


@pytest.mark.parametrize(
    "damage",
    [lambda path: replace(path, path.read_bytes()[:40]), lambda path: edit(path, arch="segnet"), flip],
    ids=["torn", "edited", "flipped"],
)
def test_a_damaged_config_is_named_and_deleting_it_mends_the_run(
    damage: Damage, shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shapes.copy_run(tmp_path)
    (run / "train.json").unlink()
    damage(run / "run.json")
    with monkeypatch.context() as patch:
        patch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
        with pytest.raises(CorruptError) as caught:
            shapes.train(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{run}/run.json: does not hold what its folder is named for")
    assert "Delete this file and run the same command again" in message
    (run / "run.json").unlink()
    assert shapes.train(tmp_path).weights_sha256 == shapes.result.weights_sha256
    assert json.loads((run / "run.json").read_text()) == shapes.run.identity


# --- the best checkpoint


@pytest.fixture(scope="module")
def early(shapes: Shapes, tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    """A training whose first epoch stays the best: its rate is too small to change a prediction."""
    runs = tmp_path_factory.mktemp("early")
    run = shapes.run.model_copy(update={"train": small_run(learning_rate=1e-12).train})
    result = shapes.train(runs, run)
    return changed(shapes, runs=runs, run=run, result=result)


@pytest.mark.parametrize(
    "damage",
    [
        lambda best: flip(best / "weights.safetensors"),
        lambda best: (best / "training.safetensors").unlink(),
        lambda best: replace(best / "state.json", b"{"),
        shutil.rmtree,
    ],
    ids=["flipped", "incomplete", "torn", "gone"],
)
def test_without_its_best_checkpoint_a_training_starts_over_and_says_so(
    damage: Damage, early: Shapes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = early.copy_run(tmp_path)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000004", "step-00000008"]
    assert (early.result.best_epoch, lost_best(str(run))) == (1, None)
    (run / "train.json").unlink()
    damage(run / "checkpoints" / "step-00000004")
    assert lost_best(str(run)) == 4
    with caplog.at_level(logging.WARNING):
        result = early.train(tmp_path)
    assert any(
        f"{run}: training had ended, but the checkpoint of its best step, 4, is damaged or gone" in text
        and "training starts over" in text
        for text in caplog.messages
    )
    expected = early.result
    assert (result.weights_sha256, result.history) == (expected.weights_sha256, expected.history)
    assert (result.best_epoch, result.best_value) == (1, expected.best_value)
    assert lost_best(str(run)) is None
    assert early.train(tmp_path) == result, "mended for good"


def test_a_best_checkpoint_lost_at_the_very_end_fails_once_and_names_the_remedy(
    early: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, save = Path(run_location(early.run, version=early.version, to=str(tmp_path))), checkpoint.save

    def unlucky(run_uri: str, point: Checkpoint, *, keep_step: int | None = None) -> None:
        save(run_uri, point, keep_step=keep_step)
        if point.step == 8:
            flip(run / "checkpoints" / "step-00000004" / "weights.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", unlucky)
        with pytest.raises(CorruptError, match=r"step-00000004/weights\.safetensors: SHA-256 .*just run the same ag"):
            early.train(tmp_path)
    assert early.train(tmp_path).weights_sha256 == early.result.weights_sha256


def test_a_training_that_goes_on_keeps_its_progress_when_its_best_checkpoint_is_lost(tmp_path: Path) -> None:
    """A later epoch may still be better; starting over would throw away what is there."""
    run = str(tmp_path / "run")
    for step, stopped in ((4, ""), (8, ""), (12, "finished")):
        point = tiny_checkpoint(step)
        state = {**point.state, "best_step": 4, "stopped": stopped}
        checkpoint.save(run, changed(point, state=state), keep_step=4)
        if step == 4:
            flip(tmp_path / "run" / "checkpoints" / "step-00000004" / "state.json")
        assert lost_best(run) == (4 if stopped else None)
    flip(tmp_path / "run" / "checkpoints" / "step-00000012" / "training.safetensors")
    assert lost_best(run) is None, "the newest valid one is of a training that goes on"


def test_a_damaged_bundle_without_a_result_is_made_again(shapes: Shapes, tmp_path: Path) -> None:
    """A kill between the two leaves no train.json; what is flipped since then must not be in the way."""
    run = shapes.copy_run(tmp_path)
    (run / "train.json").unlink()
    flip(run / "model" / "weights.safetensors")
    assert shapes.train(tmp_path).weights_sha256 == shapes.result.weights_sha256
    assert checkpoint.load_model(str(run / "model"))[1].weights_sha256 == shapes.result.weights_sha256


# --- a folder that cannot be written


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow in here: what a full disk does, and what no right of root's overrides."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("attempt", ["first", "later"])
def test_a_full_disk_is_said_before_any_work(
    attempt: str, shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path
    if attempt == "later":
        folder = shapes.copy_run(tmp_path)
        (folder / "train.json").unlink()
    before = sorted(path for path in folder.rglob("*") if path.is_file())
    monkeypatch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
    with full_disk(), pytest.raises(StorageFullError) as caught:
        shapes.train(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "bytes are needed" in message
    assert "make room or choose another destination, then run again" in message
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("place", ["file", "proc"])
def test_a_destination_that_cannot_be_written_is_named_before_any_work(
    place: str, shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    to = "/proc/version/runs" if place == "proc" else f"{tmp_path}/file/runs"
    monkeypatch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
    with pytest.raises(
        InputError, match=r"cannot be written: .*choose a folder in which user id \d+ may write"
    ) as caught:
        shapes.train(Path(to))
    assert str(caught.value).startswith(to)


def test_a_later_attempt_finds_out_that_the_folder_became_read_only(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shapes.copy_run(tmp_path)
    (run / "train.json").unlink()
    monkeypatch.setattr(stage, "fit", lambda job, runtime: pytest.fail("the loop was entered"))
    monkeypatch.setattr("segpipe.storage.local._made", read_only)
    with pytest.raises(InputError, match=r"cannot be written: Read-only file system"):
        shapes.train(tmp_path)


def read_only(folder: Path, uri: str) -> Path:
    """Root may write anywhere but on a read-only mount, which a test cannot make."""
    raise explain_write(OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder)), uri, 0)
