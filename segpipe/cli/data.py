"""The commands that work on a dataset."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from segpipe.cli import views
from segpipe.cli.answering import answering, bars
from segpipe.cli.parts import JsonOption, options_of

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
    name: Annotated[str | None, typer.Option("--name", help="The dataset's name. Default: FORMAT.")] = None,
    max_quarantine: Annotated[
        float,
        typer.Option("--max-quarantine", metavar="SHARE", min=0, max=1, help="Refuse above this share of bad samples."),
    ] = 0.01,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An option of the source. May be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a folder of images and masks as a dataset version.

    Bad files are set aside and listed, their good neighbours are published. The
    version is the hash of the content: the same files give the same version
    again, and a second run finds nothing to do.

    \b
    Examples:
      segpipe ingest camvid ~/data/camvid --to datasets/camvid
      segpipe ingest folder ~/photos --name roofs --max-quarantine 0.05 --json
      segpipe ingest scenes "" --option train=120 --option seed=7
    """
    with answering(as_json) as answer:
        from segpipe.config import DatasetConfig
        from segpipe.config.strict import validate
        from segpipe.stages import ingest as stage
        from segpipe.stages import layout

        document = {
            "name": name or format,
            "format": format,
            "root": root,
            "max_quarantine": max_quarantine,
            "options": options_of(options or ()),
        }
        config = validate(DatasetConfig, document, "segpipe ingest")
        with bars() as shown:
            shown.note(f"ingesting {config.name}")
            try:
                answer(stage.ingest(config, to=to, on_progress=partial(shown.ingest, config.name)), views.ingested)
            except stage.QuarantineLimitError as error:
                refusal: dict[str, object] = {
                    "name": config.name,
                    "uri": layout.absolute(to or layout.dataset_uri(config.name)),
                    "version": None,
                    "status": "refused",
                    "splits": {},
                    "quarantined": error.entries,
                    "warnings": [str(error)],
                }
                answer(refusal, views.ingest_refused, status=error.exit_status)
