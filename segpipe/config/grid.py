"""`grid` of an entry of `architectures`: one entry for every combination of some values. Below `config/__init__.py`.

    - {arch: unet, grid: {options.backbone: [resnet18, vgg16_bn], options.skips: [concatenate, add]}}

is four entries, labelled unet-resnet18-concatenate and so on: what a matrix of encoders and decoders is.
"""

from __future__ import annotations

import copy
import re
from itertools import product
from typing import Any

from segpipe.errors import InputError

MOST_ENTRIES = 200
LONGEST_LABEL = 63


def expand_grids(document: dict[str, Any], *, origin: str) -> dict[str, Any]:
    """The recipe with every entry that has a `grid` replaced by its combinations, in order, the last key fastest.

    Whatever else is wrong with an entry is left to be found where all entries are. Raises InputError, with the path, on
    a grid that is none.
    """
    entries = document.get("architectures")
    if not isinstance(entries, list) or not any(isinstance(entry, dict) and "grid" in entry for entry in entries):
        return document
    expanded: list[Any] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and "grid" in entry:
            expanded += _combinations(entry, f"{origin}: architectures.{index}.grid")
        else:
            expanded.append(entry)
        if len(expanded) > MOST_ENTRIES:
            raise InputError(f"{origin}: architectures: grids make more than {MOST_ENTRIES} entries; take fewer values")
    return {**document, "architectures": expanded}


def _combinations(entry: dict[str, Any], where: str) -> list[dict[str, Any]]:
    grid = entry["grid"]
    if not isinstance(grid, dict) or not grid:
        raise InputError(f"{where}: expected keys with lists of values, such as options.backbone: [resnet18, resnet34]")
    for path, values in grid.items():
        if not isinstance(path, str) or path.split(".")[0] not in ("arch", "options", "pretrained", "train"):
            raise InputError(f"{where}.{path}: expected arch, pretrained, options.NAME or train.KEY")
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}.{path}: expected a list of values (found {values!r})")
    return [_entry(entry, dict(zip(grid, chosen, strict=True)), where) for chosen in product(*grid.values())]


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
