"""What a model was made of, read from what its training left: the data of its trainings and of those before it, and the
weights that they began with. Below `leaks.py`, `lineage.py`, `diff.py` and `card_about.py`.

Everything hangs together by hashes: the bundle names its recipe's digest, and `run.json` beside it is that recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segpipe import checkpoint, storage
from segpipe.config.run import digest
from segpipe.errors import CorruptError, InputError
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import layout
from segpipe.types import ModelBundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One training behind a model: what it was called, the folder that it has or had, the splits that it learnt from
    and chose its epoch by, and the weights that it began with: `pretrained` (a full name, or "sha256:..." of a file) or
    `start_from` (the label of another training). `role` is "training", "start_from" or "member"."""

    role: str
    label: str
    arch: str
    run_uri: str
    train_split: str
    validation_split: str
    pretrained: str | None
    start_from: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """A model with the trainings behind it, its own first. All were on the dataset version that the bundle names."""

    model_uri: str
    bundle: ModelBundle
    trainings: tuple[Training, ...]


def origin_of(model_uri: str) -> Origin:
    """What a model bundle was made of.

    Raises InputError where the bundle or the `run.json` beside it is missing, CorruptError where one is damaged.
    """
    bundle = checkpoint.load_bundle(model_uri)
    trainings = tuple(_trainings(recipe_of(model_uri, bundle), bundle, run_folder(model_uri), "training"))
    return Origin(model_uri=model_uri, bundle=bundle, trainings=trainings)


def recipe_of(model_uri: str, bundle: ModelBundle) -> Mapping[str, Any]:
    """The recipe of a model's run as plain data (`RunConfig.identity`). Raises as `origin_of`."""
    path = storage.join(run_folder(model_uri), layout.RUN_CONFIG)
    if not storage.exists(path):
        raise InputError(
            f"{path}: no such file; it says what the model was trained on. Copy the whole folder of its run, not the "
            "model alone"
        )
    document = storage.read_json(path)
    if not isinstance(document, dict) or digest(document) != bundle.config_digest:
        raise CorruptError(
            f"{path}: is not the recipe {bundle.config_digest[:12]} that the model beside it names; restore it"
        )
    return document


def run_folder(model_uri: str) -> str:
    """The folder of the run that left a model: the one above it."""
    return model_uri.rstrip("/").rpartition("/")[0]


def find_dataset(version: str, places: Sequence[str]) -> Dataset:
    """A dataset version at the first of these places that has it. Raises InputError, and CorruptError where it is
    damaged there."""
    tried = list(dict.fromkeys(places))
    for place in tried:
        try:
            return open_dataset(place, version=version)
        except InputError:
            continue
    raise InputError(
        f"the dataset version {version[:12]} is not in {' or '.join(tried)}; restore it from a copy, or ingest its "
        "source again as it was"
    )


def dataset_of(bundle: ModelBundle, *, beside: str | None = None) -> Dataset:
    """The dataset version that a model was trained on: in the dataset `beside`, or else in the home under its name.

    Raises as `find_dataset`.
    """
    places = [place for place in (beside, layout.dataset_uri(bundle.dataset)) if place]
    return find_dataset(bundle.dataset_version, places)


def _trainings(document: Mapping[str, Any], bundle: ModelBundle, run_uri: str, role: str) -> Iterator[Training]:
    """The training of a run, or those of an ensemble's members, each followed by what it started from."""
    for member in document.get("members", ()):
        yield from _trainings(member, bundle, _sibling(member, bundle, run_uri), "member")
    if "train" not in document:
        return
    parent = document.get("start_from")
    yield Training(
        role=role,
        label=document["label"],
        arch=document["arch"],
        run_uri=run_uri,
        train_split=document["train"]["train_split"],
        validation_split=document["train"]["validation_split"],
        pretrained=document.get("pretrained"),
        start_from=None if parent is None else parent["label"],
    )
    if parent is not None:
        yield from _trainings(parent, bundle, _sibling(parent, bundle, run_uri), "start_from")


def _sibling(document: Mapping[str, Any], bundle: ModelBundle, run_uri: str) -> str:
    """The folder of another run of the same night: beside this one."""
    name = layout.run_name(document["label"], digest(document), bundle.dataset_version, bundle.code_version)
    return storage.join(run_folder(run_uri), name)
