"""One architecture of a recipe: trained on Ray, evaluated, shown in MLflow."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency

from flows.hooks import announce_failure
from segpipe.config import Recipe
from segpipe.errors import InputError, NonFiniteError
from segpipe.stages import retrain as night_stage
from segpipe.stages.ingest import ingest
from segpipe.types import EvalReport

LIMIT = "segpipe-training"
MOST_TRAININGS_AT_ONCE = 16


def may_succeed_when_retried(task: Any, task_run: Any, state: State[Any]) -> bool:
    """A wrong recipe and a NaN come back on every try; a lost driver or cluster may not."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, InputError | NonFiniteError)


def ensure_limit() -> None:
    """Makes the named limit around training exist: Prefect only warns where it does not. A value that is set stays."""
    with get_client(sync_client=True) as client:
        known = {limit.name for limit in client.read_global_concurrency_limits()}
        if LIMIT not in known:
            client.upsert_global_concurrency_limit_by_name(LIMIT, MOST_TRAININGS_AT_ONCE)


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
    with concurrency(LIMIT, strict=False):
        return night_stage.train_and_evaluate(recipe, index, night)


@flow(
    flow_run_name="train-{label}",
    persist_result=False,
    on_failure=[announce_failure],
    on_crashed=[announce_failure],
    on_cancellation=[announce_failure],
)
def train(recipe: str, label: str, overrides: list[str] | None = None) -> EvalReport:
    """Trains and evaluates the architecture `label` of a recipe on the newest state of its dataset."""
    found = Recipe.load(recipe, tuple(overrides or ()))
    night_stage.check(found)
    ensure_limit()
    night = night_stage.open_night(found, ingest(found.dataset))
    return train_architecture(found, found.index_of(label), label, night)
