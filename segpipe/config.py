"""A recipe: the one YAML file that tells a whole experiment, checked before anything is asked for.

Strict: an unknown key, a wrong type or a value out of range is an `InputError` that names the key's path. What a run is
identified by is `digest` of the parts that change its result. `Recipe.load` is the only reader of recipe files.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segpipe.errors import InputError
from segpipe.types import Task

M = TypeVar("M", bound=BaseModel)

MAX_RECIPE_BYTES = 1_000_000
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Strict(BaseModel):
    """Unknown keys are refused, values are not coerced (except int to float), instances are immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DatasetConfig(Strict):
    """What `retrain` ingests before training: a source format, where its files are, and the dataset's name."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="dataset name, part of its URI")
    format: str = Field(description="a source of `segpipe list sources`")
    root: str = Field(default="", description="folder or URI of the source files; $VARIABLES are expanded")
    options: dict[str, str | int | float | bool] = Field(default_factory=dict, description="options of the source")
    max_quarantine: Fraction = Field(default=0.01, description="refuse the version above this share of bad samples")


class AugmentConfig(Strict):
    """Random scale, crop, flip and colour; a fixed function of (seed, epoch, sample id)."""

    crop: tuple[Positive, Positive] = Field(description="height, width of the training crop in pixels")
    scale: tuple[float, float] = Field(default=(0.5, 2.0), description="random scale around input_scale, log-uniform")
    flip: Fraction = 0.5
    colour: Fraction = Field(default=0.4, description="strength of brightness, contrast and saturation jitter")

    @model_validator(mode="after")
    def scale_is_a_range(self) -> Self:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale must be 0 < low <= high, got {low}, {high}")
        return self


class TrainConfig(Strict):
    """One training run. Every key may be overridden per architecture."""

    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Positive
    batch_size: Positive = Field(description="images in one optimiser step's micro-batch, over all workers")
    accumulate: Positive = Field(default=1, description="micro-batches summed before one optimiser step")
    augment: AugmentConfig
    input_scale: Annotated[float, Field(gt=0, le=4)] = Field(
        default=1.0, description="images enter the model resized by this factor, in training and in prediction"
    )
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
    aux_weight: Annotated[float, Field(ge=0)] = 0.4
    evaluate_every: Positive = Field(default=1, description="epochs between evaluations on the validation split")
    patience: Positive | None = Field(default=None, description="evaluations without a better value before stopping")
    checkpoint_every: Positive | None = Field(default=None, description="optimiser steps between checkpoints")
    train_split: str = "train"
    validation_split: str = "val"
    loader_threads: Positive = 2


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
    task: Literal["semantic"] = "semantic"
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
        return cls.parse(_read_yaml(Path(path)), origin=str(path), overrides=overrides)

    @classmethod
    def parse(cls, document: Any, *, origin: str, overrides: tuple[str, ...] = ()) -> Recipe:
        """Checks a recipe given as plain data; `origin` names it in errors."""
        if not isinstance(document, dict):
            raise InputError(f"{origin}: a recipe is a mapping of keys to values, found {type(document).__name__}")
        for override in overrides:
            _apply(document, override)
        recipe = validate(cls, document, origin)
        for index in range(len(recipe.architectures)):
            recipe.run_config(index, origin=origin)
        return recipe

    def to_yaml(self) -> str:
        """The recipe with every default written out, as YAML that `load` takes."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def run_config(self, index: int, *, origin: str = "recipe") -> RunConfig:
        """The training of architecture `index`, its overrides applied. Raises InputError on an unknown override."""
        architecture = self.architectures[index]
        merged = _deep_merge(self.train.model_dump(mode="json"), architecture.train)
        train = validate(TrainConfig, merged, f"{origin}: architectures.{index}.train")
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
    """One training run, complete: what `train` needs besides a dataset. Its digest is part of the run's path."""

    experiment: str
    task: Literal["semantic"]
    arch: str
    label: str
    options: dict[str, Any]
    pretrained: str | None
    train: TrainConfig

    @property
    def digest(self) -> str:
        return digest(self)

    @property
    def task_kind(self) -> Task:
        return Task(self.task)


def digest(config: BaseModel) -> str:
    """SHA-256 of the canonical JSON of a config: sorted keys, no spaces."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def expand_root(root: str) -> str:
    """Expands `$VARIABLES` and `~` in a source root. Raises InputError when a variable is not set."""
    expanded = os.path.expanduser(os.path.expandvars(root))
    if "$" in expanded:
        raise InputError(f"dataset.root: {root!r} names an environment variable that is not set; set it and run again")
    return expanded


def validate(model: type[M], document: Any, origin: str) -> M:
    """A config from plain data. Raises InputError with every fault at once, its path and value; `origin` names it."""
    try:
        # JSON mode: YAML lists become tuples and strings enums, while strictness stays for everything else.
        return model.model_validate_json(json.dumps(document, allow_nan=False))
    except (ValidationError, TypeError, ValueError) as error:
        raise InputError(_explain(error, model, origin)) from None


def _explain(error: Exception, model: type[BaseModel], origin: str) -> str:
    if not isinstance(error, ValidationError):
        return f"{origin}: {error}"
    lines = [f"{origin}: {error.error_count()} fault(s) in the recipe"]
    for fault in error.errors(include_url=False):
        path = ".".join(str(part) for part in fault["loc"]) or "(top level)"
        if fault["type"] == "extra_forbidden":
            known = ", ".join(_keys_at(model, fault["loc"][:-1]))
            lines.append(f"  {path}: unknown key; expected one of: {known}")
        elif fault["type"] == "missing":
            lines.append(f"  {path}: missing; this key is required")
        else:
            lines.append(f"  {path}: {fault['msg']} (found {fault['input']!r})")
    return "\n".join(lines)


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = (annotation, *getattr(annotation, "__args__", ()))
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return sorted(model.model_fields)


def _deep_merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _deep_merge(merged[key], value) if both else value
    return merged


def _apply(document: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    if not sign or not path:
        raise InputError(f"--set {override!r}: expected KEY=VALUE, for example train.epochs=3")
    *parents, last = path.split(".")
    node: Any = document
    for part in parents:
        node = _child(node, part, override)
    value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _child(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, override)]
    if not isinstance(node, dict):
        raise InputError(f"--set {override!r}: {part!r} lies below a plain value; give the path of a key")
    return node.setdefault(part, {})


def _index(node: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise InputError(f"--set {override!r}: expected an index below {len(node)}, found {part!r}")
    return int(part)


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice (plain YAML silently keeps the last)."""


def _no_duplicates(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"line {node.start_mark.line + 1}: the key {key!r} is given twice; keep one")
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_duplicates)


def _read_yaml(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > MAX_RECIPE_BYTES:
            raise InputError(f"{path}: {size} bytes; a recipe has at most {MAX_RECIPE_BYTES}")
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe; the ones that ship are in flows/recipes/") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
