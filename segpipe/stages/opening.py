"""A night from its dataset version to the trainings that it carries to their ends: splits and MLflow's run, what each
training told in its trial, and who was left by the search within a budget. Called by `retrain.py` and the flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from segpipe import tracking
from segpipe.config import Recipe, RunConfig
from segpipe.stages import mirror, preflight, rehearsal
from segpipe.stages.halving import search as halving
from segpipe.stages.halving.report import BudgetReport
from segpipe.stages.identity import resolve
from segpipe.stages.ingest import IngestResult, ingest
from segpipe.stages.rehearsal import RehearsedNight


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenNight:
    """What the architectures of one night share: the dataset version, the runs of all of them, resolved and in the
    recipe's order, the MLflow run, and whether all is done; `faults` of those that were tried and cannot be trained,
    and, within a budget, the `search` that says who is trained to the end."""

    dataset: IngestResult
    runs: tuple[RunConfig, ...]
    parent: tracking.RunRef | None
    nothing_to_do: bool
    faults: Mapping[str, str] = field(default_factory=dict)
    search: halving.Search | None = None

    @property
    def contenders(self) -> dict[int, RunConfig]:
        """The runs that are to stand on the board, by their place in the recipe: all, but those that were dropped."""
        gone = self.search.left_out if self.search else {}
        return {index: run for index, run in enumerate(self.runs) if run.label not in gone}

    @property
    def budget(self) -> BudgetReport | None:
        """What the search within the budget came to, as it stands; None without one."""
        return halving.report(self.search) if self.search else None

    @property
    def is_tried(self) -> bool:
        """Whether no training need be tried any more: all is done, or the search within a budget has begun."""
        return self.nothing_to_do or (self.search is not None and bool(self.search.rungs))


def open_night(recipe: Recipe, dataset: IngestResult) -> OpenNight:
    """Sets MLflow's champion right, opens the night's run there, and sees whether anything is left to do.

    Raises InputError when the dataset lacks a split that the recipe trains, validates or evaluates on, and CorruptError
    where a record of the search within the budget is damaged.
    """
    preflight.check_splits(recipe, dataset)
    mirror.reconcile(recipe.name)
    runs = tuple(map(resolve, recipe.run_configs()))
    search = halving.opened(recipe, runs, dataset.version)  # first: of a damaged record no run stays open in MLflow
    night = OpenNight(
        dataset=dataset,
        runs=runs,
        parent=mirror.open_parent(recipe, runs, data=dataset.uri, version=dataset.version),
        nothing_to_do=False,
        search=search,
    )
    if night.search and not night.search.is_decided:
        return night
    failed = night.search.failed if night.search else {}
    awaited = [run for run in night.contenders.values() if run.label not in failed]
    return replace(night, nothing_to_do=preflight.is_done(recipe, awaited, dataset))


def rehearsed(
    recipe: Recipe, night: OpenNight, *, runtime: Literal["ray", "local"] = "ray"
) -> tuple[OpenNight, RehearsedNight | None]:
    """The night with the faults of its trainings, each of which was tried for some seconds, and what else these told;
    as it is where nothing is left to do, the search within a budget has begun, or `rehearsal.seconds` is 0.

    A training with a fault is then not begun: `train_and_evaluate` raises it. Raises UnreachableError without Ray, and
    InputError where the recipe's budget is too little.
    """
    if night.is_tried or not recipe.rehearsal.seconds:
        return night, None
    try:
        found = rehearsal.rehearse_night(recipe, night.runs, night.dataset, runtime=runtime)
        search = halving.begun(night.search, found) if night.search else None
    except Exception:
        mirror.close_failed(recipe.name, parent=night.parent)
        raise
    return replace(night, faults=found.faults, search=search), found


def within_budget(recipe: Recipe, night: OpenNight, train_rung: halving.TrainRung) -> OpenNight:
    """The night once its search within the budget has left those that are trained to the end; as it is without one.

    `train_rung` brings the trainings of a rung to their steps by `halving.train_part`, as many at once as have room.
    Raises what is no fault of an architecture, such as a cluster that was lost: the same again goes on there.
    """
    if night.search is None or night.nothing_to_do:
        return night
    try:
        night = replace(night, search=halving.climbed(night.search, train_rung))
    except Exception:
        mirror.close_failed(recipe.name, parent=night.parent)
        raise
    for run in night.search.dropped if night.search else ():
        mirror.show_dropped(run, parent=night.parent, version=night.dataset.version)
    return night


def rehearse_recipe(recipe: Recipe, *, runtime: Literal["ray", "local"] = "ray") -> RehearsedNight:
    """The same without a night, and whatever the recipe says of `rehearsal.seconds`: of 0, a minute each.

    Ingests first, as a retrain would: without changes that is free. After `preflight.check`.
    """
    dataset = ingest(recipe.dataset)
    preflight.check_splits(recipe, dataset)
    runs = tuple(map(resolve, recipe.run_configs()))
    return rehearsal.rehearse_night(recipe, runs, dataset, runtime=runtime, seconds=recipe.rehearsal.seconds or 60)
