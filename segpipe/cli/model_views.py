"""One architecture as people read it: its figure, what it costs and sees, what others published, where it departs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from segpipe.cli.drawing import figure, percent, points, say, table
from segpipe.stages.numbers import counted, file_size

if TYPE_CHECKING:
    from segpipe.stages.model_export import ExportedModel


def architecture(console: Console, entry: Mapping[str, Any]) -> None:
    """What `stages.catalogue.model` gives."""
    found = entry["profile"]
    say(console, f"{entry['name']}: {entry['paper']}", "bold")
    say(console, f"for {', '.join(entry['tasks'])}")
    if entry["drawing"]:
        say(console, "")
        figure(console, entry["drawing"])
        say(console, "")
    _options(console, entry["options"], found["options"])
    height, width = found["size"]
    title = f"Cost of one image of {height}x{width} with {counted(found['num_classes'], 'class', 'classes')}"
    table(console, title, ("what", "value", "how"), _costs(found))
    if found["not_followed"] and found["multiply_adds"] is not None:
        say(console, f"why a field is not known: {', '.join(found['not_followed'])}")
    for title, texts in (
        ("Parameters as others count them", [_counted(each) for each in entry["counted"]]),
        ("Published (not measured here)", [_published(each) for each in entry["published"]]),
        ("Departures from the paper", entry["differs"]),
    ):
        if texts:
            say(console, title, "italic")
            points(console, texts)


def exported(console: Console, result: ExportedModel) -> None:
    """The files of an export: how well they agree with the model, and what a pass costs."""
    rows = [
        (
            each.format,
            file_size(each.bytes),
            f"{each.agreement.logits:.2g}",
            f"{each.agreement.exported_miou:.4f}",
            f"{each.agreement.miou:.4f}",
        )
        for each in result.files
    ]
    title = f"{result.arch} on {counted(result.files[0].agreement.images, 'image')} of {result.compared_on}"
    table(console, title, ("file", "size", "largest difference of a logit", "mIoU", "the model's"), rows)
    shape = " x ".join(map(str, result.input["shape"]))
    say(console, f"images of {shape} go in; free: {', '.join(result.free_axes) or 'nothing'}")
    if result.why_fixed:
        say(console, f"not free: {result.why_fixed}", "yellow")
    if result.latency:
        height, width = result.latency_size
        rows_of_time = [(each.way, _duration(each.seconds), each.note) for each in result.latency]
        title = f"A pass of {height}x{width}, processor time of one thread, median of {result.latency[0].runs}"
        table(console, title, ("way", "time", ""), rows_of_time)
    say(console, f"files and export.json: {result.to}")


def _options(console: Console, defaults: Mapping[str, Any], used: Mapping[str, Any]) -> None:
    if not defaults:
        say(console, "no options")
    elif used == defaults:
        table(console, "Options", ("option", "default"), [(key, _value(value)) for key, value in defaults.items()])
    else:
        rows = [(key, _value(value), _value(used[key])) for key, value in defaults.items()]
        table(console, "Options", ("option", "default", "here"), rows)


def _counted(count: Mapping[str, Any]) -> str:
    changed = f", {_set(count['options'])}" if count["options"] else ""
    printed = f"; printed as {count['published']}" if count["published"] else ""
    classes = counted(count["num_classes"], "class", "classes")
    return f"{count['parameters']:,} with {classes}{changed}: {count['source']}{printed}"


def _published(number: Mapping[str, Any]) -> str:
    where = f"{number['dataset']} {number['split']}"
    return f"{percent(number['value'])} % {number['metric']} on {where}: {number['protocol']} ({number['source']})"


def _costs(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    seconds = found["latency_seconds"]
    passes, threads = counted(found["latency_runs"], "pass", "passes"), counted(found["threads"], "thread")
    timed = f"median of {passes} on this CPU, {threads}, float32"
    time_of_a_pass = ("time of a pass", _duration(seconds), "not timed" if seconds is None else timed)
    if found["multiply_adds"] is None:
        return [("parameters", "0", "no network: it learns by counting"), time_of_a_pass]
    frozen = found["parameters"] - found["trainable_parameters"]
    return [
        ("parameters", f"{found['parameters']:,}", f"of which {frozen:,} are not trained" if frozen else "all trained"),
        (
            "multiply-adds",
            f"{found['multiply_adds'] / 1e9:.3f} G",
            f"convolutions and matrix products; {found['flops'] / 1e9:.3f} GFLOPs",
        ),
        ("memory of a pass", file_size(found["inference_bytes"]), "most tensors alive at once, weights too, float32"),
        (
            "memory of a step",
            file_size(found["training_bytes"]),
            "the same forward and backward, with gradients, without an optimiser's state",
        ),
        time_of_a_pass,
        ("receptive field", _field(found, "receptive_field"), "pixels that a cell of the backbone's last map sees"),
        ("field of view", _field(found, "field_of_view"), "pixels that one pixel of the answer can depend on"),
    ]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _field(found: Mapping[str, Any], which: str) -> str:
    if found[which] is not None:
        return "{} x {}".format(*found[which])
    return "not known" if found["not_followed"] else "whole image"


def _set(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in options.items())


def _value(value: object) -> str:
    """As it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'
