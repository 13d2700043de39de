"""Weights from outside into a fresh model: torchvision's by name, or a local file. Used by `models/__init__.py` alone.

Nothing is loaded in part without a word: what is missing or left over is an error, and what is dropped on purpose
(classifiers of another number of classes, heads that this model does not have, most of a layer that is subsampled) is
logged.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import pickle
import socket
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.error import URLError
from urllib.parse import urlparse

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from segpipe.errors import CorruptError, InputError, UnreachableError
from segpipe.models.parts.backbones import MAP_NORMS, timm_features
from segpipe.models.spec import ModelSpec

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth", ".pt")
CONNECT_SECONDS = 30.0
# torchvision's classifiers: what lies behind the last map that a backbone keeps.
CLASSIFIER_PREFIXES = ("fc.", "classifier.", "head.", "norm.")
OPTIONAL_HEADS = ("aux_classifier.",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Receiver:
    """A model that weights are wanted for. For a check, `model` may have no memory ("meta").

    `builders` are torchvision's names of this very model; `class_keys` the tensors whose shape the number of classes
    decides, or that of something else that the model finds.
    """

    spec: ModelSpec
    model: nn.Module
    builders: tuple[str, ...]
    class_keys: frozenset[str]


def load_pretrained(receiver: Receiver, pretrained: str) -> None:
    """Loads `pretrained` (see `models.create`) into the model, in place. Raises as `models.create` says."""
    if _is_file_name(pretrained):
        found = _read_file(Path(pretrained))
    else:
        found = _download(_weights_named(pretrained, receiver))
    state, dropped = _fitted(found, receiver, origin=pretrained)
    receiver.model.load_state_dict(state, strict=False)  # strictness is _check_fit's, with a message that helps
    logger.info("%s: loaded %d tensors from %s", receiver.spec.name, len(state), pretrained)
    if dropped:
        logger.warning("%s: not loaded from %s, on purpose: %s", receiver.spec.name, pretrained, some(dropped))


def check_pretrained(receiver: Receiver, pretrained: str) -> None:
    """Raises InputError where `load_pretrained` would, and downloads nothing."""
    if _is_file_name(pretrained):
        _fitted(_read_file(Path(pretrained)), receiver, origin=pretrained)
    else:
        _weights_named(pretrained, receiver)


def identify_pretrained(receiver: Receiver, pretrained: str) -> str:
    """What tells these weights from all others (see `models.weights_id`).

    A file may be overwritten and a short name mean other weights tomorrow ("DEFAULT"), so neither is taken as written.
    """
    if not _is_file_name(pretrained):
        weights = _weights_named(pretrained, receiver)
        return f"{type(weights).__name__}.{weights.name}"
    _require_file(Path(pretrained))
    try:
        with open(pretrained, "rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise InputError(f"pretrained: {pretrained}: cannot be read: {error.strerror or error}") from None


def _is_file_name(pretrained: str) -> bool:
    return pretrained.endswith(SUFFIXES)


def _require_file(path: Path) -> None:
    if not os.path.isfile(path):  # and not Path.is_file, which raises PermissionError below a closed folder
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise InputError(
            f"pretrained: {path}: no such file{place}; give a {', '.join(SUFFIXES)} file or a weights name"
        )


def _read_file(path: Path) -> dict[str, Tensor]:
    _require_file(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"pretrained: {path}: holds more than tensors, or is no torch file; such files can run code and are not "
            "opened. Save the state dict alone, best as .safetensors"
        ) from None
    except (safetensors.SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"pretrained: {path}: cannot be read as weights: {error}") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"pretrained: {path}: expected a mapping of names to tensors (a state dict)")
    return dict(content)


@runtime_checkable
class Encoder(Protocol):
    """What is asked of a model's `backbone`: `name` of the family member, `stem` the name of its first convolution."""

    name: str
    stem: str

    def get_parameter(self, target: str) -> nn.Parameter: ...


def _backbone_of(model: nn.Module) -> Encoder:
    backbone = model.get_submodule("backbone")
    assert isinstance(backbone, Encoder)
    return backbone


def _weights_named(name: str, receiver: Receiver) -> Any:
    """The member of torchvision's weights enums of this backbone, or of this very model, that `name` means."""
    backbone = _backbone_of(receiver.model)
    builders = [name for name in (backbone.name, *receiver.builders) if name in torchvision.models.list_models()]
    enums = [torchvision.models.get_model_weights(builder) for builder in builders]
    known = {member_name: enum for enum in reversed(enums) for member_name in enum.__members__}
    enum_name, _, member = name.rpartition(".")
    for enum in enums:
        if enum_name in ("", enum.__name__) and member in enum.__members__:
            return enum[member]
    names = f"one of {', '.join(known)}, or " if known else ""
    raise InputError(
        f"pretrained: {name!r} is not known for {receiver.spec.name} with {backbone.name}; expected {names}a local "
        f"{', '.join(SUFFIXES)} file"
    )


