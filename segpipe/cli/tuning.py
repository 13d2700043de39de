"""The search after training: `tune-crf`, a door onto its stage."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from segpipe.cli import views
from segpipe.cli.answering import answering, bars
from segpipe.cli.parts import CheckpointArgument, DataOption, JsonOption, VersionOption


def tune_crf(
    checkpoint: CheckpointArgument,
    data: DataOption,
    split: Annotated[str, typer.Option("--split", help="The split to search on: one that no board shows.")] = "val",
    to: Annotated[
        str | None, typer.Option("--to", metavar="URI", help="Folder for searches. Default: $SEGPIPE_HOME/crf.")
    ] = None,
    sxy: Annotated[
        list[float] | None,
        typer.Option("--sxy", metavar="PIXELS", help="Try this standard deviation of positions. May be repeated."),
    ] = None,
    srgb: Annotated[
        list[float] | None,
        typer.Option("--srgb", metavar="0..255", help="Try this standard deviation of colours. May be repeated."),
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option("--weight", help="Try this weight of the kernel over both. May be repeated."),
    ] = None,
    gaussian: Annotated[
        tuple[float, float] | None,
        typer.Option("--gaussian", metavar="PIXELS WEIGHT", help="The kernel over positions alone. Default: 3 3."),
    ] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", min=1, help="Mean field steps. Default: 5.")] = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the dense CRF that makes a model's labels better.

    Tries every combination of --sxy, --srgb and --weight on the probabilities
    of a semantic model and prints a table, with the lines that a recipe takes
    as train.inference.crf. The answer is kept: asking again is free.

    \b
    Examples:
      segpipe tune-crf runs/unet-0123456789ab/model --data roofs
      segpipe tune-crf s3://bucket/model --data roofs --sxy 50 --sxy 80 --srgb 5 --weight 3 --weight 6
    """
    with answering(as_json) as answer, bars() as shown:
        from segpipe.config import CrfGrid
        from segpipe.config.strict import validate

        asked = {"sxy": sxy, "srgb": srgb, "weight": weight, "gaussian": gaussian, "iterations": iterations}
        grid = validate(CrfGrid, {key: value for key, value in asked.items() if value}, "segpipe tune-crf")
        from segpipe.stages import catalogue, layout, named_models
        from segpipe.stages import tune_crf as stage

        bundle = named_models.bundle_of(checkpoint)
        label = layout.label_of(bundle)
        search = stage.tune_crf(
            bundle,
            data=data,
            version=catalogue.dataset_version(data, version),
            to=to or layout.searches_uri(),
            grid=grid,
            split=split,
            label=label,
            on_progress=partial(shown.ingest, f"{label} on {split}"),
        )
        answer(search, views.crf_tuned)
