"""A recipe: the one YAML file that tells a whole experiment, checked before anything is asked for.

Strict: an unknown key, a wrong type or a value out of range is an `InputError` that names the key's path (`strict.py`
says how). What a run is identified by is the digest of `RunConfig.identity`: the parts that change its result.
`Recipe.load` is the only reader of recipe files.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from segpipe.config.augment import AugmentConfig
from segpipe.config.crf import CrfConfig, CrfGrid
from segpipe.config.grid import expand_grids
from segpipe.config.inference import InferenceConfig, WindowConfig
from segpipe.config.loss import LossConfig
from segpipe.config.strict import Fraction, Positive, Strict, apply_override, dump_yaml, read_yaml, validate
from segpipe.config.train import WITHOUT_EFFECT, TrainConfig
from segpipe.errors import InputError
from segpipe.types import Task

__all__ = [
    "WITHOUT_EFFECT",
    "ArchitectureConfig",
    "AugmentConfig",
    "CrfConfig",
    "CrfGrid",
    "DatasetConfig",
    "EvaluateConfig",
    "InferenceConfig",
    "LossConfig",
    "PromoteConfig",
    "Recipe",
    "ResourceConfig",
    "RunConfig",
    "Strict",
    "TrainConfig",
    "WindowConfig",
    "digest",
    "expand_root",
    "validate",
]

TaskName = Literal["semantic", "instance", "detection", "panoptic", "keypoints"]  # of `Task`, those that can be trained
ENSEMBLE = "ensemble"  # the `arch` of a run that is one
SHARED_BY_MEMBERS = ("sigmoid", "input_scale", "inference")  # keys of `train` in which members of an ensemble agree


class DatasetConfig(Strict):
    """What `retrain` ingests before training: a source format, where its files are, and the dataset's name."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="dataset name, part of its URI and versions")
    format: str = Field(description="a source of `segpipe list sources`")
    root: str = Field(default="", description="folder or URI of the source files; $VARIABLES are expanded")
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="options of the source; `segpipe list sources FORMAT` explains them"
    )
    max_quarantine: Fraction = Field(default=0.01, description="refuse the version above this share of bad samples")


class ResourceConfig(Strict):
    """What one training asks of Ray. Not part of a run's identity: the same run may move to other hardware."""

    workers: Positive = 1
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    max_failures: Annotated[int, Field(ge=0)] = 3


class EvaluateConfig(Strict):
    """The evaluation protocol of the leaderboard."""

    split: str = "test"
    batch_size: Positive = Field(default=4, description="images of equal size in one forward pass")
    workers: Positive = 1
    pictures: Annotated[int, Field(ge=0, le=64)] = Field(default=6, description="sample predictions drawn as images")


class PromoteConfig(Strict):
    """When a challenger becomes champion."""

    floor: Fraction = Field(default=0.0, description="the first champion must reach this value of the primary metric")
    margin: Fraction = Field(default=0.0, description="a challenger must be better by more than this")


class ArchitectureConfig(Strict):
    """One entry of the recipe's comparison: an architecture, its options and what differs in its training.

    Or an ensemble of others: the mean of their logits, which is not trained, but scored and promoted like them.
    """

    arch: str = Field(default="", description="an architecture of `segpipe list models`")
    ensemble: tuple[str, ...] = Field(default=(), description="instead of `arch`: labels of other entries")
    label: str = Field(default="", pattern=r"^[a-z0-9_-]{0,63}$", description="name on the board; default: the arch")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the architecture")
    pretrained: str | None = Field(default=None, description="torchvision weights by name, or a local file")
    start_from: str | None = Field(
        default=None,
        description="label of an entry above, from whose finished weights the training starts, as far as they fit",
    )
    train: dict[str, Any] = Field(
        default_factory=dict, description="overrides of keys of `train`; a `loss` takes the place of the whole one"
    )

    @model_validator(mode="after")
    def is_one_or_several(self) -> Self:
        if self.arch == ENSEMBLE or not (self.arch or self.ensemble):
            raise ValueError("name an architecture as `arch`, or the labels of several entries above as `ensemble`")
        if self.ensemble and (self.arch or self.options or self.pretrained or self.start_from or self.train):
            raise ValueError("an ensemble is of models that other entries describe: give it a `label` and nothing else")
        if self.ensemble and (len(self.ensemble) < 2 or len(set(self.ensemble)) < len(self.ensemble)):
            raise ValueError(f"an ensemble is of two or more different entries, found {list(self.ensemble)}")
        if self.start_from is not None and self.pretrained is not None:
            raise ValueError(f"it starts from {self.start_from!r} and is pretrained; take one")
        return self

    @property
    def name(self) -> str:
        """What it is called on the board, and by entries below that start from it or count it as a member."""
        return self.label or self.arch or ENSEMBLE


