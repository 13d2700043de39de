"""What a budget would come to, before a night: its rungs by the trainings that were tried. `segpipe check` tells it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from segpipe import models
from segpipe.config import Recipe, RunConfig
from segpipe.errors import InputError
from segpipe.stages.halving import ladder
from segpipe.stages.halving.ladder import Step
from segpipe.stages.numbers import counted
from segpipe.stages.rehearsal import Rehearsed, RehearsedNight

RESERVE = 0.1  # of what is left is not planned with while rungs are to come: a rate is measured, not promised


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetPlan:
    """What a recipe's budget would come to: how many stand in each rung; of measured trainings also its `steps`, and
    the device-hours of the `full_grid`: all of them from where they stand to their ends."""

    hours: float
    device: Literal["GPU", "CPU"]
    counts: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    full_grid: float | None = None


def planned(recipe: Recipe, tried: RehearsedNight | None = None) -> BudgetPlan | None:
    """What the recipe's budget would come to, laid out by the trainings that were `tried`; None without a budget.

    Raises InputError, with figures, where it does not hold a first rung for each and one training to its end.
    """
    if recipe.budget is None:
        return None
    budget, device = recipe.budget, device_of(recipe)
    if tried is None:
        number = sum(map(is_halved, recipe.run_configs()))
        return BudgetPlan(hours=budget.hours, device=device, counts=tuple(ladder.counts(number, budget.keep)))
    able = [each for each in entrants(tried) if each.steps and not each.faults]
    costs, starts = [whole_hours(recipe, each) for each in able], [each.share for each in able]
    counts = tuple(ladder.counts(len(able), budget.keep))
    if not able:
        return BudgetPlan(hours=budget.hours, device=device, counts=counts)
    whole = ladder.full_grid(costs, starts)
    steps = ladder.lay_out(
        costs, budget.keep, rest=(1 - RESERVE) * budget.hours, least=budget.first_rung, starts=starts
    )
    if steps is None:
        least = ladder.from_first(budget.first_rung, costs, budget.keep, starts)
        needed = ladder.total(least) / (1 - RESERVE)
        raise InputError(
            f"budget.hours {budget.hours:g}: too little for {counted(len(able), 'training')}: the whole grid takes "
            f"{whole:.3g} {device}-hours. A first rung of {least[0].share:.0%} of each takes "
            f"{least[0].hours:.3g}, and with one training to its end at most {ladder.total(least):.3g}; a tenth is "
            f"kept back. Raise it to {rounded_up(needed):g}, or lower budget.first_rung, or take architectures out"
        )
    return BudgetPlan(hours=budget.hours, device=device, counts=counts, steps=tuple(steps), full_grid=whole)


def is_halved(run: RunConfig) -> bool:
    return not run.members and run.trained_as is None and models.spec(run.arch).learns_by == "descent"


def entrants(tried: RehearsedNight) -> list[Rehearsed]:
    """Those that stand in the first rung: what is made of others, does not learn by descent or is trained already is
    aside. One with a fault, or that could not be tried, stands there as failed."""
    return [each for each in tried.architectures if not each.aside]


def whole_hours(recipe: Recipe, tried: Rehearsed) -> float:
    return devices(recipe) * (tried.training_hours or 0.0)


def device_of(recipe: Recipe) -> Literal["GPU", "CPU"]:
    """Whose hours the budget counts."""
    return "GPU" if recipe.resources.gpus_per_worker else "CPU"


def devices(recipe: Recipe) -> float:
    each = recipe.resources
    return each.workers * (each.gpus_per_worker or each.cpus_per_worker)


def rounded_up(hours: float) -> float:
    """To two digits, upwards: who takes the message's word must not meet it again."""
    digit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return float(f"{math.ceil(hours / digit) * digit:.2g}")
