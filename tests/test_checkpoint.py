"""Checkpoints: what is saved comes back bit by bit, and a kill or damage costs one interval at most."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from segpipe import checkpoint, models, storage
from segpipe.checkpoint import STATE, TRAINING, WEIGHTS, Checkpoint
from segpipe.errors import CorruptError, NonFiniteError, UnreachableError
from segpipe.train.optim import build_optimizer, optimizer_tensors, restore_optimizer
from tests.fixtures.small import OPTIONS, small_run
from tests.fixtures.train_worker import run_child, save_tiny, tiny_checkpoint

Damage = Callable[[Path], object]


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def folder(run: str, step: int) -> Path:
    return Path(run) / "checkpoints" / f"step-{step:08d}"


def steps(run: str) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (Path(run) / "checkpoints").iterdir())


def assert_same(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    assert found.step == expected.step
    assert found.state == expected.state
    for ours, theirs in ((found.weights, expected.weights), (found.training, expected.training)):
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert ours[key].dtype == tensor.dtype
            assert torch.equal(ours[key], tensor), key


# What is saved comes back.


def test_nothing_saved_is_nothing_found(run: str) -> None:
    assert checkpoint.latest(run) is None


def test_a_checkpoint_comes_back_bit_by_bit(run: str) -> None:
    point = tiny_checkpoint(4)
    checkpoint.save(run, point)
    assert_same(checkpoint.latest(run), point)
    assert_same(checkpoint.load(run, 4), point)
    assert sorted(path.name for path in folder(run, 4).iterdir()) == [STATE, TRAINING, WEIGHTS]


def test_the_newest_step_is_the_latest_whatever_the_order_of_saving(run: str) -> None:
    for step in (100, 9, 20):
        save_tiny(run, step, keep_step=9)
    found = checkpoint.latest(run)
    assert found is not None
    assert found.step == 100


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_model_and_its_optimiser_go_on_as_if_nothing_had_happened(
    run: str, optimizer: str, channels_last: bool
) -> None:
    """Save after two steps; two more steps of the restored copy equal two more steps of the original."""
    config = small_run(optimizer=optimizer).train
    torch.manual_seed(0)
    model = models.create("unet", 3, **OPTIONS["unet"])
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    untouched = copy.deepcopy(model)
    ours, theirs = build_optimizer(model, config), build_optimizer(untouched, config)
    _descend(model, ours, range(2))
    checkpoint.save(
        run, Checkpoint(step=2, weights=model.state_dict(), training=optimizer_tensors(ours), state={"step": 2})
    )
    found = checkpoint.latest(run)
    assert found is not None
    untouched.load_state_dict(dict(found.weights))
    restore_optimizer(theirs, found.training)
    _descend(model, ours, range(2, 4))
    _descend(untouched, theirs, range(2, 4))
    for (key, one), other in zip(model.state_dict().items(), untouched.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
        assert is_channels_last(one) == is_channels_last(other), f"{key}: the memory format changed on the way"
    restored = optimizer_tensors(theirs)
    for key, one in optimizer_tensors(ours).items():
        assert torch.equal(one, restored[key]), key
        assert is_channels_last(one) == is_channels_last(restored[key]), key


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _descend(model: torch.nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        images_NCHW = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(number))
        model(images_NCHW).logits_NKHW.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_views_and_shared_memory_are_saved_as_what_they_show(run: str) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    weights = {"turned": base.t(), "part": base[:, 1:3], "whole": base}
    checkpoint.save(run, Checkpoint(step=1, weights=weights, training={}, state={}))
    assert_same(checkpoint.latest(run), Checkpoint(step=1, weights=weights, training={}, state={}))


def test_saving_a_finished_step_again_touches_nothing(run: str) -> None:
    save_tiny(run, 4)
    before = {path.name: path.stat().st_mtime_ns for path in folder(run, 4).iterdir()}
    save_tiny(run, 4)
    assert {path.name: path.stat().st_mtime_ns for path in folder(run, 4).iterdir()} == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nonsense_is_not_saved(run: str, value: float) -> None:
    save_tiny(run, 4)
    with pytest.raises(NonFiniteError, match=r"layer.weight holds NaN or Inf at step 8; nothing was saved"):
        checkpoint.save(run, tiny_checkpoint(8, fill=lambda weight: weight.masked_fill(weight > 1, value)))
    assert steps(run) == [4]


# What is kept.


def test_the_newest_two_and_the_best_are_kept(run: str) -> None:
    for step in range(4, 28, 4):
        save_tiny(run, step, keep_step=8 if step >= 8 else 4)
    assert steps(run) == [8, 20, 24]
    for step in steps(run):
        assert_same(checkpoint.load(run, step), tiny_checkpoint(step))


def test_without_a_best_the_newest_two_are_kept(run: str) -> None:
    for step in (1, 2, 3, 4):
        save_tiny(run, step)
    assert steps(run) == [3, 4]


def test_an_old_best_goes_once_there_is_a_better_one(run: str) -> None:
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4)):
        save_tiny(run, step, keep_step=best)
    assert steps(run) == [4, 5]


# B8: damage to the newest one.


def _flip(name: str, where: float) -> Damage:
    def damage(path: Path) -> None:
        data = bytearray((path / name).read_bytes())
        data[int(where * (len(data) - 1))] ^= 1
        (path / name).write_bytes(data)

    return damage


def _truncate(name: str, share: float) -> Damage:
    def damage(path: Path) -> None:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data[: int(len(data) * share)])

    return damage


def _change_a_number(path: Path) -> None:
    """A flipped bit that leaves valid JSON behind: the epoch is another."""
    text = (path / STATE).read_text()
    assert '"epoch": 3' in text
    (path / STATE).write_text(text.replace('"epoch": 3', '"epoch": 2'))


def _forge(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((path / STATE).read_text())
    document.pop("sha256")
    change(document)
    document["sha256"] = storage.sha256_bytes(storage.canonical_json(document))
    (path / STATE).write_bytes(storage.canonical_json(document))


def _nan_inside(name: str) -> Damage:
    """Every hash is right, but the weights say nothing."""

    def damage(path: Path) -> None:
        data = to_safetensors({"layer.weight": torch.tensor([1.0, float("nan")])})
        (path / name).write_bytes(data)
        _forge(path, lambda document: document["files"].update({name: storage.sha256_bytes(data)}))

    return damage


def _not_safetensors(path: Path) -> None:
    (path / WEIGHTS).write_bytes(b"\x80\x04pickled")
    _forge(path, lambda document: document["files"].update({WEIGHTS: storage.sha256_bytes(b"\x80\x04pickled")}))


DAMAGES: dict[str, Damage] = {
    "weights: first byte flipped": _flip(WEIGHTS, 0.0),
    "weights: a byte in the middle flipped": _flip(WEIGHTS, 0.5),
    "weights: last byte flipped": _flip(WEIGHTS, 1.0),
    "training: a byte flipped": _flip(TRAINING, 0.7),
    "state: a byte flipped": _flip(STATE, 0.4),
    "state: another number": _change_a_number,
    "weights: half": _truncate(WEIGHTS, 0.5),
    "training: empty": _truncate(TRAINING, 0.0),
    "state: half": _truncate(STATE, 0.5),
    "state: empty": _truncate(STATE, 0.0),
    "state: not an object": lambda path: (path / STATE).write_text("[1]"),
    "state: null": lambda path: (path / STATE).write_text("null"),
    "weights: missing": lambda path: (path / WEIGHTS).unlink(),
    "training: missing": lambda path: (path / TRAINING).unlink(),
    "state: missing": lambda path: (path / STATE).unlink(),
    "weights: NaN inside": _nan_inside(WEIGHTS),
    "training: NaN inside": _nan_inside(TRAINING),
    "weights: no safetensors file": _not_safetensors,
    "weights: those of another step": lambda path: shutil.copy(path.parent / "step-00000008" / WEIGHTS, path),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    run: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (4, 8, 12):
        save_tiny(run, step)
    DAMAGES[name](folder(run, 12))
    assert_same(checkpoint.latest(run), tiny_checkpoint(8))
    if not name.startswith("state: missing"):
        assert "checkpoint of step 12 is not usable, falling back to the one before" in caplog.text
    # The rerun comes to the same step again and replaces what was damaged.
    if "NaN" not in name and "no safetensors" not in name:
        save_tiny(run, 12)
        assert_same(checkpoint.latest(run), tiny_checkpoint(12))


@pytest.mark.parametrize("name", DAMAGES)
def test_the_newest_state_is_that_of_the_newest_checkpoint_whose_bytes_are_right(run: str, name: str) -> None:
    assert checkpoint.newest_state(run) is None
    for step in (4, 8, 12):
        save_tiny(run, step)
    assert checkpoint.newest_state(run) == tiny_checkpoint(12).state
    DAMAGES[name](folder(run, 12))
    unseen = "NaN" in name or "no safetensors" in name  # with hashes that fit: only a forger makes these
    assert checkpoint.newest_state(run) == tiny_checkpoint(12 if unseen else 8).state


@pytest.mark.parametrize("name", DAMAGES)
def test_one_checkpoint_that_has_to_be_there_is_named_with_what_comes_of_its_damage(run: str, name: str) -> None:
    for step in (8, 12):
        save_tiny(run, step)
    DAMAGES[name](folder(run, 12))
    with pytest.raises(CorruptError) as caught:
        checkpoint.load(run, 12)
    message = str(caught.value)
    assert message.startswith(f"{folder(run, 12)}/")
    assert "the checkpoint of step 12 alone: restore it and run the same again, or just run the same again" in message


def test_starting_over_leaves_no_checkpoint_and_no_model(run: str) -> None:
    save_tiny(run, 4)
    (Path(run) / "model").mkdir()
    (Path(run) / "run.json").write_text("{}")
    checkpoint.start_over(run)
    assert [path.name for path in Path(run).iterdir()] == ["run.json"]
    checkpoint.start_over(run)


def test_with_every_checkpoint_damaged_training_starts_anew(run: str) -> None:
    for step in (4, 8):
        save_tiny(run, step)
        _flip(WEIGHTS, 0.5)(folder(run, step))
    assert checkpoint.latest(run) is None


def test_a_store_that_is_down_is_no_damage(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Falling back would silently repeat an interval, or the whole training."""
    save_tiny(run, 4)
    save_tiny(run, 8)
    read = storage.read_bytes

    def down(uri: str, **options: Any) -> bytes:
        if "step-00000008" in uri:
            raise UnreachableError(f"{uri}: no answer")
        return read(uri, **options)

    monkeypatch.setattr(storage, "read_bytes", down)
    with pytest.raises(UnreachableError, match="no answer"):
        checkpoint.latest(run)


