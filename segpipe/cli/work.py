"""The commands that make something. Each is a door onto one stage: arguments in, the stage's result out."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli import views
from segpipe.cli.answering import answering, progress_bar, steps
from segpipe.cli.parts import (
    DataOption,
    JsonOption,
    RecipeArgument,
    Runtime,
    RuntimeOption,
    SetOption,
    VersionOption,
    options_of,
)


def check(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Check a recipe without starting anything.

    Reads the recipe, its architectures and their options, the source folder and the resources, and names every fault
    with the key that has it. What passes here does not fail for a typo at two in the morning.

    \b
    segpipe check flows/recipes/camvid.yaml
    segpipe check my.yaml --set train.epochs=3 --set resources.workers=2
    """
    with answering(as_json) as answer, steps(f"checking {recipe}"):
        from segpipe.config import Recipe
        from segpipe.stages import retrain as stage

        found = Recipe.load(recipe, tuple(overrides or ()))
        stage.check(found)
        runs = [found.run_config(index) for index in range(len(found.architectures))]
        summary = {
            "recipe": str(recipe),
            "name": found.name,
            "dataset": found.dataset.name,
            "architectures": [{"label": run.label, "arch": run.arch, "options": run.options} for run in runs],
        }
        answer(summary, views.checked)


def ingest(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="One of `segpipe list sources`.")],  # noqa: A002
    root: Annotated[str, typer.Argument(metavar="ROOT", help="Folder or URI of the source files ('' if it needs none).")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="URI", help="The dataset. Default: $SEGPIPE_HOME/datasets/NAME.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The dataset's name. Default: FORMAT.")] = None,
    max_quarantine: Annotated[
        float, typer.Option("--max-quarantine", metavar="SHARE", min=0, max=1, help="Refuse above this share of bad samples.")
    ] = 0.01,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An option of the source. May be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a folder of images and masks as a dataset version.

    Bad files are set aside and listed, their good neighbours are published. The version is the hash of the content:
    the same files give the same version again, and a second run finds nothing to do.

    \b
    segpipe ingest camvid ~/data/camvid --to datasets/camvid
    segpipe ingest folder ~/photos --name roofs --max-quarantine 0.05 --json
    segpipe ingest scenes "" --option count=200
    """
    with answering(as_json) as answer:
        from segpipe.config import DatasetConfig, validate
        from segpipe.stages import ingest as stage

        document = {
            "name": name or format,
            "format": format,
            "root": root,
            "max_quarantine": max_quarantine,
            "options": options_of(options or ()),
        }
        config = validate(DatasetConfig, document, "segpipe ingest")
        with progress_bar(f"ingesting {config.name}") as advance:
            try:
                answer(stage.ingest(config, to=to, on_progress=advance), views.ingested)
            except stage.QuarantineLimitError as error:
                ...
