"""The commands that show something and change nothing."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from segpipe.cli import lineage_views, model_views, views
from segpipe.cli.answering import answering, steps
from segpipe.cli.parts import JsonOption, settings_of, size_of


class Table(StrEnum):
    """What `segpipe list` can list."""

    MODELS = "models"
    SOURCES = "sources"
    TASKS = "tasks"


def list_table(
    table: Annotated[Table, typer.Argument(metavar="models|sources|tasks", help="Which table.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[FORMAT]", help="One of the sources: explains its files and options.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the architectures, dataset formats or tasks that a recipe may name.

    --json also tells each entry's options with their defaults. With FORMAT: the
    files that this source reads, what each of its options means, the licence,
    and how many samples its publisher states.

    \b
    Examples:
      segpipe list models
      segpipe list sources --json
      segpipe list sources folder
    """
    with answering(as_json) as answer, steps(f"listing {table}"):
        from segpipe.errors import InputError
        from segpipe.stages import catalogue

        if name is not None:
            if table is not Table.SOURCES:
                raise InputError(f"list {table} takes no name, found {name!r}: leave it out; --json tells all of each")
            answer(catalogue.source(name), views.source)
            return
        entries = {Table.MODELS: catalogue.models, Table.SOURCES: catalogue.sources, Table.TASKS: catalogue.tasks}
        shown = {Table.MODELS: views.catalogue, Table.SOURCES: views.sources, Table.TASKS: views.tasks}
        answer(entries[table](), shown[table])


def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An architecture, as segpipe list models names them.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="One of its options. May be repeated."),
    ] = None,
    size: Annotated[str, typer.Option("--size", metavar="HxW", help="Of the image, in pixels.")] = "512x512",
    classes: Annotated[int, typer.Option("--classes", min=1, help="How many it tells apart.")] = 21,
    runs: Annotated[int, typer.Option("--runs", min=0, help="Passes to time on this machine's CPU; 0 for none.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show one architecture: its figure and paper, what it costs and sees, what others published of it.

    Parameters, multiply-adds, memory of a pass and of a training step, seconds of
    a pass on this machine's CPU, the receptive field, and every departure from
    the paper. Weights are random; nothing is downloaded.

    \b
    Examples:
      segpipe models show deeplab_v3
      segpipe models show deeplab_v3 --set backbone=resnet50 --set output_stride=8 --size 512x1024
      segpipe models show pspnet --runs 0 --json
    """
    with answering(as_json) as answer, steps(f"measuring {name}"):
        options, sides = settings_of(settings or ()), size_of(size)
        from segpipe.stages import catalogue

        answer(catalogue.model(name, options, num_classes=classes, size=sides, runs=runs), model_views.architecture)


def board(
    experiment: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="A recipe's name. Default: the only one in the home.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the leaderboard of the last retrain.

    All rows were scored on the same dataset version and split under the same
    protocol.

    \b
    Examples:
      segpipe board
      segpipe board camvid --json
    """
    with answering(as_json) as answer, steps("reading reports"):
        from segpipe.stages import nights

        answer(nights.board(experiment), views.board)


def history(
    experiment: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="A recipe's name. Default: the only one in the home.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the ledger: every decision on who is champion, and why.

    \b
    Examples:
      segpipe history
      segpipe history camvid --json
    """
    with answering(as_json) as answer, steps("reading the ledger"):
        from segpipe.stages import nights

        answer(nights.history(experiment), views.history)


def lineage(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="models:/NAME@champion, models:/NAME@challenger or models:/NAME/3.")
    ],
    images: Annotated[bool, typer.Option("--images", help="Tell the hash of every image of its dataset.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell where a model comes from: data, recipe, code, weights before it, scores, verdict.

    Each link is read from what is stored, and its hash compared; one that does
    not hold is told as broken. Exit status 1: a link is broken.

    \b
    Examples:
      segpipe lineage models:/camvid@champion
      segpipe lineage models:/camvid/3 --images --json
    """
    with answering(as_json) as answer, steps(f"looking where {model} comes from"):
        from segpipe.stages import lineage as stage

        found = stage.lineage(model, images=images)
        answer(found, lineage_views.lineage, status=1 if found.broken else 0)


def doctor(as_json: JsonOption = False) -> None:
    """Check this machine: versions, Ray, MLflow, Prefect, disk, memory, GPU, clock; and say how to mend each fault.

    Exit status: 0 when nothing failed (warnings may remain), 3 when a service
    cannot be reached, 1 for another fault.

    \b
    Examples:
      segpipe doctor
      segpipe doctor --json
    """
    with answering(as_json) as answer, steps("checking this machine") as note:
        from segpipe.stages import doctor as stage

        checks = stage.examine(on_check=lambda name: note(f"checking {name}"))
        answer(checks, views.checkup, status=stage.exit_status(checks))