# B2: a kill at every step of a save.


@pytest.mark.parametrize("visit", range(1, 14))
def test_a_kill_at_any_step_of_a_save_leaves_a_valid_checkpoint(run: str, visit: int) -> None:
    """The third save dies; the second is found, or the third if it was complete, and saving again works."""
    save_tiny(run, 4)
    save_tiny(run, 8)
    status, _ = run_child(save_tiny, run, 12, environment={"SEGPIPE_FAILPOINT": f"*:{visit}"})
    assert status == 137, "the table of visits ends before the save does: lower its range"
    found = checkpoint.latest(run)
    assert found is not None
    assert_same(found, tiny_checkpoint(found.step))
    assert found.step in (8, 12)
    assert save_tiny(run, 12) == "saved"
    assert_same(checkpoint.latest(run), tiny_checkpoint(12))
    assert steps(run)[-2:] == [8, 12]


def test_the_visits_above_are_all_there_are(run: str) -> None:
    save_tiny(run, 4)
    save_tiny(run, 8)
    assert run_child(save_tiny, run, 12, environment={"SEGPIPE_FAILPOINT": "*:14"}) == (0, "saved")


@pytest.mark.parametrize("failpoint", ["checkpoint.begin:1", "checkpoint.file:1", "checkpoint.file:2"])
@pytest.mark.parametrize("torn", ["weights: missing", "state: half"])
def test_a_kill_while_a_damaged_step_is_replaced(run: str, failpoint: str, torn: str) -> None:
    for step in (4, 8):
        save_tiny(run, step)
    DAMAGES[torn](folder(run, 8))
    assert run_child(save_tiny, run, 8, environment={"SEGPIPE_FAILPOINT": failpoint})[0] == 137
    assert_same(checkpoint.latest(run), tiny_checkpoint(4))
    save_tiny(run, 8)
    assert_same(checkpoint.latest(run), tiny_checkpoint(8))


def test_a_kill_while_an_old_one_is_deleted_leaves_no_half_and_no_leftover(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(run, 4)
    save_tiny(run, 8)
    delete_tree = storage.delete_tree

    def killed(uri: str) -> None:
        if "step-00000004" in uri:
            raise KeyboardInterrupt
        delete_tree(uri)

    monkeypatch.setattr(storage, "delete_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        save_tiny(run, 12)
    monkeypatch.undo()
    assert steps(run) == [4, 8, 12]
    with pytest.raises(CorruptError, match=r"state.json: no such file"):
        checkpoint.load(run, 4)
    save_tiny(run, 16)
    assert steps(run) == [12, 16], "what the kill left of step 4 is gone too"
