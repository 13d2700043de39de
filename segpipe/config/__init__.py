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
from segpipe.config.strict import Fraction, Positive, Strict, apply_override, dump_yaml, read_yaml, validate
from segpipe.errors import InputError
from segpipe.types import Task

__all__ = [
    "ArchitectureConfig",
    "AugmentConfig",
    "CrfConfig",
    "CrfGrid",
    "DatasetConfig",
    "EvaluateConfig",
    "InferenceConfig",
    "PromoteConfig",
    "Recipe",
    "ResourceConfig",
    "RunConfig",
    "Strict",
    "TrainConfig",
    "digest",
    "expand_root",
    "validate",
]

Scale = Annotated[float, Field(gt=0, le=4)]
TaskName = Literal["semantic", "instance", "detection", "panoptic", "keypoints"]  # of `Task`, those that can be trained
# Keys of `train` that reach no weight: batches come in the same order from any number of threads (data/loader.py), and
# a checkpoint only reads (train/session.py). They may differ between two attempts at the same run.
WITHOUT_EFFECT = ("checkpoint_every", "loader_threads")


class DatasetConfig(Strict):
    """What `retrain` ingests before training: a source format, where its files are, and the dataset's name."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="dataset name, part of its URI and versions")
    format: str = Field(description="a source of `segpipe list sources`")
    root: str = Field(default="", description="folder or URI of the source files; $VARIABLES are expanded")
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="options of the source; `segpipe list sources FORMAT` explains them"
    )
    max_quarantine: Fraction = Field(default=0.01, description="refuse the version above this share of bad samples")


class InferenceConfig(Strict):
    """How the trained model looks at an image, wherever it is used: in validation, on the board and when served.

    Every view costs one forward pass; the model's answer is the mean of what they say: of class probabilities
    (DeepLabv3, arXiv 1706.05587, section 4), or of the heatmaps of keypoints, which have a mirror image alone.

    A `crf` is left out in validation, as the DeepLab papers fit one after training: it costs an image of 360x480 some
    0.15 s of a core, as often as the model is validated, and to choose the best epoch it is not needed.
    """

    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = Field(
        default=(1.0,), description="sizes at which the model sees an image, relative to input_scale"
    )
    mirror: bool = Field(default=False, description="whether it sees each one mirrored left to right, too")
    crf: CrfConfig | None = Field(
        default=None, description="a dense CRF on what it says of each class, on the board and when served"
    )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides how a model looks, as plain data: what came later only where it is used."""
        return self.model_dump(mode="json", exclude={key for key in ("crf",) if getattr(self, key) is None})


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
    class_weights: Literal["none", "enet", "median_frequency"] = "none"
    class_weight_power: Fraction = Field(
        default=1.0, description="class weights are raised to it; 0.5 makes rare classes spread less over common ones"
    )
    aux_weight: Annotated[float, Field(ge=0)] = 0.4
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
        return self

    @classmethod
    def default(cls, key: str) -> Any:
        return cls.model_fields[key].default


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
    train: dict[str, Any] = Field(default_factory=dict, description="overrides of keys of `train`")


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
        labels = [a.label or a.arch for a in self.architectures]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"architectures with the same label {twice}: give each a different `label`")
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
        recipe = validate(cls, document, origin)
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
        labels = [run.label for run in self.run_configs()]
        if label not in labels:
            raise InputError(
                f"recipe {self.name!r}: no architecture is labelled {label!r}; there are: {', '.join(labels)}"
            )
        return labels.index(label)

    def run_config(self, index: int, *, origin: str = "recipe") -> RunConfig:
        """The training of architecture `index`, its overrides applied. Raises InputError on an unknown override."""
        architecture = self.architectures[index]
        merged = _deep_merge(self.train.model_dump(mode="json"), architecture.train)
        train = validate(TrainConfig, merged, origin, below=f"architectures.{index}.train.")
        return RunConfig(
            experiment=self.name,
            task=self.task,
            arch=architecture.arch,
            label=architecture.label or architecture.arch,
            options=architecture.options,
            pretrained=architecture.pretrained,
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
    train: TrainConfig

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain data: two runs with the same identity are the same training.

        `train` is without the keys that have no effect on it, its `augment` without the options that are off, and
        `pretrained` says which weights, not where they lie.
        """
        document = self.model_dump(mode="json", exclude={"pretrained_id": True, "train": set(WITHOUT_EFFECT)})
        document["train"]["augment"] = self.train.augment.identity
        document["train"]["inference"] = self.train.inference.identity
        return {**document, "pretrained": self.pretrained_id or self.pretrained}

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
