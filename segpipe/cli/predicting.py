"""`predict`: a model asked about images, as files or as a dataset version. A door onto two stages."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from segpipe.cli import views
from segpipe.cli.answering import answering, bars
from segpipe.cli.parts import JsonOption, Runtime, VersionOption, size_of
from segpipe.errors import InputError

_MODEL = "models:/NAME@champion, models:/NAME/3, or a model folder of a training."
_PALETTES = "classes (their own: the default), voc, cityscapes, camvid, camvid31, ade20k, hub or grey."
_KINDS = "masks, overlays, coco or instances. May be repeated. Default: masks."
_INTO = "Write no files, but publish a version of this dataset, which holds nothing but predictions."
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL)]
SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="An image, a folder of images, or a dataset.")]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="URI", help="Folder for results. Default: $SEGPIPE_HOME/predictions.")
]
OutputOption = Annotated[list[str] | None, typer.Option("--output", metavar="KIND", help=_KINDS)]
CutoutOption = Annotated[
    str | None, typer.Option("--cutout", metavar="CLASS", help="Also cut this class out: PNG with alpha.")
]
PaletteOption = Annotated[str | None, typer.Option("--palette", help=_PALETTES)]
_SCORE = "Leave out objects below it, but in coco."
ScoreOption = Annotated[float, typer.Option("--least-score", min=0, max=1, help=_SCORE)]
WindowOption = Annotated[
    str | None, typer.Option("--window", metavar="HxW", help="See larger images window by window, as 1024x1024.")
]
_DRIFT = "Tell drift where a statistic is further than this from the training's, 0 to 1."
DriftOption = Annotated[float, typer.Option("--drift-threshold", metavar="DISTANCE", help=_DRIFT)]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images in one forward pass.")]
SplitOption = Annotated[str | None, typer.Option("--split", help="One split of a dataset.")]
_RUNTIME = "With --into. ray (the default): $RAY_ADDRESS or a Ray of its own on this machine; local: in process."
RuntimeOption = Annotated[Runtime | None, typer.Option("--runtime", help=_RUNTIME)]
IntoOption = Annotated[str | None, typer.Option("--into", metavar="NAME", help=_INTO)]


def predict(
    model: ModelArgument,
    source: SourceArgument,
    to: ToOption = None,
    outputs: OutputOption = None,
    cutout: CutoutOption = None,
    palette: PaletteOption = None,
    least_score: ScoreOption = 0.5,
    window: WindowOption = None,
    batch_size: BatchOption = 4,
    split: SplitOption = None,
    version: VersionOption = None,
    drift_threshold: DriftOption = 0.2,
    into: IntoOption = None,
    runtime: RuntimeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a model about images.

    Masks are PNGs whose pixels are class ids, in a palette of your choice. What
    is there and whole is not made again, so the same command goes on where it
    was stopped. With --into the answers become a dataset version (labels and
    uncertainty in Parquet), row group by row group on Ray. Exit status 1: some
    images could not be used; they are listed, the others are done.

    It also tells whether the images, and the answers, are like those that the
    model was trained and scored on: what moved (brightness, sizes, uncertainty,
    shares of classes), from what to what, and which images to label first.

    \b
    Examples:
      segpipe predict models:/roofs@champion photos/
      segpipe predict models:/roofs/3 photo.jpg --output overlays --cutout roof --to out
      segpipe predict runs/unet-0123456789ab/model roofs --split test --palette voc --json
      segpipe predict models:/roofs@champion s3://bucket/photos --into roofs_predicted
    """
    with answering(as_json) as answer, bars() as shown:
        shown.note(f"asking {model} about {source}")
        seen = None if window is None else size_of(window, flag="--window")
        asked: dict[str, Any] = {"version": version, "split": split, "window": seen, "batch_size": batch_size}
        asked |= {"least_score": least_score, "drift_threshold": drift_threshold}
        if into is None:
            from segpipe.stages import predict as stage

            if runtime is not None:
                raise InputError("--runtime is of --into; files are made in this very process: leave it out")
            kinds = tuple(outputs or (() if cutout else ("masks",)))
            asked |= {"cutout": cutout, "palette": palette}
            told = partial(shown.ingest, "images")
            result = stage.predict(model, source, to=to, outputs=kinds, on_progress=told, **asked)
            answer(result, views.predicted, status=1 if result.quarantined else 0)
            return
        _refuse_files({"--to": to, "--output": outputs, "--cutout": cutout, "--palette": palette})
        from segpipe.stages import predict_dataset as dataset_stage

        told = partial(shown.ingest, into)
        asked["runtime"] = (runtime or Runtime.RAY).value
        made = dataset_stage.predict_dataset(model, source, name=into, on_progress=told, **asked)
        answer(made, views.predicted_dataset, status=1 if made.quarantined else 0)


def _refuse_files(given: dict[str, object]) -> None:
    """What is asked of files has no meaning for a dataset version, and is not passed over in silence."""
    if asked := [flag for flag, value in given.items() if value]:
        raise InputError(f"--into publishes a dataset version, and {', '.join(asked)} asks for files; leave one out")
