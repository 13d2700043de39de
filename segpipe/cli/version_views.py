"""What became of a dataset, as people read it: its versions, and what changed between two. As `data_views`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from segpipe.cli.drawing import by_split, percent, say, table
from segpipe.stages.numbers import counted

if TYPE_CHECKING:
    from segpipe.stages.results import ClassChange, Difference, Logged, Move

MOST_LISTED, MOST_CHANGED = 20, 8


def logged(console: Console, rows: Sequence[Logged]) -> None:
    samples = [", ".join(f"{split} {count}" for split, count in by_split(row.splits)) or "-" for row in rows]
    shown = [(r.number, r.at, r.version[:12], told, r.state) for r, told in zip(rows, samples, strict=True)]
    table(console, "", ("number", "UTC", "version", "samples", "state"), shown)


def differed(console: Console, found: Difference) -> None:
    say(console, f"from {found.old_version[:12]} ({found.old_uri})\nto   {found.new_version[:12]} ({found.new_uri})")
    if found.old_version == found.new_version:
        say(console, "the very same version")
        return
    for what in ("added", "removed", "moved", "renamed", "repainted", "relabelled"):
        samples: Sequence[str | Move] = getattr(found, what)
        names = [each if isinstance(each, str) else f"{each.old} -> {each.new}" for each in samples]
        most = MOST_LISTED if what in ("added", "removed") else MOST_CHANGED
        say(console, f"{what} {len(names)}" + (f": {_first(names, ', ', most=most)}" if names else ""))
    say(console, f"unchanged {found.unchanged}")
    if found.coding:
        lines = _first([f"label contract: {change}" for change in found.coding], "\n", last="label contract: ")
        say(console, lines, "yellow")
    maps = any(each.old is not None or each.new is not None for each in found.classes)
    objects = any(each.old_objects is not None or each.new_objects is not None for each in found.classes)
    if maps:
        _share_changes(console, found.classes)
    if objects:
        _object_changes(console, found.classes)
    if not maps and not objects:
        say(console, "no label maps and no objects before or after, so there is nothing to compare by class")


def _share_changes(console: Console, classes: Sequence[ClassChange]) -> None:
    """The shares of the classes that have changed as far as one can see."""
    for when, told in (("before", [each.old for each in classes]), ("after", [each.new for each in classes])):
        if all(share is None for share in told):
            say(console, f"no label maps {when}, so no class has a share of pixels there", "yellow")
    rows = [(each.name, percent(each.old), percent(each.new)) for each in classes]
    _changes(console, "Share of the labelled pixels, all splits", "%", rows)
    if same := sum(before == after != "-" for _, before, after in rows):
        say(console, f"{counted(same, 'class', 'classes')} with the same share of the labelled pixels as before")


def _object_changes(console: Console, classes: Sequence[ClassChange]) -> None:
    """The numbers of objects that have changed."""
    rows = [(each.name, _number(each.old_objects), _number(each.new_objects)) for each in classes]
    _changes(console, "Objects, all splits, without crowds", "objects", rows)
    if same := sum(before == after != "-" for _, before, after in rows):
        say(console, f"{counted(same, 'class', 'classes')} with as many objects as before")


def _changes(console: Console, title: str, unit: str, rows: Sequence[tuple[str, str, str]]) -> None:
    changed = [row for row in rows if row[1] != row[2]]
    if changed:
        table(console, title, ("class", f"before {unit}", f"after {unit}"), changed)


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _first(texts: Sequence[str], between: str, *, most: int = MOST_LISTED, last: str = "") -> str:
    """The first of many texts, and how many more there are."""
    more = [f"{last}and {len(texts) - most} more (all of them: --json)"] if len(texts) > most else []
    return between.join([*texts[:most], *more])
