"""Results about datasets as people read them: one function a result. Nothing is computed or decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segpipe.cli.answering import printable
from segpipe.cli.drawing import by_split, percent, say, table
from segpipe.stages.numbers import counted, file_size

if TYPE_CHECKING:
    from segpipe.stages.results import (
        Collection,
        Exported,
        IngestResult,
        Inspection,
        Place,
        SplitRow,
    )
    from segpipe.types import QuarantineEntry

MOST_NAMED = 3  # samples of one reason


def ingested(console: Console, result: IngestResult) -> None:
    words = {"published": "published now", "already_published": "was there already, nothing to do"}
    say(console, f"{result.uri}\nversion {result.version}: {words[result.status]}")
    table(console, "Splits", ("split", "samples"), by_split(result.splits))
    faults(console, result)
    say(console, f"look at what was understood: segpipe data inspect {result.uri} --sheet sheet.png")


def faults(console: Console, result: IngestResult) -> None:
    """What is wrong with the data that was ingested all the same."""
    for warning in result.warnings:
        say(console, f"warning: {warning}", "yellow")
    quarantine(console, result.quarantined)


def ingest_refused(console: Console, result: Mapping[str, Any]) -> None:
    refusal, *notes = result["warnings"]
    say(console, f"refused: {refusal}", "red")
    for note in notes:
        say(console, f"warning: {note}", "yellow")
    quarantine(console, result["quarantined"])


def quarantine(console: Console, entries: Sequence[QuarantineEntry]) -> None:
    """The bad samples by reason, most first; the dataset's quarantine file and --json have each of them."""
    groups: dict[str, list[QuarantineEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.reason, []).append(entry)
    rows = []
    for reason, group in sorted(groups.items(), key=lambda each: (-len(each[1]), each[0])):
        items = list(dict.fromkeys(entry.item or entry.file for entry in group))
        more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
        rows.append((reason, len(group), ", ".join(items[:MOST_NAMED]) + more, f"{group[0].file}: {group[0].detail}"))
    if rows:
        columns = ("reason", "number", "samples", "the first")
        table(console, f"{len(entries)} in quarantine (--json lists each)", columns, rows)


def inspected(console: Console, found: Inspection) -> None:
    say(console, f"{found.name}: version {found.version}", "bold")
    say(console, f"{found.uri}\nsource {found.source}; annotations {', '.join(found.annotations)}\n{found.licence}")
    has_objects = any(sum(row.objects.values()) for row in found.classes)
    _contract(console, found, has_objects=has_objects)
    ignored = ", ".join(map(str, found.ignored_values)) or "none"
    say(console, f"ignored: raw value {ignored}, stored as {found.ignore_index}")
    for rule in found.rules:
        say(console, f"  {rule}")
    _splits(console, found.splits)
    if has_objects:
        sized = [(s.name, *s.objects_by_size, s.crowds) for s in found.splits if s.unlabelled < s.samples]
        table(console, "Objects", ("split", "small (< 32^2)", "medium", "large (>= 96^2)", "crowds"), sized)
    for warning in found.warnings:
        say(console, f"warning: {warning}", "yellow")
    for reason, count in found.quarantined.items():
        say(console, f"in quarantine: {count} {reason}", "yellow")
    say(console, "A recipe could say (under `train:`):", "bold")
    for key, value in found.proposal.items():
        outer, _, inner = key.rpartition(".")
        line = f"{outer}: {{{inner}: {value}}}" if outer else f"{key}: {value}"
        say(console, f"  {line}    # {found.reasons[key]}")
    if found.sheet is not None:
        say(console, f"contact sheet: {found.sheet}")


def _contract(console: Console, found: Inspection, *, has_objects: bool) -> None:
    """The classes; of each split only what it has: no shares without label maps, nothing at all without labels."""
    say(console, "Label contract", "italic")
    drawn = Table(header_style="bold")
    shares = [s.name for s in found.splits if any(row.shares[s.name] is not None for row in found.classes)]
    shown = [s.name for s in found.splits if s.name in shares or any(row.images[s.name] for row in found.classes)]
    columns = [f"{split} {what}" for split in shown for what in ("%", "images") if what != "%" or split in shares]
    for column in ("id", "", "class", "raw value", *columns, *(("objects",) if has_objects else ())):
        drawn.add_column(column, justify="left" if column in ("", "class") else "right", overflow="fold")
    for row in found.classes:
        cells = [Text(str(row.class_id)), Text("██", style=f"rgb({row.colour[0]},{row.colour[1]},{row.colour[2]})")]
        cells += [Text(printable(row.name) + (" (thing)" if row.is_thing else ""))]
        cells += [Text(", ".join(map(str, row.raw_values)) or "-")]
        for split in shown:
            cells += [Text(percent(row.shares[split]))] if split in shares else []
            cells += [Text(str(row.images[split]))]
        absent = not any(row.images.values())
        objects = [Text(str(sum(row.objects.values())))] if has_objects else []
        drawn.add_row(*cells, *objects, style="yellow" if absent else "")
    console.print(drawn)


def _splits(console: Console, splits: Sequence[SplitRow]) -> None:
    """The splits; a column that says nothing of any of them is left out."""
    columns: dict[str, list[object]] = {
        "split": [s.name for s in splits],
        "samples": [s.samples for s in splits],
        "no labels": [s.unlabelled for s in splits],
        "groups": [s.groups for s in splits],
        "ignored %": [percent(s.ignored) for s in splits],
        "sizes": [_sizes(s.sizes) for s in splits],
        "mean RGB": [_triple(s.mean) for s in splits],
        "std RGB": [_triple(s.std) for s in splits],
    }
    if not any(s.unlabelled for s in splits):
        del columns["no labels"]
    if all(s.ignored is None for s in splits):
        del columns["ignored %"]
    table(console, "Splits", tuple(columns), zip(*columns.values(), strict=True))


def exported(console: Console, result: Exported) -> None:
    counts = ", ".join(f"{split} {samples}" for split, samples in by_split(result.samples))
    say(console, f"{result.dataset} {result.version[:8]} as {result.format}: {counts}\n{result.to}")
    if result.left_out:
        say(console, f"left out, since {result.format} does not bring it back: {', '.join(result.left_out)}", "yellow")
    if result.renamed:
        shown = [f"{sample_id} -> {stem}" for sample_id, stem in list(result.renamed.items())[:MOST_NAMED]]
        more = ", ..." if len(result.renamed) > len(shown) else ""
        many = counted(len(result.renamed), "sample")
        say(console, f"{many} under another name (all of them: --json): {', '.join(shown)}{more}", "yellow")
    for note in result.notes:
        say(console, note, "yellow")
    say(console, f"to read it again: {result.command}")


def collected(console: Console, found: Collection, *, verbose: bool) -> None:
    """A line a place; with `verbose` also what goes by kind, and each thing that stays."""
    if verbose:
        for place in found.places:
            _collected_in_full(console, place)
    files = sum(len(place.going) for place in found.places)
    rows = [
        (place.uri, len(place.going) or "-", file_size(place.bytes) if place.going else "-", place.reasons, place.stays)
        for place in found.places
        if place.going or place.staying
    ]
    if rows:
        table(console, "", ("place", "removed" if found.deleted else "would go", "size", "why", "stays"), rows)
    for place in found.places:
        if place.problem:
            say(console, place.problem, "yellow")
    if found.deleted:
        say(console, f"{file_size(found.bytes)} removed", "green")
    elif files:
        say(console, f"{file_size(found.bytes)} would go; nothing was changed: add --delete to remove them")
        say(console, "every file: --json" + ("" if verbose else "; what stays, and why: --verbose"))
    else:
        say(console, "nothing to remove" + ("" if verbose else "; what stays, and why: --verbose"))


def _collected_in_full(console: Console, place: Place) -> None:
    say(console, place.uri, "bold")
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    for each in place.going:
        kind = each.path if each.path.endswith("/") else each.path.partition("/")[0]
        files, taken = groups.get((kind, each.why), (0, 0))
        groups[kind, each.why] = (files + 1, taken + each.bytes)
    rows = [(kind, files, file_size(taken), why) for (kind, why), (files, taken) in groups.items()]
    if rows:
        table(console, "removed" if place.deleted else "would go", ("what", "files", "size", "why"), rows)
    if place.staying:
        table(console, "stays", ("what", "why"), [(each.name, each.why) for each in place.staying])


def _triple(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _sizes(sizes: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{size} ({count})" for size, count in sizes[:3])
    return shown + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")
