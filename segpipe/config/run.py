"""One training run, out of a recipe: what `train` needs besides a dataset, and the digest that it is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from segpipe.config.strict import Strict
from segpipe.config.train import TrainConfig
from segpipe.types import Task

TaskName = Literal["semantic", "instance", "detection", "panoptic", "keypoints"]  # of `Task`, those that can be trained
ENSEMBLE = "ensemble"  # the `arch` of a run that is one


class RunConfig(Strict):
    """One run, complete: what `train` needs besides a dataset. Its digest is part of the run's path.

    A run is a model: weights, and how these look at images. The weights are those of `training`, which two runs share
    that differ in what comes after it: trying another CRF trains nothing.

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
    trained_as: RunConfig | None = Field(
        default=None, description="the run of another entry whose training is this one's, too"
    )
    train: TrainConfig
    common: tuple[str, ...] = Field(
        default=(),
        description="keys of `train` that the recipe says for all its entries, so that they may be meant for others",
    )
    members: tuple[RunConfig, ...] = Field(
        default=(),
        description="of an ensemble: what it is the mean of. It has no training of its own, and of `train` "
        "only what decides how it looks at images has a meaning",
    )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain data: two runs with the same identity are the same model.

        All of `train` but what has no effect (`config/train.py`), and all of `train.inference`, that of a CRF too.
        `pretrained` says which weights, not where they lie, and `start_from` which training, to its first weights.
        """
        apart = {"pretrained_id", "start_from", "trained_as", "train", "common", "members"}
        document = self.model_dump(mode="json", exclude=apart)
        if self.members:
            return {**document, "members": [member.identity for member in self.members]}
        document |= {"train": self.train.identity, "pretrained": self.pretrained_id or self.pretrained}
        return document if self.start_from is None else {**document, "start_from": self.start_from.identity}

    @property
    def training(self) -> RunConfig:
        """The run whose weights this one's are: itself, or the same without what comes after training.

        Of an ensemble, that of the members' trainings. Its `trained_as` is always None.
        """
        run = self.trained_as or self
        inference = run.train.inference.in_training
        if not run.members and run.train.inference == inference:
            return run
        return run.model_copy(
            update={
                "train": run.train.model_copy(update={"inference": inference}),
                "members": tuple(member.training for member in run.members),
            }
        )

    @property
    def awaits(self) -> tuple[str, ...]:
        """Labels of the entries that must have ended before this one begins."""
        return tuple(run.label for run in (self.start_from, self.trained_as, *self.members) if run is not None)

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
