"""Results as people read them: one function a result, drawn on a rich console. Nothing is computed or decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segpipe.cli.answering import printable
from segpipe.cli.parts import run_of

if TYPE_CHECKING:
    from segpipe.stages.results import (
        BoardRow,
        Check,
        Collection,
        Difference,
        Exported,
        IngestResult,
        Inspection,
        Record,
        RetrainResult,
        Verdict,
    )
    from segpipe.types import EvalReport, QuarantineEntry, TrainResult

MARKS = {"ok": "green", "warn": "yellow", "fail": "red", "promoted": "green", "kept": "yellow", "refused": "red"}
MOST_LISTED = 20


def say(console: Console, text: object, style: str = "") -> None:
    """One paragraph, free of markup and control characters, broken nowhere but at its end."""
    console.print(Text(printable(text), style=style), soft_wrap=True)


def table(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table; numbers stand right, words that have a colour in `MARKS` get it."""
    drawn = Table(title=Text(printable(title)), title_justify="left", header_style="bold")
    lines = [[printable(cell) for cell in row] for row in rows]
    for at, column in enumerate(columns):
        numeric = bool(lines) and all(line[at][:1].isdigit() or line[at] == "-" for line in lines)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        drawn.add_row(*(Text(cell, style=MARKS.get(cell, "")) for cell in line))
    console.print(drawn)


def checked(console: Console, summary: Mapping[str, Any]) -> None:
    say(
        console,
        f"{summary['recipe']} is fine: experiment {summary['name']!r} on dataset {summary['dataset']!r}",
        "green",
    )
    rows = [(each["label"], each["arch"], each["options"] or "-", each["steps"]) for each in summary["architectures"]]
    table(console, "Architectures", ("label", "architecture", "options", "steps"), rows)
    for note in dict.fromkeys(note for each in summary["architectures"] for note in each["notes"]):
        say(console, f"look at this before a night is spent: {note}", "yellow")


def ingested(console: Console, result: IngestResult) -> None:
    words = {"published": "published now", "already_published": "was there already, nothing to do"}
    say(console, f"{result.uri}\nversion {result.version}: {words[result.status]}")
    table(console, "Splits", ("split", "samples"), result.splits.items())
    faults(console, result)
    say(console, f"look at what was understood: segpipe data inspect {result.uri} --sheet sheet.png")


def faults(console: Console, result: IngestResult) -> None:
    """What is wrong with the data that was ingested all the same."""
    for warning in result.warnings:
        say(console, f"warning: {warning}", "yellow")
    quarantine(console, result.quarantined)


def ingest_refused(console: Console, result: Mapping[str, Any]) -> None:
    say(console, f"refused: {result['warnings'][0]}", "red")
    quarantine(console, result["quarantined"])


def quarantine(console: Console, entries: Sequence[QuarantineEntry]) -> None:
    """The first bad samples; the dataset's quarantine file and --json have them all."""
    if entries:
        rows = [(entry.file, entry.item, entry.reason, entry.detail) for entry in entries[:MOST_LISTED]]
        shown = "" if len(entries) <= MOST_LISTED else f", the first {MOST_LISTED}"
        table(console, f"{len(entries)} in quarantine{shown}", ("file", "item", "reason", "detail"), rows)


def inspected(console: Console, found: Inspection) -> None:
    say(console, f"{found.name}: version {found.version}", "bold")
    say(console, f"{found.uri}\nsource {found.source}; annotations {', '.join(found.annotations)}\n{found.licence}")
    splits = [split.name for split in found.splits]
    drawn = Table(title="Label contract", title_justify="left", header_style="bold")
    for column in (
        "id",
        "",
        "class",
        "raw value",
        *(f"{split} {what}" for split in splits for what in ("%", "images")),
    ):
        drawn.add_column(column, justify="left" if column in ("", "class") else "right", overflow="fold")
    if has_objects := any(sum(row.objects.values()) for row in found.classes):
        drawn.add_column("objects", justify="right")
    for row in found.classes:
        cells = [Text(str(row.class_id)), Text("██", style=f"rgb({row.colour[0]},{row.colour[1]},{row.colour[2]})")]
        cells += [Text(printable(row.name) + (" (thing)" if row.is_thing else ""))]
        cells += [Text(", ".join(map(str, row.raw_values)) or "-")]
        for split in splits:
            cells += [Text(_percent(row.shares[split])), Text(str(row.images[split]))]
        absent = not any(row.images.values())
        counted = [Text(str(sum(row.objects.values())))] if has_objects else []
        drawn.add_row(*cells, *counted, style="yellow" if absent else "")
    console.print(drawn)
    ignored = ", ".join(map(str, found.ignored_values)) or "none"
    say(console, f"ignored: raw value {ignored}, stored as {found.ignore_index}")
    for rule in found.rules:
        say(console, f"  {rule}")
    columns = ("split", "samples", "groups", "not labelled %", "sizes", "mean RGB", "std RGB")
    rows = [
        (s.name, s.samples, s.groups, _percent(s.ignored), _sizes(s.sizes), _triple(s.mean), _triple(s.std))
        for s in found.splits
    ]
    table(console, "Splits", columns, rows)
    if has_objects:
        sized = [(s.name, *s.objects_by_size, s.crowds) for s in found.splits]
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


