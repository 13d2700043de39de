"""Results as people read them: one function a result, drawn on a rich console. Nothing is computed or decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segpipe.cli.answering import printable

if TYPE_CHECKING:
    from segpipe.stages.results import BoardRow, Check, IngestResult, Record, RetrainResult, Verdict
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
    rows = [(each["label"], each["arch"], each["options"] or "-") for each in summary["architectures"]]
    table(console, "Architectures", ("label", "architecture", "options"), rows)


def ingested(console: Console, result: IngestResult) -> None:
    words = {"published": "published now", "already_published": "was there already, nothing to do"}
    say(console, f"{result.uri}\nversion {result.version}: {words[result.status]}")
    table(console, "Splits", ("split", "samples"), result.splits.items())
    faults(console, result)


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
    say(console, f"home {result.home}\nMLflow {result.mlflow_uri}\n{result.seconds:.0f} s in all")


def history(console: Console, records: Sequence[Record]) -> None:
    rows = [(r.number, r.at[:19], r.kind, r.champion.label if r.champion else "-", r.who, r.reason) for r in records]
    table(console, "Ledger", ("number", "UTC", "kind", "champion then", "who", "reason"), rows)


def catalogue(console: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    names = [name for name in entries[0] if not isinstance(entries[0][name], list | dict)]
    table(console, "", names, [[entry[name] for name in names] for entry in entries])


def checkup(console: Console, checks: Sequence[Check]) -> None:
    table(
        console, "", ("check", "status", "found", "expected"), [(c.name, c.status, c.found, c.expected) for c in checks]
    )
    for check in checks:
        if check.status != "ok":
            say(console, f"{check.name}: {check.fix}", MARKS[check.status])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