def _download(weights: Any) -> dict[str, Tensor]:
    """torchvision's own download into torch hub's folder, or the file that lies there already."""
    name = Path(urlparse(weights.url).path).name
    place = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        # Hub prints its progress to standard output, which belongs to `--json`; and it waits for ever by default.
        with contextlib.redirect_stdout(sys.stderr), _connect_timeout(CONNECT_SECONDS):
            return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise UnreachableError(
            f"pretrained: {name} could not be downloaded ({error}). Put that file at {place}, or give a local file: "
            f"pretrained: path/to/{name}; leave `pretrained` out to train from random weights"
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CorruptError(
            f"pretrained: {place} is not the file that torchvision names ({error}); delete it"
        ) from error


@contextlib.contextmanager
def _connect_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _fitted(found: Mapping[str, Tensor], receiver: Receiver, *, origin: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under the model's own keys, and the keys that are left out on purpose. Raises InputError."""
    adapt = receiver.spec.adapt
    adapted = adapt(found) if adapt else dict(found)
    # Files of a whole model name its backbone, or are made to by its `adapt`; all others are a classifier's.
    named = any(key.startswith("backbone.") for key in adapted)
    whole = named and (
        any(key.startswith("backbone.") for key in found) or not all(key.startswith("backbone.") for key in adapted)
    )
    state = adapted if named else _backbone_keys(found, receiver.model.state_dict())
    state = _fit_stem(state, _backbone_of(receiver.model), origin=origin)
    state = _subsampled(state, receiver, origin=origin)
    state, dropped = _drop_heads(state, receiver)
    where = f"pretrained {origin!r} for {receiver.spec.name}"
    _check_fit(state, receiver.model, dropped, whole=whole, origin=where)
    return state, dropped


def _backbone_keys(found: Mapping[str, Tensor], ours: Collection[str]) -> dict[str, Tensor]:
    """A classifier's keys as the backbone's, which has MobileNetV3's `features` at its root, and timm's in its body."""
    body = f"backbone.{timm_features.BODY}.body."
    inside = {key.removeprefix(body) for key in ours if key.startswith(body)}
    if inside:
        return {f"{body}{key}": value for key, value in timm_features.keys_of_features(found, inside).items()}
    kept = {key: value for key, value in found.items() if not key.startswith(CLASSIFIER_PREFIXES)}
    return {f"backbone.{key.removeprefix('features.')}": value for key, value in kept.items()}


def _fit_stem(state: dict[str, Tensor], backbone: Encoder, *, origin: str) -> dict[str, Tensor]:
    """RGB kernels for another number of channels: their mean, repeated, scaled to keep the response's size."""
    key = f"backbone.{backbone.stem}.weight"
    wanted = backbone.get_parameter(f"{backbone.stem}.weight").shape
    kernel = state.get(key)
    if kernel is None or kernel.shape == wanted or kernel.shape[1] != 3:
        return state
    logger.warning("%s: first convolution averaged over RGB for %d input channels", origin, wanted[1])
    fitted = kernel.mean(dim=1, keepdim=True).expand(-1, wanted[1], -1, -1) * (3 / wanted[1])
    return {**state, key: fitted.contiguous()}


def _subsampled(state: dict[str, Tensor], receiver: Receiver, *, origin: str) -> dict[str, Tensor]:
    """What `ModelSpec.subsampled` names, along every axis of which the file has more: evenly spaced, from the middle.

    Of 7 rows 3 are the first, middle and last one; tensors of as many channels keep the same of them.
    """
    ours, fitted = receiver.model.state_dict(), dict(state)
    for key in (key for key in receiver.spec.subsampled if key in state):
        for axis, wanted in enumerate(ours[key].shape):
            found = fitted[key].shape[axis] if axis < fitted[key].dim() else 0
            if found > wanted:
                step = (found - 1) // max(1, wanted - 1)
                first = (found - 1 - step * (wanted - 1)) // 2
                fitted[key] = fitted[key].index_select(axis, torch.arange(first, first + step * wanted, step))
        if fitted[key] is not state[key]:
            shapes = tuple(state[key].shape), tuple(fitted[key].shape)
            logger.warning("%s: %s of shape %s subsampled to %s", origin, key, *shapes)
    return fitted


def _drop_heads(state: Mapping[str, Tensor], receiver: Receiver) -> tuple[dict[str, Tensor], list[str]]:
    """Splits off the tensors of classifiers for another number of classes and of optional heads not built here."""
    ours = receiver.model.state_dict()
    dropped = []
    for key, value in state.items():
        if key not in ours:
            other = key.startswith(OPTIONAL_HEADS)
        else:
            mine = ours[key].shape
            other = key in receiver.class_keys and mine != value.shape and mine[1:] == value.shape[1:]
        if other:
            dropped.append(key)
    return {key: value for key, value in state.items() if key not in dropped}, dropped


def _check_fit(state: Mapping[str, Tensor], model: nn.Module, dropped: list[str], *, whole: bool, origin: str) -> None:
    ours = model.state_dict()
    missing = [
        key
        for key in ours
        if key not in state
        and key not in dropped
        and (whole or (key.startswith("backbone.") and not key.startswith(f"backbone.{MAP_NORMS}.")))
        and not key.endswith("num_batches_tracked")  # absent from torchvision's oldest files; torch starts it at 0
    ]
    # A norm that is frozen counts no batches.
    unexpected = [key for key in state if key not in ours and not key.endswith("num_batches_tracked")]
    shapes = [
        f"{key}: file {tuple(value.shape)}, model {tuple(ours[key].shape)}"
        for key, value in state.items()
        if key in ours and value.shape != ours[key].shape
    ]
    faults = [
        f"{count} {what} ({some(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if (count := len(keys))
    ]
    if faults:
        raise InputError(
            f"{origin}: the tensors do not fit: {'; '.join(faults)}. "
            "Expected the keys of this backbone or of this whole model, built with the same options"
        )


def some(keys: list[str], limit: int = 4) -> str:
    """The first keys of a list, and how many more there are."""
    rest = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + rest
