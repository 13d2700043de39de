"""One architecture of a recipe: trained on Ray, evaluated, shown in MLflow."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.hooks import announce_failure
from flows.limits import one_training
from flows.progress import in_log
from segpipe.config import Recipe
from segpipe.errors import InputError, NonFiniteError, SegpipeError, StorageFullError
from segpipe.stages import preflight
from segpipe.stages import retrain as night_stage
from segpipe.stages.ingest import ingest
from segpipe.types import EvalReport


def may_succeed_when_retried(task: Any, task_run: Any, state: State[Any]) -> bool:
    """A lost cluster or store may come back. A wrong recipe, a NaN, a full disk and a bug come back on every try."""
    error = state.result(raise_on_failure=False)
    hopeless = isinstance(error, InputError | NonFiniteError | StorageFullError)
    return isinstance(error, SegpipeError) and not hopeless


@task(
    task_run_name="train {label}",
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_condition_fn=may_succeed_when_retried,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def train_architecture(recipe: Recipe, index: int, label: str, night: night_stage.OpenNight) -> EvalReport:
    """Trains and evaluates; a retry continues from the newest valid checkpoint."""
    told = in_log(get_run_logger(), label)
    with one_training():
        return night_stage.train_and_evaluate(recipe, index, night, on_progress=told)


@flow(
    flow_run_name="train-{label}",
    persist_result=False,
    on_failure=[announce_failure],
    on_crashed=[announce_failure],
    on_cancellation=[announce_failure],
)
def train(recipe: str, label: str, overrides: tuple[str, ...] = ()) -> EvalReport:
    """Trains and evaluates one architecture of a recipe on the newest state of its dataset.

    Args:
        recipe: A recipe file, such as flows/recipes/scenes.yaml; relative to the worker's folder.
        label: Which architecture of the recipe: its `label`, or its `arch` where it has none.
        overrides: Changes of the recipe, each KEY.PATH=VALUE, such as train.epochs=3.
    """
    found = Recipe.load(recipe, overrides)
    preflight.check(found)
    night = night_stage.open_night(found, ingest(found.dataset))
    return train_architecture(found, found.index_of(label), label, night)
