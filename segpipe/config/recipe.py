"""A whole recipe: its reader, its checks across entries, and the training run that each entry is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from segpipe.config.entries import (
    ArchitectureConfig,
    BudgetConfig,
    DatasetConfig,
    EvaluateConfig,
    PromoteConfig,
    RehearsalConfig,
    ResourceConfig,
)
from segpipe.config.grid import Place, expand_grids, named
from segpipe.config.run import ENSEMBLE, RunConfig, TaskName, digest
from segpipe.config.strict import Strict, apply_override, dump_yaml, read_yaml, validate
from segpipe.config.train import TrainConfig
from segpipe.errors import InputError

# Keys of `train` in which members of an ensemble agree.
SHARED_BY_MEMBERS = ("sigmoid", "input_scale", "inference", "validation_split")


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
    rehearsal: RehearsalConfig = RehearsalConfig()
    budget: BudgetConfig | None = Field(
        default=None, description="device-hours for all trainings, of which the better part goes on; null: all do"
    )
    _places: tuple[Place, ...] = ()

    @model_validator(mode="after")
    def labels_are_unique(self) -> Self:
        places: dict[str, list[str]] = {}
        for index, entry in enumerate(self.architectures):
            places.setdefault(entry.name, []).append(f"architectures.{index}")
        twice = [f"{' and '.join(same)} are labelled {label!r}" for label, same in places.items() if len(same) > 1]
        if twice:
            raise ValueError(
                f"{'; '.join(twice)}: give each a different `label` (entries of a grid are called after their values, "
                "in a-z, 0-9, _ and -, up to 63 characters)"
            )
        return self

    @model_validator(mode="after")
    def others_stand_above(self) -> Self:
        for index, entry in enumerate(self.architectures):
            trained = [above.name for above in self.architectures[:index] if not above.ensemble]
            key = "ensemble" if entry.ensemble else "start_from"
            unknown = [label for label in entry.others if label not in trained]
            if unknown:
                raise ValueError(
                    f"architectures.{index}.{key}: no entry above that is trained is labelled "
                    f"{', '.join(unknown)}; there are: {', '.join(trained) or 'none'}"
                )
            if entry.ensemble and self.task != "semantic":
                raise ValueError(f"ensemble {entry.name!r}: of task {self.task} there is no mean; leave it out")
        return self

    @model_validator(mode="after")
    def budget_can_be_kept(self) -> Self:
        if self.budget is None:
            return self
        if not self.rehearsal.seconds:
            raise ValueError(
                "budget: its rungs are laid out by what a step costs, which the rehearsal measures, and "
                "rehearsal.seconds is 0: raise it, or leave the budget out"
            )
        for index, entry in enumerate(self.architectures):
            if entry.start_from is not None:
                raise ValueError(
                    f"architectures.{index}.start_from: it waits for the finished weights of {entry.start_from}, and "
                    "under a budget trainings are paused side by side; leave one of the two out"
                )
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
        expanded, places = expand_grids(document, origin=origin)
        try:
            recipe = validate(cls, expanded, origin)
        except InputError as error:
            raise InputError(named(str(error), places)) from None
        recipe._places = places
        try:
            recipe._run_configs(origin)
        except InputError as error:
            raise InputError(recipe.named(str(error))) from None
        return recipe

    def to_yaml(self) -> str:
        """The recipe with every default written out, as YAML that `load` takes."""
        return dump_yaml(self.model_dump(mode="json"))

    def named(self, text: str) -> str:
        """A message with every `architectures.N`, which counts what `grid` made, as the recipe's file has it."""
        return named(text, self._places)

    def run_configs(self) -> list[RunConfig]:
        """The training of every architecture, in the recipe's order, its overrides applied; of an ensemble with those
        of its members."""
        return self._run_configs("recipe")

    def run_config(self, index: int) -> RunConfig:
        """The training of architecture `index`, as `run_configs` has it."""
        return self.run_configs()[index]

    def index_of(self, label: str) -> int:
        """The place of the architecture with this label. Raises InputError with the labels there are."""
        labels = [entry.name for entry in self.architectures]
        if label not in labels:
            raise InputError(
                f"recipe {self.name!r}: no architecture is labelled {label!r}; there are: {', '.join(labels)}"
            )
        return labels.index(label)

    def _run_configs(self, origin: str) -> list[RunConfig]:
        """As `run_configs`. Raises InputError with every fault: unknown overrides, and members of an ensemble that see
        images in different ways."""
        runs: dict[str, RunConfig] = {}
        trainings: dict[str, RunConfig] = {}
        faults = []
        for index, entry in enumerate(self.architectures):
            if any(label not in runs for label in entry.others):
                continue  # its own fault is said already
            try:
                run = self._ensemble_config(entry, runs, origin) if entry.ensemble else self._own(index, runs, origin)
            except InputError as error:
                faults.append(str(error))
                continue
            if not run.members:
                # What decides weights, whatever it is called: the first that says the same is trained for all.
                twin = trainings.setdefault(digest({**run.training.identity, "label": ""}), run)
                run = run if twin is run else run.model_copy(update={"trained_as": twin})
            runs[run.label] = run
        if faults:
            raise InputError("\n".join(faults))
        return list(runs.values())

    def _own(self, index: int, above: Mapping[str, RunConfig], origin: str) -> RunConfig:
        """The run that an entry describes, which may be trained as another one is."""
        architecture = self.architectures[index]
        common = self.train.model_dump(mode="json")
        if "loss" in architecture.train:  # of another loss, not further terms of the common one
            del common["loss"]
        merged = _deep_merge(common, architecture.train)
        train = validate(TrainConfig, merged, origin, below=f"architectures.{index}.train.")
        return RunConfig(
            experiment=self.name,
            task=self.task,
            arch=architecture.arch,
            label=architecture.name,
            options=architecture.options,
            pretrained=architecture.pretrained,
            start_from=None if architecture.start_from is None else above[architecture.start_from].training,
            train=train,
            common=tuple(key for key in self.train.told if key not in architecture.train),
        )

    def _ensemble_config(
        self, architecture: ArchitectureConfig, above: Mapping[str, RunConfig], origin: str
    ) -> RunConfig:
        members = tuple(above[label] for label in architecture.ensemble)
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


def _deep_merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _deep_merge(merged[key], value) if both else value
    return merged