def differed(console: Console, found: Difference) -> None:
    say(console, f"from {found.old_version[:12]} ({found.old_uri})\nto   {found.new_version[:12]} ({found.new_uri})")
    for what in ("added", "removed", "moved", "repainted", "relabelled"):
        names: Sequence[str] = getattr(found, what)
        more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
        say(console, f"{what} {len(names)}" + (f": {', '.join(names[:MOST_LISTED])}{more}" if names else ""))
    say(console, f"unchanged {found.unchanged}")
    for change in found.coding:
        say(console, f"label contract: {change}", "yellow")
    rows = [(each.name, _percent(each.old), _percent(each.new)) for each in found.classes]
    table(console, "Share of the labelled pixels, all splits", ("class", "before %", "after %"), rows)


def exported(console: Console, result: Exported) -> None:
    counts = ", ".join(f"{split} {samples}" for split, samples in result.samples.items())
    say(console, f"{result.dataset} {result.version[:8]} as {result.format}: {counts}\n{result.to}")
    if result.left_out:
        say(console, f"left out, since {result.format} does not hold it: {', '.join(result.left_out)}", "yellow")
    say(console, f"to read it again: {result.command}")


def collected(console: Console, found: Collection) -> None:
    for place in found.places:
        say(console, place.uri, "bold")
        groups: dict[tuple[str, str], tuple[int, int]] = {}
        for each in place.going:
            kind = each.path if each.path.endswith("/") else each.path.partition("/")[0]
            files, size = groups.get((kind, each.why), (0, 0))
            groups[kind, each.why] = (files + 1, size + each.bytes)
        rows = [(kind, files, _size(size), why) for (kind, why), (files, size) in groups.items()]
        if rows:
            table(console, "removed" if place.deleted else "would go", ("what", "files", "size", "why"), rows)
        if place.staying:
            table(console, "stays", ("what", "why"), [(each.name, each.why) for each in place.staying])
        if place.problem:
            say(console, place.problem, "yellow")
    if found.deleted:
        say(console, f"{_size(found.bytes)} removed", "green")
    else:
        say(console, f"{_size(found.bytes)} would go; nothing was changed: add --delete to remove them")


def trained(console: Console, results: Sequence[TrainResult]) -> None:
    rows = [
        (r.label, f"{r.best_value:.4f}", r.best_epoch, r.epochs, r.stopped, f"{r.train_seconds:.0f}", r.model_uri)
        for r in results
    ]
    primary = results[0].primary
    columns = ("label", f"best {primary}", "at epoch", "epochs", "stopped", "seconds", "model")
    table(console, "Trained (on the validation split)", columns, rows)


def evaluated(console: Console, report: EvalReport, *, place: str) -> None:
    say(console, f"{report.label} on {report.dataset} {report.dataset_version[:8]} {report.split}: {report.protocol}")
    interval = (
        f"95 % interval {report.low:.4f} to {report.high:.4f} over {report.resampled}, {report.num_samples} images"
    )
    say(console, f"{report.primary} {report.value:.4f} ({interval})", "bold")
    metrics = [(name, _number(value)) for name, value in report.metrics.items()]
    table(console, "All metrics", ("metric", "value"), metrics)
    names = list(report.per_class[report.classes[0]])
    rows = [(name, *(_number(report.per_class[name].get(each)) for each in names)) for name in report.classes]
    table(console, "By class", ("class", *names), rows)
    say(console, f"report and pictures: {place}")


