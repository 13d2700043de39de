"""`select`: the images that are worth labelling. A door onto `stages/select.py`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from segpipe.cli import views
from segpipe.cli.answering import answering, bars
from segpipe.cli.parts import DATASET, JsonOption, VersionOption, size_of
from segpipe.cli.predicting import BatchOption, SourceArgument, SplitOption, WindowOption


class Format(StrEnum):
    """What is written beside the images."""

    LABEL_STUDIO = "label-studio"
    COCO = "coco"


_BY = "Who is asked: models:/NAME@champion, models:/NAME/3 or a model's folder. Repeated: a committee."
_STRATEGY = "One model: entropy (default), margin, least-confidence. Several: vote-entropy (default), pairwise-miou."
_LABELLED = f"Leave out the images that this dataset holds labelled. May be repeated. {DATASET}"
_SPREAD = "Choose the least alike from so many times as many of the most uncertain. 1: the most uncertain."


def select(
    source: SourceArgument,
    by: Annotated[list[str], typer.Option("--by", metavar="MODEL", help=_BY)],
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="Where to write; nothing there is overwritten.")],
    count: Annotated[int, typer.Option("--count", min=1, max=100_000, help="How many images.")] = 50,
    format: Annotated[  # noqa: A002
        Format, typer.Option("--format", help="Tasks of Label Studio, or COCO JSON.")
    ] = Format.LABEL_STUDIO,
    strategy: Annotated[str | None, typer.Option("--strategy", help=_STRATEGY)] = None,
    labelled: Annotated[list[str] | None, typer.Option("--labelled", metavar="DATASET", help=_LABELLED)] = None,
    per_group: Annotated[
        int | None, typer.Option("--per-group", min=1, help="At most so many of a clip, a group, a folder of files.")
    ] = None,
    spread: Annotated[int, typer.Option("--spread", min=1, max=100, help=_SPREAD)] = 2,
    window: WindowOption = None,
    batch_size: BatchOption = 4,
    split: SplitOption = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the images whose labels would teach the most, for people to label.

    One model tells how unsure it is of an image: of its worst patch, an eighth
    of each side, since borders are unsure everywhere. Several models tell how
    much they disagree. Near copies are taken once. The folder has the images
    and what the (first) model proposes for them, for Label Studio or as COCO
    JSON; it ends with what to do next. What was scored is kept, so the same
    command goes on where it was stopped. Exit status 1: some images could not
    be used; they are listed.

    \b
    Examples:
      segpipe select photos/ --by models:/roofs@champion --count 50 --labelled roofs --to to_label/
      segpipe select frames --split train --by models:/roofs/3 --by runs/unet-0123456789ab/model --per-group 1 --to out/
      segpipe select s3://bucket/photos --by models:/roofs@champion --format coco --to s3://bucket/to_label --json
    """
    with answering(as_json) as answer, bars() as shown:
        shown.note(f"asking {', '.join(by)} about {source}")
        from segpipe.stages import select as stage

        result = stage.select(
            source,
            models=by,
            count=count,
            to=to,
            format=format.value,
            strategy=strategy,
            labelled=labelled or (),
            per_group=per_group,
            spread=spread,
            version=version,
            split=split,
            window=None if window is None else size_of(window, flag="--window"),
            batch_size=batch_size,
            on_progress=shown.ingest,
        )
        answer(result, views.selected, status=1 if result.quarantined else 0)
