"""One architecture of a recipe: trained on Ray, evaluated, shown in MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect import allow_failure, flow, get_run_logger, task
from prefect.futures import PrefectFuture, wait

from flows.hooks import ANNOUNCED
from flows.ingest import ingest
from flows.limits import slot_for_training
from flows.naming import run_name
from flows.retries import RETRIED
from segpipe.cli.progress import training_lines
from segpipe.config import Recipe
from segpipe.stages import mirror, opening, preflight
from segpipe.stages import retrain as night_stage
from segpipe.stages.halving import search as halving
from segpipe.stages.halving.ladder import Climb, Rung
from segpipe.stages.rehearsal import RehearsedNight
from segpipe.types import EvalReport, TrainPause, TrainResult


@task(task_run_name="train {label}", **RETRIED)
def train_architecture(recipe: Recipe, index: int, label: str, night: opening.OpenNight) -> EvalReport:
    """Trains and evaluates; a retry continues from the newest valid checkpoint."""
    log = get_run_logger()
    log.info(f"{label}: starting on Ray, or waiting there for its turn")
    told = training_lines(log.info, label)
    with slot_for_training():
        return night_stage.train_and_evaluate(recipe, index, night, on_progress=told)


def tell(found: RehearsedNight | None, warn: Callable[[str], None], inform: Callable[[str], None]) -> None:
    """What the trials said, in the log of the flow's run."""
    if found:
        for line in found.told:
            warn(line)
        inform(found.cost)


@task(task_run_name="train {climb.label} to step {climb.until}", **RETRIED)
def train_part(search: halving.Search, climb: Climb, night: opening.OpenNight) -> TrainResult | TrainPause:
    """One architecture's part of a rung, paused at its end; a retry continues from the newest valid checkpoint."""
    told = training_lines(get_run_logger().info, climb.label)
    with slot_for_training():
        return halving.train_part(search, climb, data=night.dataset.uri, parent=night.parent, on_progress=told)


def search_within_budget(recipe: Recipe, night: opening.OpenNight) -> opening.OpenNight:
    """The rungs of a recipe's budget, one after the other, each training as a task of its own."""

    def train_rung(search: halving.Search, rung: Rung) -> dict[str, halving.Outcome]:
        parts = {climb.label: train_part.submit(search, climb, night, return_state=False) for climb in rung.waiting}
        wait(list(parts.values()))
        return {label: part.result(raise_on_failure=False) for label, part in parts.items()}

    return opening.within_budget(recipe, night, train_rung)


@task(task_run_name="try the trainings of {recipe.name}", **RETRIED)
def try_trainings(recipe: Recipe, night: opening.OpenNight) -> opening.OpenNight:
    """Tries each training for some seconds: one that cannot succeed is not begun."""
    night, found = opening.rehearsed(recipe, night)
    tell(found, get_run_logger().warning, get_run_logger().info)
    return night


def submit_all(recipe: Recipe, night: opening.OpenNight) -> dict[str, PrefectFuture[EvalReport]]:
    """Every architecture that is to stand on the board as a task of its own; one that needs others waits until they
    have ended, somehow."""
    submitted: dict[str, PrefectFuture[EvalReport]] = {}
    for index, run in night.contenders.items():
        awaited = [allow_failure(submitted[label]) for label in run.awaits]
        submitted[run.label] = train_architecture.submit(
            recipe, index, run.label, night, return_state=False, wait_for=awaited
        )
    return submitted


@contextmanager
def closing_parent(recipe: Recipe, night: opening.OpenNight) -> Iterator[None]:
    """Ends the night's run in MLflow, which else a verdict does: a single architecture gets none."""
    try:
        yield
    except BaseException:  # a cancelled run as well
        mirror.close_failed(recipe.name, parent=night.parent)
        raise
    mirror.close_finished(recipe.name, parent=night.parent)


@flow(flow_run_name=run_name, **ANNOUNCED)
def train(recipe: str, label: str, overrides: tuple[str, ...] = ()) -> EvalReport:
    """Trains and evaluates one architecture of a recipe on the newest state of its dataset.

    Args:
        recipe: A recipe file, such as flows/recipes/scenes.yaml; relative to the worker's folder.
        label: Which architecture of the recipe: its `label`, or its `arch` where it has none.
        overrides: Changes of the recipe, each KEY.PATH=VALUE, such as train.epochs=3.
    """
    found = Recipe.load(recipe, overrides)
    index = found.index_of(label)
    preflight.check(found)
    night = opening.open_night(found, ingest(found.dataset))
    with closing_parent(found, night):
        return train_architecture(found, index, label, night)