def board(console: Console, rows: Sequence[BoardRow]) -> None:
    if not rows:
        say(console, "no models on the board")
        return
    first = rows[0]
    columns = {
        "rank": [row.rank for row in rows],
        "label": [row.label for row in rows],
        "architecture": [row.arch for row in rows],
        first.primary: [f"{row.value:.4f}" for row in rows],
        "95 % interval": [f"{row.low:.4f}-{row.high:.4f}" for row in rows],
        "M parameters": [f"{row.parameters / 1e6:.2f}" for row in rows],
    }
    if columns["label"] == columns["architecture"]:
        del columns["architecture"]  # nothing new, and it would fold the table on a narrow terminal
    say(console, f"Leaderboard: {first.split} split of version {first.dataset_version[:8]}, {first.protocol}", "bold")
    table(console, "", tuple(columns), list(zip(*columns.values(), strict=True)))
    if first.constant_value is not None:
        below = [row.label for row in rows if row.value <= first.constant_value]
        what = f"{first.constant_class} everywhere would score {first.constant_value:.4f}"
        say(console, f"{what}; not above that: {', '.join(below)}" if below else what, "yellow" if below else "")


def verdict(console: Console, result: Verdict) -> None:
    say(console, f"{result.outcome}: {result.reason}", MARKS[result.outcome])
    if result.champion is None:
        say(console, f"{result.name} has no champion yet")
    else:
        say(console, f"champion of {result.name}: {result.champion.label} ({result.champion.arch})")
        say(console, f"  weights    {result.champion.weights_sha256}\n  checkpoint {result.champion.checkpoint}")
    say(console, f"  ledger     record {result.number}, {result.at}")


def retrained(console: Console, result: RetrainResult) -> None:
    faults(console, result.dataset)
    board(console, result.board)
    for label, message in result.failures.items():
        say(console, f"failed: {label}: {message}", "red")
    verdict(console, result.verdict)
    if result.did_nothing:
        say(console, "nothing had changed, so nothing was done: same data, recipe and code as last time")
    if result.refused_since is not None:
        say(console, f"refused since {result.refused_since[:16]} UTC, and until something changes", "red")
    say(console, f"home {result.home}\nMLflow {result.mlflow_uri}\n{result.seconds:.0f} s in all")


def history(console: Console, records: Sequence[Record]) -> None:
    # Labels come again each night; the first digits of its run tell a model apart.
    names = [f"{r.champion.label} {run_of(r.champion.checkpoint)}".strip() if r.champion else "-" for r in records]
    rows = [(r.number, r.at[:19], r.kind, name, r.who, r.reason) for r, name in zip(records, names, strict=True)]
    table(console, "Ledger", ("number", "UTC", "kind", "champion then", "who", "reason"), rows)


def catalogue(console: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    names = [name for name in entries[0] if not isinstance(entries[0][name], list | dict)]
    table(console, "", names, [[entry[name] for name in names] for entry in entries])


def sources(console: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    """The formats, each with the files that it reads and its options: what `segpipe ingest FORMAT ROOT` needs."""
    for entry in entries:
        say(console, f"{entry['name']}: {entry['summary']}", "bold")
        say(console, f"  for {', '.join(entry['tasks'])}; licence: {entry['licence']}")
        if entry["layout"]:
            say(console, f"  files in ROOT: {'  '.join(entry['layout'])}")
        if entry["options"]:
            options = ", ".join(f"{key}={value}" for key, value in entry["options"].items())
            say(console, f"  --option: {options}")
        for reason in dict.fromkeys(entry["known_bad"].values()):
            ids = ", ".join(sample_id for sample_id, why in entry["known_bad"].items() if why == reason)
            say(console, f"  refused, because {reason}: {ids}")


def checkup(console: Console, checks: Sequence[Check]) -> None:
    table(
        console, "", ("check", "status", "found", "expected"), [(c.name, c.status, c.found, c.expected) for c in checks]
    )
    for check in checks:
        if check.status != "ok":
            say(console, f"{check.name}: {check.fix}", MARKS[check.status])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _triple(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _sizes(sizes: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{size} ({count})" for size, count in sizes[:3])
    return shown + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")


def _size(num_bytes: int) -> str:
    if num_bytes < 10_000:
        return f"{num_bytes} bytes"
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.2f} MB"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
