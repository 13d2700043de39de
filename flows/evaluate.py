"""One model bundle, scored under a recipe's protocol."""

from __future__ import annotations

from prefect import flow, task

from flows.hooks import ANNOUNCED
from flows.ingest import ingest
from flows.naming import run_name
from flows.retries import RETRIED
from segpipe.config import Recipe
from segpipe.stages import evaluate as stage
from segpipe.stages import layout, preflight
from segpipe.types import EvalReport


@task(task_run_name="evaluate {label}", **RETRIED)
def evaluate_model(recipe: Recipe, model_uri: str, label: str, data: str, version: str) -> EvalReport:
    """Scores the model on the recipe's evaluation split; returns the report that is there when it was done before."""
    return stage.evaluate(
        model_uri,
        data=data,
        version=version,
        to=layout.evaluations_uri(recipe.name),
        config=recipe.evaluate,
        experiment=recipe.name,
        label=label,
    )


@flow(flow_run_name=run_name, **ANNOUNCED)
def evaluate(recipe: str, model_uri: str, label: str, overrides: tuple[str, ...] = ()) -> EvalReport:
    """Scores a model bundle on the newest state of a recipe's dataset.

    Args:
        recipe: A recipe file, which names dataset, split and protocol; relative to the worker's folder.
        model_uri: The model bundle: the `model` folder of a training run.
        label: What to call the model in the report.
        overrides: Changes of the recipe, each KEY.PATH=VALUE, such as evaluate.split=val.
    """
    found = Recipe.load(recipe, overrides)
    preflight.check_evaluation(found)
    dataset = ingest(found.dataset)
    return evaluate_model(found, model_uri, label, dataset.uri, dataset.version)
