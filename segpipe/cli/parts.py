"""The arguments and options that several commands share, and the small conversions from text that they need."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpipe.errors import InputError

if TYPE_CHECKING:
    from segpipe.config import Recipe, RunConfig


class Runtime(StrEnum):
    """Where work runs: tasks on a Ray cluster, or this very process."""

    RAY = "ray"
    LOCAL = "local"


RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe: one YAML file, such as those in flows/recipes/.")
]
CheckpointArgument = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT", help="A model folder, as training left it, models:/NAME@champion or models:/NAME/VERSION."
    ),
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
DATASET = "A dataset: its name in $SEGPIPE_HOME, or where it lies."
DataOption = Annotated[str, typer.Option("--data", metavar="DATASET", help=DATASET)]
VersionOption = Annotated[
    str | None,
    typer.Option("--data-version", metavar="HASH", help="Pin a dataset version (8 digits do). Default: the newest."),
]


def options_of(pairs: Sequence[str]) -> dict[str, str | int | float | bool]:
    """`KEY=VALUE` texts as a mapping: numbers and true/false as such, anything else as text."""
    return {key: _scalar(text) for key, text in _pairs(pairs, flag="--option", example="clips=true").items()}


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """The same for an architecture's options, some of which are lists: `multi_grid=[1,2,1]`."""
    found = _pairs(pairs, flag="--set", example="output_stride=8").items()
    return {key: json.loads(text) if _is_list(text) else _scalar(text) for key, text in found}


def size_of(text: str, *, flag: str = "--size") -> tuple[int, int]:
    """`512x1024` as (height, width) in pixels."""
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if found is None:
        raise InputError(f"{flag} {text!r}: expected HEIGHTxWIDTH in pixels, for example 512x1024")
    return int(found[1]), int(found[2])


def _pairs(pairs: Sequence[str], *, flag: str, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not key or not sign:
            raise InputError(f"{flag} {pair!r}: expected KEY=VALUE, for example {example}")
        if key in found:
            raise InputError(f"{flag} {pair!r}: {key!r} is given twice; keep one")
        found[key] = text
    return found


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _scalar(text: str) -> str | int | float | bool:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def chosen_runs(recipe: Recipe, labels: Sequence[str]) -> list[RunConfig]:
    """The runs of a recipe that have one of `labels`, or all where none is named, in its order."""
    runs = recipe.run_configs()
    known = [run.label for run in runs]
    for label in labels:
        if label not in known:
            raise InputError(f"--only {label!r}: {recipe.name} has no such label; expected one of: {', '.join(known)}")
    return [run for run in runs if run.label in labels or not labels]
