"""Weights and training state to and from a URI: safetensors and strict JSON, never pickle.

A run's folder holds

    checkpoints/step-00000120/weights.safetensors    what predicts (the averaged weights when there is an EMA)
                              training.safetensors   what only a resume needs: optimiser, raw weights beside an EMA
                              state.json             position, history, best so far, hashes of the two and of
                                                     itself; written last
    model/weights.safetensors, model/model.json      the bundle of the best step, once training has ended

A checkpoint without a valid `state.json`, or whose bytes do not match it, does not exist: resume takes the newest valid
one. An old one is deleted only after a newer one was read back. A training that has ended needs its best one, too: when
that is damaged the run starts over, as it does when all of them are (`train/session.py` says which case it is).
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from segpipe import models, reports, storage
from segpipe.errors import CorruptError, InputError, NonFiniteError
from segpipe.types import ModelBundle

_log = logging.getLogger(__name__)
WEIGHTS, TRAINING, STATE, BUNDLE = "weights.safetensors", "training.safetensors", "state.json", "model.json"
KEEP = 2
_MOST_HEADER_BYTES = 100_000_000  # the format's own limit


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
            if (key := _not_finite(tensors)) is not None:
                raise NonFiniteError(
                    f"{run_uri}: {key} holds NaN or Inf at step {checkpoint.step}; nothing was saved. Lower "
                    "train.learning_rate or set train.clip_norm"
                )
        storage.delete_tree(folder)
        storage.failpoint("checkpoint.begin")
        files = {WEIGHTS: _pack(checkpoint.weights), TRAINING: _pack(checkpoint.training)}
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
    for step in reversed(_steps(run_uri)):
        try:
            return _load(run_uri, step)
        except (CorruptError, InputError) as error:
            _log.warning("checkpoint of step %d is not usable, falling back to the one before: %s", step, error)
    return None


def newest_state(run_uri: str) -> Mapping[str, Any] | None:
    """The state of the newest checkpoint whose every byte matches its hashes, its tensors left on disk; None without.

    Raises UnreachableError as `latest`.
    """
    valid = (folder for step in reversed(_steps(run_uri)) if _is_valid(folder := _folder(run_uri, step)))
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
    for step in _steps(run_uri):
        storage.delete(storage.join(_folder(run_uri, step), STATE))
    storage.delete_tree(storage.join(run_uri, "checkpoints"))


def start_over(run_uri: str) -> None:
    """Removes every checkpoint, and the bundle of an attempt that did not come to its end."""
    drop(run_uri)
    storage.delete_tree(model_uri(run_uri))


def save_model(run_uri: str, weights: Mapping[str, Tensor], bundle: ModelBundle) -> ModelBundle:
    """Writes the bundle that predicts, `model.json` last. Returns it with the weights' hash filled in.

    The header of the weights says what they are used for, so that their hash is the name of a model: the same weights
    that look at an image another way are another one, to the evaluations as to the gate.
    """
    data = _pack(weights, metadata=_use_of(bundle))
    finished = replace(bundle, weights_sha256=storage.sha256_bytes(data))
    folder = model_uri(run_uri)
    storage.write_once(storage.join(folder, WEIGHTS), data)
    storage.write_json_once(storage.join(folder, BUNDLE), reports.to_plain(finished))
    return finished


def load_bundle(uri: str) -> ModelBundle:
    """The description of a model bundle: a folder with `model.json` and `weights.safetensors`."""
    path = storage.join(uri, BUNDLE)
    if not storage.exists(path):
        raise InputError(f"{uri}: not a model bundle, {BUNDLE} is missing; give the model/ folder of a finished run")
    return reports.from_plain(ModelBundle, storage.read_json(path), origin=path)


def verify_bundle(uri: str) -> ModelBundle:
    """The description of a model bundle whose weights, read in pieces, are its own. Raises as `load_model`."""
    bundle, path = load_bundle(uri), storage.join(uri, WEIGHTS)
    _require_sha256(path, storage.sha256_file(path), bundle.weights_sha256)
    with storage.open_read(path) as file:
        _require_use(uri, bundle, file)
    return bundle


def load_model(uri: str, *, device: torch.device | str = "cpu") -> tuple[nn.Module, ModelBundle]:
    """A ready model in eval mode with its description.

    Raises CorruptError when the weights are not the ones that the bundle names, were saved for another use, or do not
    fit its architecture; InputError when a file is missing.
    """
    bundle, path = load_bundle(uri), storage.join(uri, WEIGHTS)
    try:
        data = _read_verified(path, bundle.weights_sha256)
        _require_use(uri, bundle, io.BytesIO(data))
        weights = _unpack(data, path)
    except CorruptError as error:
        raise CorruptError(
            f"{error}. Restore it from a copy, or run the same training again, which makes the model anew from its "
            "checkpoints"
        ) from error
    model = models.create(bundle.arch, len(bundle.classes), **bundle.options)
    try:
        model.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        raise CorruptError(f"{uri}/{WEIGHTS}: does not fit {bundle.arch} {dict(bundle.options)}: {error}") from None
    return model.to(device).eval(), bundle


def model_uri(run_uri: str) -> str:
    """Where a finished run keeps the bundle of its best step."""
    return storage.join(run_uri, "model")


def _use_of(bundle: ModelBundle) -> dict[str, str]:
    """Everything besides the weights that decides a prediction, as the header of a safetensors file takes it."""
    names = ("arch", "options", "classes", "mean", "std", "input_scale", "inference")
    used = reports.to_plain({name: getattr(bundle, name) for name in names})
    return {"segpipe": storage.canonical_json(used).decode()}


def _require_use(uri: str, bundle: ModelBundle, weights: BinaryIO) -> None:
    """Raises CorruptError unless the header of the weights names the use that the bundle describes.

    That header is eight bytes of length, then JSON. (Its library reads it from local files only.)
    """
    try:
        length = int.from_bytes(weights.read(8), "little")
        header = json.loads(weights.read(min(length, _MOST_HEADER_BYTES)))
        found = header.get("__metadata__")
    except (ValueError, AttributeError) as error:
        raise CorruptError(f"{storage.join(uri, WEIGHTS)}: not a safetensors file: {error}") from None
    if found != _use_of(bundle):
        raise CorruptError(
            f"{storage.join(uri, BUNDLE)}: describes another use than the one that the header of {WEIGHTS} names; one "
            "of the two was changed"
        )


def _pack(tensors: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> bytes:
    # Contiguous copies: safetensors refuses views and channels-last strides.
    as_stored = partial(torch.Tensor.to, device="cpu", memory_format=torch.contiguous_format, copy=True)
    return to_safetensors({key: as_stored(tensor.detach()) for key, tensor in tensors.items()}, metadata)


def _load(run_uri: str, step: int) -> Checkpoint:
    """Raises CorruptError when a byte differs from what was written, InputError when a file is missing."""
    folder = _folder(run_uri, step)
    document = _read_state(folder)
    paths = {name: storage.join(folder, name) for name in (WEIGHTS, TRAINING)}
    files = {name: _unpack(_read_verified(path, document["files"][name]), path) for name, path in paths.items()}
    for name, tensors in files.items():
        if (key := _not_finite(tensors)) is not None:
            raise CorruptError(f"{folder}/{name}: {key} holds NaN or Inf; this checkpoint cannot be continued")
    return Checkpoint(step=step, weights=files[WEIGHTS], training=files[TRAINING], state=document["state"])


def _require_sha256(path: str, found: str, expected: str) -> None:
    if found != expected:
        raise CorruptError(
            f"{path}: SHA-256 is {found[:12]}, expected {expected[:12]}; the file was changed or damaged"
        )


def _read_verified(path: str, sha256: str) -> bytes:
    data = storage.read_bytes(path)
    _require_sha256(path, storage.sha256_bytes(data), sha256)
    return data


def _unpack(data: bytes, path: str) -> dict[str, Tensor]:
    try:
        return from_safetensors(data)
    except SafetensorError as error:
        raise CorruptError(f"{path}: not a safetensors file: {error}") from None


def _read_state(folder: str) -> dict[str, Any]:
    """The document of `state.json`, its own hash checked: a flipped digit of a position would still be valid JSON."""
    path = storage.join(folder, STATE)
    document = storage.read_json(path)
    body = {key: value for key, value in document.items() if key != "sha256"} if isinstance(document, dict) else {}
    if not body or document.get("sha256") != storage.sha256_bytes(storage.canonical_json(body)):
        raise CorruptError(f"{path}: does not match its own SHA-256; the file was changed or damaged")
    return body


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or Inf."""
    bad = (key for key, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all())
    return next(bad, None)


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


def _steps(run_uri: str, *, holding: str = STATE) -> list[int]:
    """Steps with a file of that name (`""`: any file, so torn ones too), ascending."""
    paths = storage.list_tree(storage.join(run_uri, "checkpoints"), suffix=holding)
    return sorted({int(path.split("/")[0].removeprefix("step-")) for path in paths})


def _prune(run_uri: str, spare: set[int | None]) -> None:
    complete = _steps(run_uri)
    kept = {*complete[-KEEP:], *spare}
    for step in _steps(run_uri, holding=""):
        if step not in kept and step < complete[-1]:
            # The state goes first: a half-deleted checkpoint must not look like one.
            storage.delete(storage.join(_folder(run_uri, step), STATE))
            storage.delete_tree(_folder(run_uri, step))
