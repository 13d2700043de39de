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
from segpipe.config.grid import expand_grids
from segpipe.config.inference import InferenceConfig, Scale, WindowConfig
from segpipe.config.loss import CROSS_ENTROPY, LossConfig
from segpipe.config.strict import Fraction, Positive, Strict, apply_override, dump_yaml, read_yaml, validate
from segpipe.errors import InputError
from segpipe.types import Task

__all__ = [
    "ArchitectureConfig",
    "AugmentConfig",
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
# Keys of `train` that reach no weight: batches come in the same order from any number of threads (data/loader.py), and
# a checkpoint only reads (train/session.py). They may differ between two attempts at the same run.
WITHOUT_EFFECT = ("checkpoint_every", "loader_threads")
# Keys of `train` that came later: part of a run's identity only where they are used, so that a new one leaves the
# digests of finished runs as they are.
_LATER = ("loss", "sigmoid")


class DatasetConfig(Strict):
    """What `retrain` ingests before training: a source format, where its files are, and the dataset's name."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="dataset name, part of its URI and versions")
    format: str = Field(description="a source of `segpipe list sources`")
    root: str = Field(default="", description="folder or URI of the source files; $VARIABLES are expanded")
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="options of the source; `segpipe list sources FORMAT` explains them"
    )
    max_quarantine: Fraction = Field(default=0.01, description="refuse the version above this share of bad samples")


class TrainConfig(Strict):
    """One training run. Every key may be overridden per architecture."""

    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Positive
    batch_size: Positive = Field(description="images in one optimiser step's micro-batch, over all workers")
    accumulate: Positive = Field(default=1, description="micro-batches summed before one optimiser step")
    augment: AugmentConfig
    input_scale: Scale = Field(
        default=1.0, description="images enter the model resized by this factor, in training and in prediction"
    )
    inference: InferenceConfig = InferenceConfig()
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    backbone_learning_rate_factor: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="learning rate of the backbone relative to the rest; lower it for pretrained weights"
    )
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    loss: LossConfig = Field(
        default=CROSS_ENTROPY, description="terms of a loss of pixels with their weights, such as {dice: 1.0}"
    )
    sigmoid: bool = Field(
        default=False, description="one output for two classes, the logit of the second one, instead of one for each"
    )
    class_weights: Literal["none", "enet", "median_frequency"] = "none"
    class_weight_power: Fraction = Field(
        default=1.0, description="class weights are raised to it; 0.5 makes rare classes spread less over common ones"
    )
    aux_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.4, description="factor of the loss of auxiliary heads, where the architecture has any"
    )
    evaluate_every: Positive = Field(default=1, description="epochs between evaluations on the validation split")
    patience: Positive | None = Field(default=None, description="evaluations without a better value before stopping")
    checkpoint_every: Positive | None = Field(default=None, description="optimiser steps between checkpoints")
    train_split: str = "train"
    validation_split: str = "val"
    loader_threads: Positive = 2

    @model_validator(mode="after")
    def nothing_is_ignored(self) -> Self:
        """Compares with the defaults: a recipe written out in full (`Recipe.to_yaml`) has every key set."""
        if self.optimizer != "sgd" and self.momentum != self.default("momentum"):
            raise ValueError(f"momentum is sgd's, {self.optimizer} would ignore it: leave it out")
        if self.class_weights == "none" and self.class_weight_power != self.default("class_weight_power"):
            raise ValueError("class_weight_power without class weights does nothing: set class_weights or leave it out")
        if self.class_weights != "none" and not self.loss.weighs_classes:
            raise ValueError(
                f"class_weights is {self.class_weights}, and of the loss {', '.join(self.loss.terms)} no term knows of "
                "them (cross_entropy and focal do): leave it out"
            )
        if self.class_weights != "none" and self.loss.two_classes:
            raise ValueError("class_weights and the alpha of focal both weigh classes: leave one of them out")
        return self

    @classmethod
    def default(cls, key: str) -> Any:
        return cls.model_fields[key].default

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the weights, as plain data: without keys that have no effect, and options that are off."""
        unused = {key for key in _LATER if getattr(self, key) == self.default(key)}
        document = self.model_dump(mode="json", exclude=unused.union(WITHOUT_EFFECT))
        return {**document, "augment": self.augment.identity, "inference": self.inference.identity}


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
    """One entry of the recipe's comparison: an architecture, its options and what differs in its training."""

    arch: str = Field(description="an architecture of `segpipe list models`")
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

    @property
    def known_as(self) -> str:
        """What the board calls it, and an entry below that starts from it."""
        return self.label or self.arch


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
        labels = [entry.known_as for entry in self.architectures]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"architectures with the same label {twice}: give each a different `label`")
        return self

    @model_validator(mode="after")
    def starts_are_above(self) -> Self:
        for index, entry in enumerate(self.architectures):
            above = [entry.known_as for entry in self.architectures[:index]]
            if entry.start_from is not None and entry.start_from not in above:
                raise ValueError(
                    f"architectures.{index}.start_from: {entry.start_from!r} is not the label of an entry above; "
                    f"there are: {', '.join(above) or 'none'}"
                )
            if entry.start_from is not None and entry.pretrained is not None:
                raise ValueError(f"architectures.{index}: starts from {entry.start_from!r} and is pretrained; take one")
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
        labels = [entry.known_as for entry in self.architectures]
        if label not in labels:
            raise InputError(
                f"recipe {self.name!r}: no architecture is labelled {label!r}; there are: {', '.join(labels)}"
            )
        return labels.index(label)

    def run_config(self, index: int, *, origin: str = "recipe") -> RunConfig:
        """The training of architecture `index`, its overrides applied. Raises InputError on an unknown override."""
        architecture = self.architectures[index]
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
            label=architecture.known_as,
            options=architecture.options,
            pretrained=architecture.pretrained,
            start_from=None if parent is None else self.run_config(self.index_of(parent), origin=origin),
            train=train,
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

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain data: two runs with the same identity are the same training.

        `pretrained` says which weights, not where they lie, and `start_from` which training, to its first weights.
        """
        document = self.model_dump(mode="json", exclude={"pretrained_id", "start_from", "train"})
        document |= {"train": self.train.identity, "pretrained": self.pretrained_id or self.pretrained}
        return document if self.start_from is None else {**document, "start_from": self.start_from.identity}

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
