"""The models of the last night, judged again: after a changed floor or margin, or a night that ended too early."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.hooks import announce_failure
from segpipe.config import Recipe
from segpipe.stages import retrain as night_stage
from segpipe.stages.ingest import ingest
from segpipe.stages.nights import last_reports
from segpipe.stages.results import Verdict
from segpipe.types import EvalReport


@task(task_run_name="choose the champion of {recipe.name}", retries=1, cache_policy=NO_CACHE, persist_result=False)
def choose_champion(
    recipe: Recipe, night: night_stage.OpenNight, candidates: list[EvalReport], failures: dict[str, str]
) -> Verdict:
    """Puts the best candidate against the champion that stands; the ledger remembers the verdict."""
    return night_stage.choose(recipe, night, candidates, failures)


@flow(
    persist_result=False,
    on_failure=[announce_failure],
    on_crashed=[announce_failure],
    on_cancellation=[announce_failure],
)
def promote(recipe: str, overrides: tuple[str, ...] = ()) -> Verdict:
    """Judges the models that the last retrain of a recipe evaluated.

    Args:
        recipe: The recipe file of that retrain; relative to the worker's folder.
        overrides: Changes of the recipe, each KEY.PATH=VALUE, such as promote.margin=0.01.
    """
    found = Recipe.load(recipe, overrides)
    night = night_stage.open_night(found, ingest(found.dataset))
    return choose_champion(found, night, last_reports(found.name), {})
