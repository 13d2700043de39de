"""Small nights of retraining to tell stories with: a recipe of seconds, a home of one's own, and what a night left."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from segpipe import promotion, storage
from segpipe.config import Recipe
from segpipe.stages import evaluate as evaluate_stage
from segpipe.stages import layout, parts, smoke
from segpipe.stages import train as train_stage
from segpipe.stages.retrain import RetrainResult, retrain
from segpipe.train import counting
from tests.fixtures.same_process import answers_here
from tests.fixtures.small import OPTIONS

ARCHITECTURES = [{"arch": name, "options": options} for name, options in OPTIONS.items()]
SCENES: dict[str, Any] = {
    "name": "toy",
    "description": "Two small models on a few made-up streets.",
    "dataset": {
        "name": "streets",
        "format": "scenes",
        "options": {"train": 8, "val": 2, "test": 3, "height": 32, "width": 40},
    },
    "architectures": ARCHITECTURES,
    "train": {"epochs": 1, "batch_size": 4, "augment": {"crop": [32, 32]}},
    "evaluate": {"pictures": 2},
    "rehearsal": {"seconds": 0},
}
TRIED = "rehearsal.seconds=60"  # the default: each training is tried before it is begun


def recipe(*overrides: str, document: dict[str, Any] = SCENES) -> Recipe:
    return Recipe.parse(document, origin="toy.yaml", overrides=overrides)


@contextmanager
def surroundings(
    home: Path, *, mlflow_uri: str | None = None, fresh_process: bool = False
) -> Iterator[pytest.MonkeyPatch]:
    """A home, one core, maybe an MLflow of another address, and a smoke prediction in this process or a fresh one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGPIPE_HOME", str(home))
        patch.setattr(os, "sched_getaffinity", lambda _: {0})
        if not fresh_process:
            patch.setattr(smoke, "_fresh_answers", answers_here)
        if mlflow_uri:
            patch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
        else:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield patch


def forbid_work(patch: pytest.MonkeyPatch) -> None:
    """Makes it an error to read an image, to train or to evaluate."""
    patch.setattr(parts, "write_part", lambda part: pytest.fail("an image was read"))
    for way in (train_stage, counting):
        patch.setattr(way, "fit", lambda job, runtime: pytest.fail("a model was trained"))
    patch.setattr(evaluate_stage, "evaluate_share", lambda share: pytest.fail("a model was evaluated"))


@dataclass(frozen=True, kw_only=True)
class Told:
    """One night as it ended: what was returned, and how many records lay in the home then."""

    result: RetrainResult
    decisions: int
    nights: int
    steps: tuple[str, ...] = ()


def tell(recipe: Recipe) -> Told:
    steps: list[str] = []
    result = retrain(recipe, runtime="local", on_step=steps.append)
    return Told(
        result=result,
        decisions=len(promotion.history(layout.ledger_uri(recipe.name))),
        nights=len(storage.records(layout.nights_uri(recipe.name))),
        steps=tuple(steps),
    )


def runs_of(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """The runs of an experiment by name."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs), "no run is there twice"
    return {run.info.run_name: run for run in runs}


def columns_of(client: MlflowClient, experiment: str) -> set[str]:
    """What a table of all runs of an experiment has columns for."""
    return {name for run in runs_of(client, experiment).values() for name in run.data.metrics}
