"""The commands that work on a recipe or a model. Each is a door onto one stage: arguments in, its result out."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from segpipe.cli import views
from segpipe.cli.answering import answering, bars, steps
from segpipe.cli.parts import (
    CheckpointArgument,
    DataOption,
    JsonOption,
    RecipeArgument,
    Runtime,
    RuntimeOption,
    SetOption,
    VersionOption,
    chosen_runs,
)

ReportsOption = Annotated[
    str | None,
    typer.Option("--to", metavar="URI", help="Folder for reports. Default: $SEGPIPE_HOME/evaluations/EXPERIMENT."),
]


def check(
    recipe: RecipeArgument,
    deep: Annotated[
        bool, typer.Option("--deep", help="Ingest, and try each training for some seconds (rehearsal.seconds).")
    ] = False,
    overrides: SetOption = None,
    runtime: RuntimeOption = Runtime.RAY,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe before a night is spent on it.

    Reads the recipe, its architectures and their options, the source folder and
    the resources, and names every fault with the key that has it. What passes
    here does not fail for a typo at two in the morning. With --deep it also tries
    each training on one step's images, draws what the model sees, and tells how
    long the night would take and how a budget would be spent; exit status 1
    where a training has a fault or could not be tried.

    \b
    Examples:
      segpipe check flows/recipes/camvid.yaml
      segpipe check my.yaml --set train.epochs=3 --set resources.workers=2
      segpipe check my.yaml --deep --runtime local
    """
    with answering(as_json) as answer, steps(f"checking {recipe}"):
        from segpipe.config import Recipe

        found = Recipe.load(recipe, tuple(overrides or ()))
        from segpipe.stages import outlook, preflight  # after the recipe: a typo need not wait seconds for torch
        from segpipe.stages.halving import plan as budget_plan

        listed = preflight.check(found, runtime=runtime.value)
        runs = found.run_configs()
        expected = outlook.outlook(found, listed.samples)
        summary = {
            "recipe": str(recipe),
            "name": found.name,
            "dataset": found.dataset.name,
            "notes": listed.notes,
            "budget": budget_plan.planned(found),
            "architectures": [
                {
                    "label": run.label,
                    "arch": run.arch,
                    "options": run.options,
                    "steps": each.steps,
                    "notes": each.notes,
                    "aside": each.aside,
                }
                for run, each in zip(runs, expected, strict=True)
            ],
        }
        if not deep:
            answer(summary, views.checked)
            return
        from segpipe.stages import opening

        tried = opening.rehearse_recipe(found, runtime=runtime.value)
        told = {**summary, "budget": budget_plan.planned(found, tried), "deep": asdict(tried)}
        answer(told, views.checked_deeply, status=0 if tried.is_sound else 1)


def train(
    recipe: RecipeArgument,
    data: DataOption,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="URI", help="Folder for the runs. Default: $SEGPIPE_HOME/runs/NAME."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="LABEL", help="Train this one of the recipe. May be repeated.")
    ] = None,
    version: VersionOption = None,
    overrides: SetOption = None,
    runtime: RuntimeOption = Runtime.RAY,
    as_json: JsonOption = False,
) -> None:
    """Train the architectures of a recipe, one after the other.

    A run that is finished is not done again, one that was killed continues from
    its newest valid checkpoint. Prints what each run left behind; --json prints
    a list of these results.

    \b
    Examples:
      segpipe train my.yaml --data datasets/roofs
      segpipe train my.yaml --data datasets/roofs --only unet --runtime local --set train.epochs=1
    """
    with answering(as_json) as answer, bars() as shown:
        from segpipe.config import Recipe

        found = Recipe.load(recipe, tuple(overrides or ()))
        from segpipe.stages import catalogue, layout
        from segpipe.stages import train as stage

        pinned = catalogue.dataset_version(data, version)
        results = []
        for run in chosen_runs(found, only or ()):
            shown.note(f"training {run.label} on {pinned[:8]}")
            results.append(
                stage.train(
                    run,
                    data=data,
                    version=pinned,
                    to=to or layout.runs_uri(found.name),
                    resources=found.resources,
                    runtime=runtime.value,
                    on_progress=partial(shown.training, run.label),
                )
            )
        answer(results, views.trained)


