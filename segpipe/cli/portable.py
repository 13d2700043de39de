"""`segpipe models export`: a trained model as files that other programs run. A door onto `stages/model_export.py`."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli import model_views
from segpipe.cli.answering import answering, steps
from segpipe.cli.parts import DataOption, JsonOption, VersionOption


def export_model(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="models:/NAME@champion, models:/NAME/VERSION, or a model's folder."),
    ],
    data: DataOption,
    to: Annotated[str, typer.Option("--to", metavar="URI", help="Where to write; nothing there is overwritten.")],
    format: Annotated[  # noqa: A002
        list[str] | None, typer.Option("--format", help="pt2 or onnx; may be repeated. Default: both.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Whose first images are compared.")] = "test",
    images: Annotated[int, typer.Option("--images", min=1, max=256, help="How many of them.")] = 8,
    logits_epsilon: Annotated[
        float, typer.Option("--logits-epsilon", min=0, help="The most that a logit may differ, of the largest.")
    ] = 1e-4,
    miou_epsilon: Annotated[float, typer.Option("--miou-epsilon", min=0, help="The most that mIoU may differ.")] = 1e-3,
    fixed: Annotated[bool, typer.Option("--fixed", help="One image of the first one's size a pass, no other.")] = False,
    runs: Annotated[int, typer.Option("--runs", min=0, help="Passes that are timed by each way; 0: none.")] = 5,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained model as torch.export and ONNX files.

    Each file is opened again and compared with the model on images of a
    dataset; one that says something else is refused, and nothing is written
    (exit status 1). Batch, height and width are free where the network allows
    it. Beside the files lies export.json: classes, normalisation, shapes, how
    well they agreed, and how fast each is on one thread of this CPU.

    \b
    Examples:
      segpipe models export models:/camvid@champion --data camvid --to camvid-onnx/
      segpipe models export runs/unet-0123456789ab/model --data roofs --to out/ --format pt2 --runs 0 --json
    """
    with answering(as_json) as answer, steps(f"exporting {model}") as note:
        from segpipe.stages import model_export as stage

        result = stage.export_model(
            model,
            to=to,
            data=data,
            formats=tuple(format or ("pt2", "onnx")),
            version=version,
            split=split,
            images=images,
            dynamic=not fixed,
            logits_epsilon=logits_epsilon,
            miou_epsilon=miou_epsilon,
            runs=runs,
            on_step=note,
        )
        answer(result, model_views.exported)
