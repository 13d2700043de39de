"""One architecture as people read it: its figure, what it costs and sees, what others published, where it departs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from segpipe.cli.drawing import percent, say, table
from segpipe.stages.numbers import counted, file_size


def architecture(console: Console, entry: Mapping[str, Any]) -> None:
    """What `stages.catalogue.model` gives."""
    found = entry["profile"]
    say(console, f"{entry['name']}: {entry['paper']}", "bold")
    say(console, f"for {', '.join(entry['tasks'])}")
    if entry["drawing"]:
        say(console, f"\n{entry['drawing']}\n")
    options = [(key, _value(value), _value(found["options"][key])) for key, value in entry["options"].items()]
    table(console, "Options", ("option", "default", "here"), options)
    height, width = found["size"]
    title = f"Cost of one image of {height}x{width} with {counted(found['num_classes'], 'class', 'classes')}"
    table(console, title, ("what", "value", "how"), _costs(found))
    if found["not_followed"]:
        say(console, f"not followed, so that the whole of a map was taken: {', '.join(found['not_followed'])}")
    if entry["counted"]:
        counts = [(f"{c['parameters']:,}", c["num_classes"], _set(c["options"]), c["source"]) for c in entry["counted"]]
        table(console, "Parameters as others count them", ("parameters", "classes", "options", "source"), counts)
    if entry["published"]:
        numbers = [
            (p["dataset"], p["split"], p["metric"], percent(p["value"]), p["protocol"], p["source"])
            for p in entry["published"]
        ]
        columns = ("dataset", "split", "metric", "%", "protocol", "source")
        table(console, "Published (not measured here)", columns, numbers)
    say(console, "Departures from the paper", "italic")
    for text in entry["differs"]:
        say(console, f"  - {text}")


def _costs(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    seconds, threads = found["latency_seconds"], counted(found["threads"], "thread")
    timed = f"median of {counted(found['latency_runs'], 'pass', 'passes')} on this CPU, {threads}, float32"
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
        ("seconds of a pass", "-" if seconds is None else f"{seconds:.3f}", "not timed" if seconds is None else timed),
        ("receptive field", _field(found["receptive_field"]), "pixels that a cell of the backbone's last map sees"),
        ("field of view", _field(found["field_of_view"]), "pixels that one pixel of the answer can depend on"),
    ]


def _field(extent: Sequence[int] | None) -> str:
    return "whole image" if extent is None else f"{extent[0]} x {extent[1]}"


def _set(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in options.items()) or "-"


def _value(value: object) -> str:
    """As it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'