def evaluate(
    checkpoint: CheckpointArgument,
    data: DataOption,
    split: Annotated[str, typer.Option("--split", help="The split to score on.")] = "test",
    to: ReportsOption = None,
    label: Annotated[str | None, typer.Option("--label", help="Name on the board. Default: from CHECKPOINT.")] = None,
    experiment: Annotated[str, typer.Option("--experiment", help="The experiment that it counts for.")] = "adhoc",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images in one forward pass.")] = 4,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Ray tasks that share the split.")] = 1,
    pictures: Annotated[int, typer.Option("--pictures", min=0, max=64, help="Predictions drawn as images.")] = 6,
    version: VersionOption = None,
    runtime: RuntimeOption = Runtime.RAY,
    as_json: JsonOption = False,
) -> None:
    """Score a trained model on a split of a dataset version.

    Every image counts exactly once, at its original resolution. The report is
    kept, so asking the same again is free.

    \b
    Examples:
      segpipe evaluate runs/unet-0123456789ab/model --data datasets/roofs --split test
      segpipe evaluate models:/roofs@champion --data datasets/roofs
      segpipe evaluate s3://bucket/model --data s3://bucket/roofs --split val --workers 4 --json
    """
    with answering(as_json) as answer, steps(f"evaluating {checkpoint}"):
        from segpipe.config import EvaluateConfig
        from segpipe.config.strict import validate
        from segpipe.stages import catalogue, layout, named_models
        from segpipe.stages import evaluate as stage

        document = {"split": split, "batch_size": batch_size, "workers": workers, "pictures": pictures}
        config = validate(EvaluateConfig, document, "segpipe evaluate")
        folder, bundle = to or layout.evaluations_uri(experiment), named_models.bundle_of(checkpoint)
        report = stage.evaluate(
            bundle,
            data=data,
            version=catalogue.dataset_version(data, version),
            to=folder,
            config=config,
            experiment=experiment,
            label=label or layout.label_of(bundle),
            runtime=runtime.value,
        )
        answer(report, partial(views.evaluated, place=stage.report_uri(report, config=config, to=folder)))


def promote(
    recipe: RecipeArgument,
    report: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REPORT...",
            help="Folders that `segpipe evaluate` filled. Default: those of the last retrain.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="URI", help="The dataset of these reports. Default: in $SEGPIPE_HOME."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make it champion whatever the gate says; needs --why.")
    ] = False,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the ledger.")] = "",
    overrides: SetOption = None,
    runtime: RuntimeOption = Runtime.RAY,
    as_json: JsonOption = False,
) -> None:
    """Let the best of some evaluated models challenge the champion.

    The champion is scored on the same dataset version first. Who wins is
    written into an append-only ledger, MLflow's aliases follow it. A tie keeps
    the champion. Without REPORT the models of the recipe's last retrain are
    judged again, as after a changed margin. With --force the challenger becomes
    champion all the same, and the ledger says who did that and why. Exit
    status 1: the challenger was refused.

    \b
    Examples:
      segpipe promote my.yaml --set promote.margin=0.01
      segpipe promote my.yaml evaluations/ --data datasets/roofs --json
      segpipe promote my.yaml --force --why "night scenes matter more to us"
    """
    with answering(as_json) as answer, steps("choosing the champion"):
        from segpipe.config import Recipe
        from segpipe.errors import InputError

        found = Recipe.load(recipe, tuple(overrides or ()))
        if force != bool(why.strip()):
            raise InputError("--force and --why TEXT go together: a champion by a person's word has a reason")
        from segpipe.stages import overrule
        from segpipe.stages import promote as stage

        if report:
            verdict = stage.judge(found, report, data=data, runtime=runtime.value)
        else:
            verdict = stage.judge_again(found, runtime=runtime.value)
        if force:
            verdict = overrule.force(verdict, why)
        answer(verdict, views.verdict, status=1 if verdict.outcome == "refused" else 0)


def rollback(
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the ledger.")],
    experiment: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="A recipe's name. Default: the only one in the home.")
    ] = None,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="RECORD", help="Whose champion it shall be. Default: the champion before."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Give the championship back to an earlier champion.

    One more record of the ledger, with who and why; MLflow's alias follows. The
    model that was taken back is not promoted again by a night: only by
    `segpipe promote --force`.

    \b
    Examples:
      segpipe rollback --why "halos around poles in production"
      segpipe rollback camvid --to 3 --why "the labels of June were wrong" --json
    """
    with answering(as_json) as answer, steps("taking the champion back"):
        from segpipe.stages import overrule

        answer(overrule.roll_back(experiment, why, to=to), views.rolled_back)


def retrain(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    runtime: RuntimeOption = Runtime.RAY,
    as_json: JsonOption = False,
) -> None:
    """Do it all: ingest, train every architecture, evaluate, promote.

    What the nightly deployment does, without Prefect. Whatever is done already
    is not done again: with nothing changed it says so and stops. Exit status 1:
    an architecture failed or the challenger was refused; the rest is done.

    With a budget of device-hours in the recipe all architectures are trained a
    little, and only the better part goes on from there, rung by rung, to its end
    (successive halving, ranked on the validation split). A night that is killed
    goes on with the rung that it was in; more hours go on where fewer ended.
    What an earlier night trained further waits for the rung that goes as far.

    \b
    Examples:
      segpipe retrain flows/recipes/camvid.yaml
      segpipe retrain my.yaml --set train.epochs=5 --set dataset.root=/data/new --json
      segpipe retrain my.yaml --set budget.hours=12 --set budget.keep=0.34
    """
    with answering(as_json) as answer, bars() as shown:
        from segpipe.config import Recipe

        found = Recipe.load(recipe, tuple(overrides or ()))
        from segpipe.stages import retrain as stage

        result = stage.retrain(
            found,
            runtime=runtime.value,
            on_step=shown.note,
            on_ingest=partial(shown.ingest, found.dataset.name),
            on_progress=shown.training,
        )
        answer(result, views.retrained, status=0 if result.is_clean else 1)
