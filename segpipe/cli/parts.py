"""The arguments and options that several commands share, and the small conversions from text that they need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from segpipe.errors import InputError


class Runtime(StrEnum):
    """Where work runs: tasks on a Ray cluster, or this very process."""

    RAY = "ray"
    LOCAL = "local"


RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe: one YAML file, such as those in flows/recipes/.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, as train.epochs=3. May be repeated."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else there.")
]
RuntimeOption = Annotated[
    Runtime, typer.Option("--runtime", help="ray: $RAY_ADDRESS or a Ray of its own on this machine; local: in process.")
]
DataOption = Annotated[str, typer.Option("--data", metavar="URI", help="A dataset, as `segpipe ingest` published it.")]
VersionOption = Annotated[
    str | None,
    typer.Option("--data-version", metavar="HASH", help="Pin a dataset version (8 digits do). Default: the newest."),
]


def options_of(pairs: Sequence[str]) -> dict[str, str | int | float | bool]:
    """`KEY=VALUE` texts as a mapping: numbers and true/false as such, anything else as text."""
    found: dict[str, str | int | float | bool] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not key or not sign:
            raise InputError(f"--option {pair!r}: expected KEY=VALUE, for example clips=true")
        if key in found:
            raise InputError(f"--option {pair!r}: {key!r} is given twice; keep one")
        found[key] = _scalar(text)
    return found


def _scalar(text: str) -> str | int | float | bool:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text
