"""The model of a finished training: weights that say what they are used for, and `model.json`. Part of `checkpoint`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import BinaryIO

import torch
from torch import Tensor, nn

from segpipe import models, reports, storage
from segpipe.checkpoint.tensors import WEIGHTS, pack, read_verified, require_sha256, unpack
from segpipe.errors import CorruptError, InputError
from segpipe.models.parts.placed import placed
from segpipe.types import ModelBundle

BUNDLE = "model.json"
_MOST_HEADER_BYTES = 100_000_000  # the format's own limit


def model_uri(run_uri: str) -> str:
    """Where a finished run keeps the bundle of its best step."""
    return storage.join(run_uri, "model")


def save_model(run_uri: str, weights: Mapping[str, Tensor], bundle: ModelBundle) -> ModelBundle:
    """Writes the bundle that predicts, `model.json` last. Returns it with the weights' hash filled in.

    The header of the weights says what they are used for, so that their hash is the name of a model: the same weights
    that look at an image another way are another one, to the evaluations as to the gate.
    """
    data = pack(weights, metadata=_use_of(bundle))
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
    require_sha256(path, storage.sha256_file(path), bundle.weights_sha256)
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
        data = read_verified(path, bundle.weights_sha256)
        _require_use(uri, bundle, io.BytesIO(data))
        weights = unpack(data, path)
    except CorruptError as error:
        raise CorruptError(
            f"{error}. Restore it from a copy, or run the same training again, which makes the model anew from its "
            "checkpoints"
        ) from error
    model = models.create(bundle.arch, 1 if bundle.sigmoid else len(bundle.classes), **bundle.options)
    try:
        model.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        raise CorruptError(f"{uri}/{WEIGHTS}: does not fit {bundle.arch} {dict(bundle.options)}: {error}") from None
    return placed(model.eval(), device), bundle


def _use_of(bundle: ModelBundle) -> dict[str, str]:
    """Everything besides the weights that decides a prediction, as the header of a safetensors file takes it."""
    names = ("arch", "options", "classes", "mean", "std", "input_scale", "inference")
    used = reports.to_plain(
        {name: getattr(bundle, name) for name in names} | ({"sigmoid": True} if bundle.sigmoid else {})
    )
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
