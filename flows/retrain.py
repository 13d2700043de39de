"""The main job: ingest, train every architecture, evaluate, choose the champion. Run by the nightly deployment."""

from __future__ import annotations

import time

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows import endings
from flows.artifacts import show_dataset, show_failed_night, show_night
from flows.hooks import ANNOUNCED
from flows.ingest import ingest_dataset
from flows.naming import run_name
from flows.promote import choose_champion
from flows.train import search_within_budget, submit_all, try_trainings
from segpipe.config import Recipe
from segpipe.stages import opening, preflight
from segpipe.stages import retrain as night_stage
from segpipe.stages.results import RetrainResult

A_DAY = 24 * 60 * 60  # a run that hangs must not keep the next nights from working for longer than this (hooks.py)


def seconds_since(started: float) -> float:
    return time.perf_counter() - started


@flow(
    flow_run_name=run_name,
    timeout_seconds=A_DAY,
    task_runner=ThreadPoolTaskRunner(max_workers=32),  # type: ignore[arg-type]
    **ANNOUNCED,
)
def retrain(
    recipe: str = "flows/recipes/scenes.yaml", overrides: tuple[str, ...] = ()
) -> RetrainResult | State[RetrainResult]:
    """Retrains everything a recipe names and lets the gate decide who is champion.

    An architecture that fails does not stop the others: the best of the rest is judged, and the run ends as Failed
    with the reason on its page; so does one whose challenger is refused. With nothing changed since the last night,
    nothing is done. Within a budget only the better part of the architectures is trained to the end.

    Args:
        recipe: A recipe file, such as flows/recipes/scenes.yaml; relative to the worker's folder.
        overrides: Changes of the recipe, each KEY.PATH=VALUE, such as train.epochs=3.
    """
    started, log = time.perf_counter(), get_run_logger()
    found = Recipe.load(recipe, overrides)
    preflight.check(found)
    night_stage.warm_up()
    dataset = ingest_dataset(found.dataset)
    show_dataset(dataset)
    night = opening.open_night(found, dataset)
    night = try_trainings(found, night)
    night = search_within_budget(found, night)
    attempts = submit_all(found, night)
    wait(list(attempts.values()))
    outcomes = {label: attempt.result(raise_on_failure=False) for label, attempt in attempts.items()}
    candidates, failures = night_stage.sort_outcomes(outcomes)
    if len(failures) == len(attempts):
        show_failed_night(found.name, failures, night.budget)
    verdict = choose_champion(found, night, candidates, failures)
    result = night_stage.conclude(found, night, candidates, verdict, failures, seconds=seconds_since(started))
    show_night(result, night_stage.best_picture(found, candidates))
    log.info("nothing to do: every result was there already" if result.did_nothing else verdict.reason)
    return endings.of_night(result)
