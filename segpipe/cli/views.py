"""Results about models, nights and this installation as people read them: one function a result, as `data_views`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from segpipe.cli.data_views import faults, quarantine
from segpipe.cli.drawing import MARKS, by_split, say, table
from segpipe.stages.halving.report import rung_rows, summed_up
from segpipe.stages.numbers import counted, file_size
from segpipe.types import CLASS_COUNTS

if TYPE_CHECKING:
    from segpipe.stages.drift import Drift
    from segpipe.stages.halving.plan import BudgetPlan
    from segpipe.stages.predict import Predicted
    from segpipe.stages.predict_dataset import PredictedDataset
    from segpipe.stages.results import BoardRow, BudgetReport, Check, Record, RetrainResult, Verdict
    from segpipe.stages.select import Selected
    from segpipe.stages.tune_crf import CrfSearch
    from segpipe.types import EvalReport, TrainResult

_SELECTED_SHOWN = 20
KINDS = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}  # for a person


def checked(console: Console, summary: Mapping[str, Any]) -> None:
    say(
        console,
        f"{summary['recipe']} is fine: experiment {summary['name']!r} on dataset {summary['dataset']!r}",
        "green",
    )
    rows = [(each["label"], each["arch"], each["options"] or "-", each["steps"]) for each in summary["architectures"]]
    table(console, "Architectures", ("label", "architecture", "options", "steps"), rows)
    for each in summary["architectures"]:
        if each["aside"]:
            say(console, f"{each['label']}: {each['aside']}")
    if summary["budget"] is not None:
        budgeted(console, summary["budget"])
    for note in summary["notes"]:
        say(console, f"warning: {note}", "yellow")
    for note in dict.fromkeys(note for each in summary["architectures"] for note in each["notes"]):
        say(console, f"look at this before a night is spent: {note}", "yellow")


def budgeted(console: Console, plan: BudgetPlan) -> None:
    """How the trainings of a recipe with a budget are halved; with hours where they were measured."""
    if plan.full_grid is None:
        places = " -> ".join(map(str, plan.counts))
        measured = "how far each rung goes is laid out by what a step costs, which --deep measures"
        say(console, f"budget of {plan.hours:g} {plan.device}-hours: trainings in each rung {places}; {measured}")
        return
    rungs = [
        (number, step.count, f"{step.share:.0%}", f"{step.hours:.3g}") for number, step in enumerate(plan.steps, 1)
    ]
    columns = ("rung", "trainings", "up to", f"{plan.device}-hours at most")
    table(console, f"Within {plan.hours:g} {plan.device}-hours, of which a tenth is kept back", columns, rungs)
    say(console, f"all trainings to their ends: {plan.full_grid:.3g} {plan.device}-hours")


def checked_deeply(console: Console, summary: Mapping[str, Any]) -> None:
    checked(console, summary)
    deep = summary["deep"]
    rows = [
        (
            each["label"],
            _loss(each["losses"][:1]),
            "-" if each["expected"] is None else f"{_loss([each['first_entropy']])} of {each['expected']:.3g}",
            f"{_loss(each['losses'][-1:])} in {len(each['losses'])}",
            "-" if each["images_per_second"] is None else f"{each['images_per_second']:.3g}",
            "-" if each["peak_bytes"] is None else file_size(each["peak_bytes"]),
            "-" if each["hours"] is None else f"{each['hours']:.2g}",
        )
        for each in deep["architectures"]
    ]
    columns = ("label", "first loss", "entropy of ln K", "last, in steps", "images/s", "memory", "hours")
    table(console, "Tried on one step's images", columns, rows)
    for each in deep["architectures"]:
        if each["aside"]:
            say(console, f"{each['label']}: not tried: {each['aside']}")
        if each["sheet"]:
            before = " (tried before)" if each["remembered"] else ""
            say(console, f"{each['label']}: what it sees: {each['sheet']}{before}")
        if each["failed"]:
            say(console, f"{each['label']}: could not be tried: {each['failed']}", "red")
        for fault in each["faults"]:
            say(console, f"{each['label']}: fault: {fault}", "red")
        for caution in each["cautions"]:
            say(console, f"{each['label']}: look at this: {caution}", "yellow")
    say(console, f"the whole night: at most {deep['hours']:.2g} hours one by one, {deep['core_hours']:.2g} core hours")


def _loss(losses: Sequence[float | None]) -> str:
    return "-" if not losses else "not finite" if losses[0] is None else f"{losses[0]:.3g}"


def trained(console: Console, results: Sequence[TrainResult]) -> None:
    rows = [
        (r.label, f"{r.best_value:.4f}", r.best_epoch, r.epochs, r.stopped, f"{r.train_seconds:.0f}", r.model_uri)
        for r in results
    ]
    primary = results[0].primary
    columns = ("label", f"best {primary}", "at epoch", "epochs", "stopped", "seconds", "model")
    table(console, "Trained (on the validation split)", columns, rows)


def crf_tuned(console: Console, search: CrfSearch) -> None:
    rows = [
        (
            each.settings.bilateral[0],
            each.settings.bilateral[1],
            each.settings.bilateral[2],
            f"{each.value:.4f}",
            f"{each.value - search.without:+.4f}",
            "best" if each.settings == search.best else "",
        )
        for each in search.tried
    ]
    title = (
        f"DenseCRF on {search.dataset} {search.dataset_version[:8]} {search.split}, "
        f"{counted(search.num_samples, 'image')}: {search.primary} {search.without:.4f} without one"
    )
    table(console, title, ("sxy", "srgb", "weight", search.primary, "gain", ""), rows)
    if search.best is None:
        say(console, "none of them is better than no CRF: leave train.inference.crf out", "yellow")
    else:
        gaussian, bilateral = (list(kernel) for kernel in (search.best.gaussian, search.best.bilateral))
        say(
            console,
            f"train.inference.crf: {{iterations: {search.best.iterations}, gaussian: {gaussian}, bilateral: "
            f"{bilateral}}}",
            "bold",
        )
    say(console, f"all of it: {search.uri}")


def evaluated(console: Console, report: EvalReport, *, place: str) -> None:
    say(console, f"{report.label} on {report.dataset} {report.dataset_version[:8]} {report.split}: {report.protocol}")
    interval = (
        f"95 % interval {report.low:.4f} to {report.high:.4f} over {report.resampled}, "
        f"{counted(report.num_samples, 'image')}"
    )
    say(console, f"{report.primary} {report.value:.4f} ({interval})", "bold")
    metrics = [(name, _number(value)) for name, value in report.metrics.items()]
    table(console, "All metrics", ("metric", "value"), metrics)
    names = list(report.per_class[report.classes[0]])
    rows = [(name, *(_cell(each, report.per_class[name].get(each)) for each in names)) for name in report.classes]
    table(console, "By class", ("class", *names), rows)
    say(console, f"model card, report and pictures: {place}")


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
    if result.comparison is not None:
        rows = [
            (name, *(_number(score) for score in scores)) for name, *scores in (each.row for each in result.changes)
        ]
        table(console, "By class", ("class", "champion", "challenger", "change"), rows)
        drawn = f"{result.comparison.resamples} resamples of {result.comparison.resampled}"
        say(console, f"not better in {result.comparison.p:.2%} of {drawn}")
    if result.champion is None:
        say(console, f"{result.name} has no champion yet")
    else:
        say(console, f"champion of {result.name}: {result.champion.label} ({result.champion.arch})")
        say(console, f"  weights    {result.champion.weights_sha256}\n  checkpoint {result.champion.checkpoint}")
    say(console, f"  ledger     record {result.number}, {result.at}")


def rolled_back(console: Console, record: Record) -> None:
    assert record.champion is not None  # of a rollback
    say(console, f"{record.kind}: {record.reason}", MARKS[record.kind])
    say(console, f"champion of {record.name}: {record.champion.label} ({record.champion.arch})")
    say(console, f"  ledger     record {record.number}, {record.at}")


def retrained(console: Console, result: RetrainResult) -> None:
    faults(console, result.dataset)
    board(console, result.board)
    if result.budget is not None:
        searched(console, result.budget)
    for label, message in result.failures.items():
        say(console, f"failed: {label}: {message}", "red")
    verdict(console, result.verdict)
    if result.did_nothing:
        say(console, "nothing had changed, so nothing was done: same data, recipe and code as last time")
    if result.refused_since is not None:
        say(console, f"refused since {result.refused_since[:16]} UTC, and until something changes", "red")
    for what, page in (("all models side by side", result.side_by_side), ("model card of the challenger", result.card)):
        if page is not None:
            say(console, f"{what} {page}")
    say(console, f"home {result.home}\nMLflow {result.mlflow_uri}\n{result.seconds:.0f} s in all")


def searched(console: Console, result: BudgetReport) -> None:
    """The rungs of a night within a budget, what they took, and who was left out."""
    told = [list(row.items()) for row in rung_rows(result)]
    if told:
        table(console, "Rungs", tuple(name for name, _ in told[0]), [tuple(cell for _, cell in row) for row in told])
    for label, why in result.left_out.items():
        say(console, f"{label}: {why}")
    say(console, summed_up(result), "bold")


def predicted(console: Console, result: Predicted) -> None:
    """What was asked now and what was there, what could not be used, and where everything lies."""
    speed = f", {result.images_per_second:.1f} images/s" if result.images_per_second else ""
    say(console, f"{counted(result.images, 'image')}: {result.made} made, {result.kept} there before{speed}")
    quarantine(console, result.quarantined)
    for note in result.notes:
        say(console, note, "yellow")
    for kind, place in result.outputs.items():
        say(console, f"  {kind:10} {place}")
    drift(console, result.drift)
    say(console, f"Results are in {result.to}")


def predicted_dataset(console: Console, result: PredictedDataset) -> None:
    """The version, its splits, what could not be used."""
    speed = f", {result.images_per_second:.1f} images/s" if result.images_per_second else ""
    rows = ", ".join(f"{split} {samples}" for split, samples in by_split(result.splits))
    say(console, f"{result.name} {result.version[:12]} ({result.status.replace('_', ' ')}): {rows}")
    say(console, f"{counted(result.parts, 'part')}: {result.kept} there before{speed}")
    quarantine(console, result.quarantined)
    for note in result.notes:
        say(console, note, "yellow")
    drift(console, result.drift)
    say(console, f"Results are in {result.uri}")


def selected(console: Console, result: Selected) -> None:
    """What was chosen and why, what was left out, and what a person does now."""
    left, many = result.left_out, len(result.chosen)
    say(console, f"{many} of {result.images} images by {result.strategy}; {result.asked} answers made now")
    out = ((left.labelled, "labelled already"), (left.repeated, "there twice"), (left.near_copies, "almost the same"))
    told = [f"{n} {what}" for n, what in (*out, (left.group_full, "of a group of which enough are taken")) if n]
    if told:
        say(console, f"left out: {', '.join(told)}")
    rows = [(each.rank, each.file, f"{each.score:.3f}", each.group) for each in result.chosen[:_SELECTED_SHOWN]]
    table(console, "", ("rank", "image", "score", "group"), rows)
    if many > len(rows):
        say(console, f"  and {many - len(rows)} more, in selection.json")
    quarantine(console, result.quarantined)
    for note in result.notes:
        say(console, note, "yellow")
    say(console, f"Results are in {result.to}. Now:")
    for step in result.next_steps:
        say(console, f"  {step}")


def drift(console: Console, found: Drift) -> None:
    """Whether the images are like those of the training; what moved, and which of them to label."""
    if found.has_drifted:
        say(console, "drift: images or answers are not like those of the training", "yellow")
        for shift in found.shifts:
            if shift.has_moved:
                say(console, f"  {shift.sentence}", "yellow")
        say(console, f"  least like the training, so label first: {', '.join(found.to_label)}")
    else:
        say(console, found.sentence, "yellow" if found.is_undecided else "")
    for note in found.notes:
        say(console, f"  {note}")


def history(console: Console, records: Sequence[Record]) -> None:
    from segpipe.stages.layout import run_of  # here: it brings fsspec, for which the help of a command need not wait

    # Labels come again each night; the first digits of its run tell a model apart.
    names = [f"{r.champion.label} {run_of(r.champion.checkpoint)}".strip() if r.champion else "-" for r in records]
    rows = [(r.number, r.at[:19], r.kind, name, r.who, r.reason) for r, name in zip(records, names, strict=True)]
    table(console, "Ledger", ("number", "UTC", "kind", "champion then", "who", "reason"), rows)


def catalogue(console: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    """The architectures, each with the tasks that it serves and its paper."""
    rows = [(entry["name"], ", ".join(entry["tasks"]), entry["paper"]) for entry in entries]
    table(console, "", ("name", "tasks", "paper"), rows)


def tasks(console: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    """The tasks, each with what a dataset must fill and the architectures to choose from."""
    rows = [
        (each["name"], each["primary"], ", ".join(each["needs"]), ", ".join(each["models"]) or "-") for each in entries
    ]
    table(console, "", ("task", "ranked by", "needs", "architectures"), rows)


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
        _known_bad(console, entry)
    say(console, "what the options of one mean: segpipe list sources FORMAT")


def source(console: Console, entry: Mapping[str, Any]) -> None:
    """One format in full."""
    say(console, f"{entry['name']}: {entry['summary']}", "bold")
    say(console, f"  for {', '.join(entry['tasks'])}; licence: {entry['licence']}")
    if entry["layout"]:
        say(console, "  files in ROOT:")
        for line in entry["layout"]:
            say(console, f"    {line}")
    if entry["expected"]:
        counts = ", ".join(f"{split} {samples}" for split, samples in entry["expected"].items())
        say(console, f"  samples as published: {counts}")
    _known_bad(console, entry)
    if entry["options"]:
        rows = [
            (key, KINDS[each["type"]], _default(each["default"]), each["help"])
            for key, each in entry["options"].items()
        ]
        table(
            console,
            "--option KEY=VALUE, or `options:` of a recipe's dataset",
            ("key", "value", "default", "meaning"),
            rows,
        )
    else:
        say(console, "  no options")


def _known_bad(console: Console, entry: Mapping[str, Any]) -> None:
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


def _default(value: object) -> str:
    """As it is written on the command line; an empty text is shown as such."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'


def _cell(name: str, value: float | None) -> str:
    return f"{value:.0f}" if name in CLASS_COUNTS and value is not None else _number(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
