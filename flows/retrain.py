"""The main job: ingest, train every architecture, evaluate, choose the champion. Run by the nightly deployment."""

from __future__ import annotations

import time

from prefect import flow, get_run_logger
from prefect.futures import wait
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import show_retrain
from flows.hooks import announce_failure
from flows.ingest import ingest
from flows.promote import choose_champion
from flows.train import ensure_limit, train_architecture
from segpipe.config import Recipe
from segpipe.stages import retrain as night_stage
from segpipe.stages.results import RetrainResult


def run_name() -> str:
    """`retrain camvid`, after the recipe's file."""
    recipe = str(flow_run.parameters.get("recipe", ""))
    return f"retrain {recipe.rsplit('/', 1)[-1].removesuffix('.yaml')}"


@flow(
    flow_run_name=run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=32),  # type: ignore[arg-type]
    persist_result=False,
    on_failure=[announce_failure],
    on_crashed=[announce_failure],
    on_cancellation=[announce_failure],
)
def retrain(recipe: str = "flows/recipes/scenes.yaml", overrides: list[str] | None = None) -> RetrainResult:
    """Retrains everything a recipe names and lets the gate decide who is champion.

    An architecture that fails does not stop the others: the best of the rest is judged, and the run's page says who
    failed and why. With nothing changed since the last night, nothing is done.
    """
    started, log = time.perf_counter(), get_run_logger()
    found = Recipe.load(recipe, tuple(overrides or ()))
    night_stage.check(found)
    night_stage.warm_up()
    ensure_limit()
    night = night_stage.open_night(found, ingest(found.dataset))
    attempts = {
        run.label: train_architecture.submit(found, index, run.label, night)
        for index, run in enumerate(found.run_configs())
    }
    wait(list(attempts.values()))
    outcomes = {label: attempt.result(raise_on_failure=False) for label, attempt in attempts.items()}
    candidates, failures = night_stage.sort_outcomes(outcomes)
    verdict = choose_champion(found, night, candidates, failures)
    result = night_stage.conclude(found, night, candidates, verdict, failures, seconds=time.perf_counter() - started)
    show_retrain(result, night_stage.best_picture(found, candidates))
    log.info("nothing to do: every result was there already" if result.did_nothing else verdict.reason)
    return result
