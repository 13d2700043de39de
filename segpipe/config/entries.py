"""The parts of a recipe beside `train`: dataset, resources, evaluation, promotion, and an entry of `architectures`."""

from __future__ import annotations

import os
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from segpipe.config.run import ENSEMBLE
from segpipe.config.strict import Fraction, Positive, Strict
from segpipe.errors import InputError


class AdditionConfig(Strict):
    """More samples of the same classes from another source, such as what people have labelled since."""

    format: str = Field(description="a source of `segpipe list sources`")
    root: str = Field(default="", description="folder or URI of the source files; $VARIABLES are expanded")
    options: dict[str, str | int | float | bool] = Field(default_factory=dict, description="options of the source")
    split: str = Field(
        default="train",
        pattern=r"^[a-z0-9][a-z0-9_]{0,31}$",
        description="the split that all of its samples join; those that score must stay what they are",
    )


class DatasetConfig(Strict):
    """What `retrain` ingests before training: a source format, where its files are, and the dataset's name."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="dataset name, part of its URI and versions")
    format: str = Field(description="a source of `segpipe list sources`")
    root: str = Field(default="", description="folder or URI of the source files; $VARIABLES are expanded")
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="options of the source; `segpipe list sources FORMAT` explains them"
    )
    max_quarantine: Fraction = Field(default=0.01, description="refuse the version above this share of bad samples")
    additions: list[AdditionConfig] = Field(
        default_factory=list, description="further sources of the same classes, whose samples join a split"
    )


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


class RehearsalConfig(Strict):
    """Trying each training before a night is spent on it. Not part of a run's identity."""

    seconds: Annotated[float, Field(ge=0)] = Field(
        default=60.0, description="about how long each architecture is tried before the night; 0: not at all"
    )


class BudgetConfig(Strict):
    """What a retrain's trainings may take together: they are halved, rung by rung (`stages/halving/`). Not part of a
    run's identity."""

    hours: Annotated[float, Field(gt=0)] = Field(
        description="device-hours of all trainings: GPU-hours where gpus_per_worker is above 0, else CPU-hours"
    )
    keep: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="share of a rung's architectures that go on, rounded down; at least one does"
    )
    first_rung: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1,
        description="the least share of its own training that each architecture gets before any is dropped: ranked "
        "earlier, they are ranked by chance",
    )


class PromoteConfig(Strict):
    """When a challenger becomes champion."""

    floor: Fraction = Field(default=0.0, description="the first champion must reach this value of the primary metric")
    margin: Fraction = Field(
        default=0.0, description="the lower bound of how much better a challenger is must be above this"
    )
    max_fall: Fraction | None = Field(
        default=0.05, description="no class may score this much less than the champion's; null: any may"
    )
    max_falls: dict[str, Fraction] = Field(default_factory=dict, description="the same for single classes, by name")


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

    @property
    def others(self) -> tuple[str, ...]:
        """Labels of the entries above that it is made of, or starts from."""
        return self.ensemble or (() if self.start_from is None else (self.start_from,))


def expand_root(root: str) -> str:
    """Expands `$VARIABLES` and `~` in a source root and makes a local path absolute, as workers stand elsewhere.

    Raises InputError when a variable is not set.
    """
    expanded = os.path.expanduser(os.path.expandvars(root))
    if "$" in expanded:
        raise InputError(f"root {root!r} names an environment variable that is not set; set it and run again")
    return os.path.abspath(expanded) if expanded and "://" not in expanded else expanded
