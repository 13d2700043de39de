"""The command line: a second door onto `stages/`, beside `flows/`. `main` is the console script `segpipe`.

    answering.py   how every command answers: clean standard output, exit status, no traceback
    progress.py    how far long work is, as lines
    parts.py       the arguments and options that several commands share
    drawing.py     paragraphs and tables, for all results
    data_views.py  results about datasets, for people
    version_views.py  the log of a dataset, and the difference of two versions
    model_views.py one architecture: its figure, cost and published numbers
    lineage_views.py  where a model comes from
    views.py       the other results: models, nights, this installation
    data.py        commands on a dataset: ingest, export, data inspect, data log, data diff, data gc
    work.py        commands on a recipe or a model: check train evaluate promote rollback retrain
    tuning.py      tune-crf, a search after training
    predicting.py  predict: a model asked about images
    selecting.py   select: the images that are worth labelling
    portable.py    models export
    look.py        commands that show something: models show, board history lineage list doctor

Importing this costs a fraction of a second and must stay so: each command imports its stage when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from segpipe import __version__
from segpipe.cli import data, look, portable, predicting, selecting, tuning, work

app = typer.Typer(
    name="segpipe",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Retrains image segmentation models unattended and answers one question: is the new one really better?",
    epilog="Start with `segpipe doctor`, then `segpipe retrain RECIPE`. Results lie in $SEGPIPE_HOME (./.segpipe). "
    "Exit status: 0 done, 1 something was refused or failed, 2 wrong use or bad input, 3 a service could not be "
    "reached, 130 interrupted.",
)
COMMANDS: dict[str, tuple[str, Callable[..., None]]] = {
    "check": ("Work", work.check),
    "ingest": ("Work", data.ingest),
    "train": ("Work", work.train),
    "evaluate": ("Work", work.evaluate),
    "tune-crf": ("Work", tuning.tune_crf),
    "predict": ("Work", predicting.predict),
    "select": ("Work", selecting.select),
    "promote": ("Work", work.promote),
    "rollback": ("Work", work.rollback),
    "retrain": ("Work", work.retrain),
    "data inspect": ("Look", data.inspect),
    "data log": ("Look", data.log),
    "data diff": ("Look", data.diff),
    "data gc": ("Look", data.gc),
    "export": ("Work", data.export),
    "board": ("Look", look.board),
    "history": ("Look", look.history),
    "lineage": ("Look", look.lineage),
    "list": ("Look", look.list_table),
    "models show": ("Look", look.show_model),
    "models export": ("Work", portable.export_model),
    "doctor": ("Look", look.doctor),
}
ABOUT_DATA = "List, inspect and compare dataset versions; remove old ones."
ABOUT_MODELS = "Look at one architecture: its figure, cost and published numbers; export a trained model."
GROUPS = {
    "data": typer.Typer(no_args_is_help=True, help=ABOUT_DATA),
    "models": typer.Typer(no_args_is_help=True, help=ABOUT_MODELS),
}
for name, (panel, function) in COMMANDS.items():
    group, _, command = name.rpartition(" ")
    (GROUPS[group] if group else app).command(command, rich_help_panel=None if group else panel)(function)
for name, each in GROUPS.items():
    app.add_typer(each, name=name, rich_help_panel="Look")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What may stand before the command."""


def main() -> None:
    """Runs the command line and exits with its status."""
    app()