class Recipe(Strict):
    """A whole experiment: dataset, architectures, training, evaluation, promotion."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="experiment, registered model and ledger name")
    description: str = ""
    task: TaskName = Field(
        default="semantic", description="what the models are asked for; `segpipe list tasks` says what each needs"
    )
    dataset: DatasetConfig
    architectures: tuple[ArchitectureConfig, ...] = Field(min_length=1)
    train: TrainConfig
    resources: ResourceConfig = ResourceConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promote: PromoteConfig = PromoteConfig()

    @model_validator(mode="after")
    def labels_are_unique(self) -> Self:
        labels = [entry.name for entry in self.architectures]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"architectures with the same label {twice}: give each a different `label`")
        return self

    @model_validator(mode="after")
    def others_stand_above(self) -> Self:
        for index, entry in enumerate(self.architectures):
            trained = [above.name for above in self.architectures[:index] if not above.ensemble]
            for key, labels in (("ensemble", entry.ensemble), ("start_from", (entry.start_from,))):
                unknown = [label for label in labels if label is not None and label not in trained]
                if unknown:
                    raise ValueError(
                        f"architectures.{index}.{key}: no entry above that is trained is labelled "
                        f"{', '.join(unknown)}; there are: {', '.join(trained) or 'none'}"
                    )
            if entry.ensemble and self.task != "semantic":
                raise ValueError(f"ensemble {entry.name!r}: of task {self.task} there is no mean; leave it out")
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
        """Reads a recipe file and applies `key.path=value` overrides (values are YAML).

        Raises InputError with every faulty key at once, each with its path, its value and what was expected.
        """
        return cls.parse(read_yaml(Path(path)), origin=str(path), overrides=overrides)

    @classmethod
    def parse(cls, document: Any, *, origin: str, overrides: tuple[str, ...] = ()) -> Recipe:
        """Checks a recipe given as plain data; `origin` names it in errors."""
        if not isinstance(document, dict):
            raise InputError(f"{origin}: a recipe is a mapping of keys to values, found {type(document).__name__}")
        if overrides:
            document = copy.deepcopy(document)
        for override in overrides:
            apply_override(document, override)
        recipe = validate(cls, expand_grids(document, origin=origin), origin)
        faults = []
        for index in range(len(recipe.architectures)):
            try:
                recipe.run_config(index, origin=origin)
            except InputError as error:
                faults.append(str(error))
        if faults:
            raise InputError("\n".join(faults))
        return recipe

    def to_yaml(self) -> str:
        """The recipe with every default written out, as YAML that `load` takes."""
        return dump_yaml(self.model_dump(mode="json"))

    def run_configs(self) -> list[RunConfig]:
        """The training of every architecture, in the recipe's order."""
        return [self.run_config(index) for index in range(len(self.architectures))]

    def index_of(self, label: str) -> int:
        """The place of the architecture with this label. Raises InputError with the labels there are."""
        labels = [entry.name for entry in self.architectures]
        if label not in labels:
            raise InputError(
                f"recipe {self.name!r}: no architecture is labelled {label!r}; there are: {', '.join(labels)}"
            )
        return labels.index(label)

    def run_config(self, index: int, *, origin: str = "recipe") -> RunConfig:
        """The training of architecture `index`, its overrides applied; of an ensemble with those of its members.

        Raises InputError on an unknown override, and on members that see images in different ways.
        """
        architecture = self.architectures[index]
        if architecture.ensemble:
            return self._ensemble_config(architecture, origin)
        common = self.train.model_dump(mode="json")
        if "loss" in architecture.train:  # of another loss, not further terms of the common one
            del common["loss"]
        merged = _deep_merge(common, architecture.train)
        train = validate(TrainConfig, merged, origin, below=f"architectures.{index}.train.")
        parent = architecture.start_from
        return RunConfig(
            experiment=self.name,
            task=self.task,
            arch=architecture.arch,
            label=architecture.name,
            options=architecture.options,
            pretrained=architecture.pretrained,
            start_from=None if parent is None else self.run_config(self.index_of(parent), origin=origin),
            train=train,
        )

    def _ensemble_config(self, architecture: ArchitectureConfig, origin: str) -> RunConfig:
        members = tuple(self.run_config(self.index_of(label), origin=origin) for label in architecture.ensemble)
        for key in SHARED_BY_MEMBERS:
            values = [getattr(member.train, key) for member in members]
            if any(value != values[0] for value in values):
                raise InputError(
                    f"{origin}: ensemble {architecture.name!r}: the mean is of logits for the same pixels, and train."
                    f"{key} differs between {', '.join(architecture.ensemble)}; give them the same"
                )
        return RunConfig(
            experiment=self.name,
            task=self.task,
            arch=ENSEMBLE,
            label=architecture.name,
            options={},
            pretrained=None,
            train=members[0].train,
            members=members,
        )


