"""The checkpoints of a run: written, read back, pruned. Part of `checkpoint`, whose head shows where they lie."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from segpipe import storage
from segpipe.checkpoint.bundle import model_uri
from segpipe.checkpoint.tensors import WEIGHTS, not_finite, pack, read_verified, unpack
from segpipe.errors import CorruptError, InputError, NonFiniteError

_log = logging.getLogger(__name__)
TRAINING, STATE = "training.safetensors", "state.json"
KEEP = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """One step of a run. `state` is plain JSON data that the training loop reads and writes."""

    step: int
    weights: Mapping[str, Tensor]
    training: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save(run_uri: str, checkpoint: Checkpoint, *, keep_step: int | None = None) -> None:
    """Writes one checkpoint and then deletes all but the newest two and the one of `keep_step`.

    Doing it again after a crash is safe: a finished step is left alone, a torn one is replaced. Raises NonFiniteError,
    and writes nothing, when a tensor holds NaN or Inf: nobody could go on from there.
    """
    folder = _folder(run_uri, checkpoint.step)
    if not _is_valid(folder):
        for tensors in (checkpoint.weights, checkpoint.training):
            if (key := not_finite(tensors)) is not None:
                raise NonFiniteError(
                    f"{run_uri}: {key} holds NaN or Inf at step {checkpoint.step}; nothing was saved. Lower "
                    "train.learning_rate or set train.clip_norm"
                )
        storage.delete_tree(folder)
        storage.failpoint("checkpoint.begin")
        files = {WEIGHTS: pack(checkpoint.weights), TRAINING: pack(checkpoint.training)}
        for name, data in files.items():
            storage.write_once(storage.join(folder, name), data)
            storage.failpoint("checkpoint.file")
        hashes = {name: storage.sha256_bytes(data) for name, data in files.items()}
        document = {"step": checkpoint.step, "files": hashes, "state": dict(checkpoint.state)}
        sealed = {**document, "sha256": storage.sha256_bytes(storage.canonical_json(document))}
        storage.write_json_once(storage.join(folder, STATE), sealed)
        storage.failpoint("checkpoint.state")
        if not _is_valid(folder):
            raise CorruptError(f"{folder}: the checkpoint just written does not read back; check the disk")
    _prune(run_uri, {checkpoint.step, keep_step})


def latest(run_uri: str) -> Checkpoint | None:
    """The newest checkpoint whose every byte matches its hashes and whose weights are finite; None without one.

    Raises UnreachableError when the store is down: then nobody knows what the newest one is.
    """
    for step in reversed(_complete(_files(run_uri))):
        try:
            return _load(run_uri, step)
        except (CorruptError, InputError) as error:
            _log.warning("checkpoint of step %d is not usable, falling back to the one before: %s", step, error)
    return None


def newest_state(run_uri: str) -> Mapping[str, Any] | None:
    """The state of the newest checkpoint whose every byte matches its hashes, its tensors left on disk; None without.

    Raises UnreachableError as `latest`.
    """
    valid = (folder for step in reversed(_complete(_files(run_uri))) if _is_valid(folder := _folder(run_uri, step)))
    newest = next(valid, None)
    return None if newest is None else dict(_read_state(newest)["state"])


def load(run_uri: str, step: int) -> Checkpoint:
    """One checkpoint that has to be there: the best one, of which the model is made.

    Raises CorruptError, with what comes of it, when a byte differs from what was written or a file is missing.
    """
    try:
        return _load(run_uri, step)
    except (CorruptError, InputError) as error:
        raise CorruptError(
            f"{error}. The model of this training can be made of the checkpoint of step {step} alone: restore it and "
            "run the same again, or just run the same again, and training starts over"
        ) from error


def drop(run_uri: str) -> None:
    """Removes every checkpoint. The states go first: a half-deleted checkpoint must not look like one."""
    for step in _complete(_files(run_uri)):
        storage.delete(storage.join(_folder(run_uri, step), STATE))
    storage.delete_tree(storage.join(run_uri, "checkpoints"))


def start_over(run_uri: str) -> None:
    """Removes every checkpoint, and the bundle of an attempt that did not come to its end."""
    drop(run_uri)
    storage.delete_tree(model_uri(run_uri))


def _load(run_uri: str, step: int) -> Checkpoint:
    """Raises CorruptError when a byte differs from what was written, InputError when a file is missing."""
    folder = _folder(run_uri, step)
    document = _read_state(folder)
    paths = {name: storage.join(folder, name) for name in (WEIGHTS, TRAINING)}
    files = {name: unpack(read_verified(path, document["files"][name]), path) for name, path in paths.items()}
    for name, tensors in files.items():
        if (key := not_finite(tensors)) is not None:
            raise CorruptError(f"{folder}/{name}: {key} holds NaN or Inf; this checkpoint cannot be continued")
    return Checkpoint(step=step, weights=files[WEIGHTS], training=files[TRAINING], state=document["state"])


def _read_state(folder: str) -> dict[str, Any]:
    """The document of `state.json`, its own hash checked: a flipped digit of a position would still be valid JSON."""
    path = storage.join(folder, STATE)
    document = storage.read_json(path)
    body = {key: value for key, value in document.items() if key != "sha256"} if isinstance(document, dict) else {}
    if not body or document.get("sha256") != storage.sha256_bytes(storage.canonical_json(body)):
        raise CorruptError(f"{path}: does not match its own SHA-256; the file was changed or damaged")
    return body


def _is_valid(folder: str) -> bool:
    if not storage.exists(storage.join(folder, STATE)):
        return False
    try:
        files = _read_state(folder)["files"]
        return all(storage.sha256_file(storage.join(folder, name)) == sha256 for name, sha256 in files.items())
    except (CorruptError, InputError):
        return False


def _folder(run_uri: str, step: int) -> str:
    return storage.join(run_uri, "checkpoints", f"step-{step:08d}")


def _files(run_uri: str) -> list[str]:
    """The paths of all files of checkpoints: <step>/<name>."""
    return storage.list_tree(storage.join(run_uri, "checkpoints"))


def _complete(files: Iterable[str]) -> list[int]:
    """The steps that have a state, ascending."""
    return _steps(file for file in files if file.endswith(f"/{STATE}"))


def _steps(files: Iterable[str]) -> list[int]:
    """The steps of these files, ascending."""
    return sorted({int(file.partition("/")[0].removeprefix("step-")) for file in files})


def _prune(run_uri: str, spare: set[int | None]) -> None:
    files = _files(run_uri)
    complete = _complete(files)
    kept = {*complete[-KEEP:], *spare}
    for step in _steps(files):  # torn ones too
        if step not in kept and step < complete[-1]:
            # The state goes first: a half-deleted checkpoint must not look like one.
            storage.delete(storage.join(_folder(run_uri, step), STATE))
            storage.delete_tree(_folder(run_uri, step))
