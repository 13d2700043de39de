"""The commands that show something and change nothing."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from segpipe.cli import views
from segpipe.cli.answering import answering, steps
from segpipe.cli.parts import JsonOption


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