class RunConfig(Strict):
    """One training run, complete: what `train` needs besides a dataset. Its digest is part of the run's path.

    As `Recipe.run_config` makes it, it says what the recipe says. `stages/identity.py`, which knows the architectures,
    fills in the options that the recipe left out, and `pretrained_id`.
    """

    experiment: str
    task: TaskName
    arch: str
    label: str
    options: dict[str, Any]
    pretrained: str | None
    pretrained_id: str | None = Field(
        default=None,
        description="which weights `pretrained` means, wherever they lie: a full name, or a file's SHA-256",
    )
    start_from: RunConfig | None = Field(default=None, description="the training whose weights this one starts from")
    train: TrainConfig
    members: tuple[RunConfig, ...] = Field(
        default=(),
        description="of an ensemble: what it is the mean of. It has no training of its own, and of `train` "
        "only what decides how it looks at images has a meaning",
    )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain data: two runs with the same identity are the same training.

        `pretrained` says which weights, not where they lie, and `start_from` which training, to its first weights.
        """
        document = self.model_dump(mode="json", exclude={"pretrained_id", "start_from", "train", "members"})
        if self.members:
            return {**document, "members": [member.identity for member in self.members]}
        document |= {"train": self.train.identity, "pretrained": self.pretrained_id or self.pretrained}
        return document if self.start_from is None else {**document, "start_from": self.start_from.identity}

    @property
    def awaits(self) -> tuple[str, ...]:
        """Labels of the trainings that must have ended before this one begins."""
        return tuple(run.label for run in (self.start_from, *self.members) if run is not None)

    @property
    def digest(self) -> str:
        return digest(self.identity)

    @property
    def task_kind(self) -> Task:
        return Task(self.task)


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of plain data as canonical JSON: sorted keys, no spaces."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def expand_root(root: str) -> str:
    """Expands `$VARIABLES` and `~` in a source root and makes a local path absolute, as workers stand elsewhere.

    Raises InputError when a variable is not set.
    """
    expanded = os.path.expanduser(os.path.expandvars(root))
    if "$" in expanded:
        raise InputError(f"dataset.root: {root!r} names an environment variable that is not set; set it and run again")
    return os.path.abspath(expanded) if expanded and "://" not in expanded else expanded


def _deep_merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _deep_merge(merged[key], value) if both else value
    return merged
