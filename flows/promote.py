"""The models of the last night, judged again: after a changed floor or margin."""

from __future__ import annotations

from prefect import flow, task
from prefect.client.schemas.objects import State

from flows import endings
from flows.artifacts import show_verdict
from flows.hooks import ANNOUNCED
from flows.naming import run_name
from flows.retries import RETRIED
from segpipe.config import Recipe
from segpipe.stages import opening
from segpipe.stages import promote as stage
from segpipe.stages import retrain as night_stage
from segpipe.stages.results import Verdict
from segpipe.types import EvalReport


@task(task_run_name="choose the champion of {recipe.name}", **RETRIED)
def choose_champion(
    recipe: Recipe, night: opening.OpenNight, candidates: list[EvalReport], failures: dict[str, str]
) -> Verdict:
    """Puts the best candidate of a night against the champion that stands; the ledger remembers the verdict."""
    return night_stage.choose(recipe, night, candidates, failures)


@task(task_run_name="judge the last night of {recipe.name} again", **RETRIED)
def judge_last_night(recipe: Recipe) -> Verdict:
    """The same for the models of the last night, on the dataset version of that night: nothing is ingested."""
    return stage.judge_again(recipe)


@flow(flow_run_name=run_name, **ANNOUNCED)
def promote(recipe: str, overrides: tuple[str, ...] = ()) -> Verdict | State[Verdict]:
    """Judges the models that the last retrain of a recipe evaluated. Ends as Failed when the challenger is refused.

    Args:
        recipe: The recipe file of that retrain; relative to the worker's folder.
        overrides: Changes of the recipe, each KEY.PATH=VALUE, such as promote.margin=0.01.
    """
    found = Recipe.load(recipe, overrides)
    verdict = judge_last_night(found)
    show_verdict(found.name, verdict)
    return endings.of_verdict(verdict)
