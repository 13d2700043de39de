"""A small night within a budget to tell stories with: four trainings become two and one.

What a step takes is made up, so that the rungs are the same on every machine.
"""

import dataclasses
from typing import Any

import pytest

from segpipe.config import Recipe
from segpipe.stages import rehearsal
from segpipe.stages.halving import search as halving
from segpipe.stages.rehearsal import Rehearsed, RehearsedNight
from segpipe.types import TrainPause, TrainResult
from tests.fixtures.small import OPTIONS
from tests.stages import toy_night

STEPS = 8  # of each training: two in an epoch
SCENES: dict[str, Any] = {
    **toy_night.SCENES,
    "name": "halved",
    "architectures": [
        *({"arch": "unet", "label": f"rate{n}", "options": OPTIONS["unet"], "train": {"learning_rate": rate}}
          for n, rate in enumerate((1e-5, 1e-2, 1e-3, 1e-4))),
        {"label": "both", "ensemble": ["rate0", "rate1"]},
    ],
    "train": {**toy_night.SCENES["train"], "epochs": 4, "evaluate_every": 4},
    "evaluate": {"pictures": 0},
    "rehearsal": {"seconds": 1.0},
    "budget": {"hours": 18.0},
}  # fmt: skip


def recipe() -> Recipe:
    return toy_night.recipe(document=SCENES)


def patched(patch: pytest.MonkeyPatch) -> None:
    """An hour a step, in the trial and in training."""

    def rehearse_night(recipe: Any, runs: Any, *_: Any, **__: Any) -> RehearsedNight:
        each = [
            Rehearsed(
                label=run.label, steps=STEPS, training_hours=float(STEPS), aside="" if run.arch == "unet" else "-"
            )
            for run in runs
        ]
        return RehearsedNight(architectures=tuple(each), hours=0, core_hours=0)

    def steady(result: TrainResult | TrainPause) -> TrainResult | TrainPause:
        if isinstance(result, TrainResult):
            return dataclasses.replace(result, train_seconds=3600.0 * result.steps)
        return dataclasses.replace(result, train_seconds=3600.0 * result.step, scoring_seconds=0.0)

    measured = halving.train_part, halving._finished
    patch.setattr(rehearsal, "rehearse_night", rehearse_night)
    patch.setattr(halving, "train_part", lambda *args, **kwargs: steady(measured[0](*args, **kwargs)))
    patch.setattr(halving, "_finished", lambda *args: (found := measured[1](*args)) and steady(found))
