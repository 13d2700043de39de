"""The commands that work on a dataset, or look into one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from segpipe.cli import data_views as views
from segpipe.cli import version_views
from segpipe.cli.answering import answering, bars, steps
from segpipe.cli.parts import DATASET, DataOption, JsonOption, VersionOption, options_of

if TYPE_CHECKING:
    from segpipe.stages.quarantine import QuarantineLimitError

ToOption = Annotated[
    str | None,
    typer.Option("--to", metavar="URI", help="The dataset. Default: $SEGPIPE_HOME/datasets/NAME."),
]


def ingest(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="One of `segpipe list sources`.")],  # noqa: A002
    root: Annotated[
        str, typer.Argument(metavar="ROOT", help="Folder or URI of the source files ('' if it needs none).")
    ],
    to: ToOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The dataset's name, a part of its versions. Default: FORMAT.")
    ] = None,
    max_quarantine: Annotated[
        float,
        typer.Option("--max-quarantine", metavar="SHARE", min=0, max=1, help="Refuse above this share of bad samples."),
    ] = 0.01,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="KEY=VALUE", help="An option of the source (`segpipe list sources FORMAT`); repeatable."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a folder of images and masks as a dataset version.

    Bad files are set aside and listed, their good neighbours are published. The
    version is the hash of what is published: samples, splits, classes, licence
    and the dataset's name, not the place of source or dataset. The same files
    under the same name give the same version again, and a second run finds
    nothing to do. `segpipe list sources FORMAT` explains the options.

    \b
    Examples:
      segpipe ingest camvid ~/data/camvid --to datasets/camvid
      segpipe ingest folder ~/photos --name roofs --max-quarantine 0.05 --json
      segpipe ingest scenes "" --option train=120 --option seed=7
    """
    with answering(as_json) as answer, bars() as shown:
        shown.note(f"indexing {root or 'no files'} as {format}")  # before the imports, which take seconds
        from segpipe.config import DatasetConfig
        from segpipe.config.strict import validate
        from segpipe.stages import ingest as stage
        from segpipe.stages.quarantine import QuarantineLimitError

        document = {
            "name": name or format,
            "format": format,
            "root": root,
            "max_quarantine": max_quarantine,
            "options": options_of(options or ()),
        }
        config = validate(DatasetConfig, document, "segpipe ingest")
        try:
            answer(stage.ingest(config, to=to, on_progress=partial(shown.ingest, config.name)), views.ingested)
        except QuarantineLimitError as error:
            answer(_refusal(config.name, to, error), views.ingest_refused, status=error.exit_status)


def _refusal(name: str, to: str | None, error: QuarantineLimitError) -> dict[str, object]:
    """What an ingest gives that published nothing, in the shape of one that did."""
    from segpipe.stages import layout

    return {
        "name": name,
        "uri": layout.absolute(to or layout.dataset_uri(name)),
        "version": None,
        "status": "refused",
        "splits": {},
        "quarantined": error.entries,
        "warnings": [str(error), *error.notes],
    }


def inspect(
    uri: Annotated[str, typer.Argument(metavar="DATASET", help=DATASET)],
    version: VersionOption = None,
    sheet: Annotated[
        str | None,
        typer.Option("--sheet", metavar="FILE", help="Draw samples into this PNG: image, labels, both, legend."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Of the contact sheet. Default: all.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=64, help="Samples of a split on the contact sheet.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Tell what a dataset version holds: label contract, classes, sizes, colours.

    And what is suspicious about it, and which crop, batch and class weights it
    suggests for a recipe.

    \b
    Examples:
      segpipe data inspect camvid
      segpipe data inspect camvid --sheet camvid.png --split val
      segpipe data inspect s3://bucket/roofs --data-version 1a2b3c4d --json
    """
    with answering(as_json) as answer, steps(f"inspecting {uri}"):
        from segpipe.stages import inspect as stage

        answer(stage.inspect(uri, version=version, sheet=sheet, split=split, rows=rows), views.inspected)


def log(
    uri: Annotated[str, typer.Argument(metavar="DATASET", help=DATASET)],
    as_json: JsonOption = False,
) -> None:
    """List the versions of a dataset, in the order in which they became current.

    \b
    Examples:
      segpipe data log roofs
      segpipe data log s3://bucket/roofs --json
    """
    with answering(as_json) as answer, steps(f"reading the log of {uri}"):
        from segpipe.stages import versions

        answer(versions.log(uri), version_views.logged)


def diff(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="A dataset (its newest version), DATASET@HASH, or a model.")
    ],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="Another one, or another version of it; or models:/NAME/3.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Tell what changed between two dataset versions, or what two models were trained on.

    Images added, removed, renamed or moved to another split, painted over and
    relabelled; of each class its share of the pixels and its objects.

    \b
    Examples:
      segpipe data diff roofs@1a2b3c4d roofs
      segpipe data diff .segpipe/datasets/roofs@1a2b3c4d .segpipe/datasets/roofs
      segpipe data diff models:/roofs/3 models:/roofs@champion
      segpipe data diff s3://bucket/roofs@1a2b3c4d s3://bucket/roofs@5e6f7a8b --json
    """
    with answering(as_json) as answer, steps("comparing"):
        from segpipe.stages import diff as stage

        answer(stage.diff(old, new), version_views.differed)


def gc(
    uri: Annotated[
        str | None,
        typer.Argument(metavar="[DATASET]", help=f"{DATASET} Default: all of the home."),
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="So many of the last versions stay in any case.")] = 3,
    min_age: Annotated[
        float, typer.Option("--min-age", metavar="HOURS", min=0, help="What changed more lately than this stays.")
    ] = 24.0,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is told. Without it nothing changes.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell each kind and why it goes or stays.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what nobody needs any more, and with --delete remove it.

    Of datasets: versions before the last few, and what killed or refused ingests
    left. Of runs: the checkpoints of ended trainings, whose models stay, and of
    those that were paused on a version that is not current any more. Of
    trainings that were tried for some seconds: those of some time ago. Kept is
    every version that a run, a report or a decision of this home names, or
    that somebody reads now. Exit status 1: a dataset was left as it is, because
    an ingest is at work on it or it is damaged, or a removal ended half-way.

    \b
    Examples:
      segpipe data gc
      segpipe data gc --verbose
      segpipe data gc roofs --keep 5 --delete
      segpipe data gc s3://bucket/roofs --min-age 72 --delete --json
    """
    with answering(as_json) as answer, steps("looking for what nobody needs"):
        from segpipe.stages import gc as stage

        result = stage.collect(uri, keep=keep, min_age_hours=min_age, delete=delete)
        view = partial(views.collected, verbose=verbose)
        answer(result, view, status=1 if any(place.problem for place in result.places) else 0)


def export(
    data: DataOption,
    format: Annotated[str, typer.Option("--format", help="coco, folder, voc or yolo.")],  # noqa: A002
    to: Annotated[str, typer.Option("--to", metavar="URI", help="Where to write; nothing there is overwritten.")],
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset version as files of a common format.

    Images as they were shipped, and all annotations that the format holds; it
    ends by naming what it left out, and the command that ingests the result.

    \b
    Examples:
      segpipe export --data roofs --format folder --to roofs/
      segpipe export --data s3://bucket/cells --format coco --to cells/ --json
    """
    with answering(as_json) as answer, bars() as shown:
        from segpipe.stages import export as stage

        shown.note(f"exporting {data}")
        result = stage.export(data, format, to, version=version, on_progress=partial(shown.ingest, format))
        answer(result, views.exported)
