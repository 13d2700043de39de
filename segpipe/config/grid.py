"""`grid` of an entry of `architectures`: one entry for every combination of some values. Below `config/recipe.py`.

    - {arch: unet, grid: {options.backbone: [resnet18, vgg16_bn], options.skips: [concatenate, add]}}

is four entries, labelled unet-resnet18-concatenate and so on: what a matrix of encoders and decoders is.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

from segpipe.errors import InputError

MOST_ENTRIES = 200
LONGEST_LABEL = 63
_ENTRY = re.compile(r"\barchitectures\.(\d+)((?:\.\w+)*)")


class Place(NamedTuple):
    """Where an entry stands in the recipe's file, and which point of a grid it is; "" without one."""

    entry: int
    point: str


def named(text: str, places: Sequence[Place]) -> str:
    """A message with every `architectures.N` of the expanded recipe as its file has it, with the point of the grid.

    `places` are those of the expanded entries; none where no entry has a grid.
    """

    def written(found: re.Match[str]) -> str:
        at = int(found[1])
        if at >= len(places):
            return found[0]
        entry, point = places[at]
        return f"architectures.{entry}{found[2]}" + (f" (grid: {point})" if point else "")

    return _ENTRY.sub(written, text) if places else text


def expand_grids(document: dict[str, Any], *, origin: str) -> tuple[dict[str, Any], tuple[Place, ...]]:
    """The recipe with every entry that has a `grid` replaced by its combinations, in order, the last key fastest; and
    the place of each entry then, none where there is no grid.

    Whatever else is wrong with an entry is left to be found where all entries are. Raises InputError, with the path, on
    a grid that is none.
    """
    entries = document.get("architectures")
    if not isinstance(entries, list) or not any(isinstance(entry, dict) and "grid" in entry for entry in entries):
        return document, ()
    expanded: list[Any] = []
    places: list[Place] = []
    for index, entry in enumerate(entries):
        made = [("", entry)]
        if isinstance(entry, dict) and "grid" in entry:
            made = _combinations(entry, f"{origin}: architectures.{index}.grid")
        expanded += [each for _, each in made]
        places += [Place(index, point) for point, _ in made]
        if len(expanded) > MOST_ENTRIES:
            raise InputError(f"{origin}: architectures: grids make more than {MOST_ENTRIES} entries; take fewer values")
    return {**document, "architectures": expanded}, tuple(places)


def _combinations(entry: dict[str, Any], where: str) -> list[tuple[str, dict[str, Any]]]:
    """Every combination: its point of the grid in words, and the entry that it is."""
    grid = entry["grid"]
    if not isinstance(grid, dict) or not grid:
        raise InputError(f"{where}: expected keys with lists of values, such as options.backbone: [resnet18, resnet34]")
    for path, values in grid.items():
        if not isinstance(path, str) or path.split(".")[0] not in ("arch", "options", "pretrained", "train"):
            raise InputError(f"{where}.{path}: expected arch, pretrained, options.NAME or train.KEY")
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}.{path}: expected a list of values (found {values!r})")
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [(", ".join(f"{path} {value}" for path, value in p.items()), _entry(entry, p, where)) for p in points]


def _entry(entry: dict[str, Any], chosen: dict[str, Any], where: str) -> dict[str, Any]:
    made = copy.deepcopy({key: value for key, value in entry.items() if key != "grid"})
    for path, value in chosen.items():
        node = made
        *parents, last = path.split(".")
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise InputError(f"{where}.{path}: {part} of the entry is {node!r}, not keys with values")
        if last in node:
            raise InputError(f"{where}.{path}: the entry has a value of its own for it; take one of the two out")
        node[last] = value
    first = [] if "arch" in chosen and "label" not in entry else [entry.get("label") or entry.get("arch")]
    named = "-".join(str(part) for part in (*first, *chosen.values()))
    made["label"] = re.sub("[^a-z0-9_-]+", "_", named.lower())[:LONGEST_LABEL]
    return made
