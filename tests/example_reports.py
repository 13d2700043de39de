"""Small evaluation reports for the tests of everything that reads them."""

from dataclasses import replace
from typing import Any

from segpipe.types import EvalReport, Task


def eval_report(**changes: Any) -> EvalReport:
    """A small, valid report: two classes, two images; `changes` replace fields."""
    report = EvalReport(
        experiment="camvid",
        arch="unet",
        label="unet_small",
        task=Task.SEMANTIC,
        dataset="camvid",
        dataset_version="v1",
        split="test",
        protocol="p",
        primary="miou",
        value=0.5,
        low=0.4,
        high=0.6,
        metrics={"miou": 0.5, "dice": None},
        per_class={"sky": {"iou": 0.5}, "car": {"iou": None}},
        confusion=((3, 1), (0, 4)),
        sample_ids=("a", "b"),
        groups=("g", "g"),
        sample_counts=(((1, 2, 2), (2, 2, 3)), ((2, 2, 2), (2, 2, 2))),
        num_samples=2,
        parameters=10,
        checkpoint="runs/unet",
        weights_sha256="ab",
        config_digest="cd",
        code_version="0.1.0",
        seconds=1.0,
    )
    return replace(report, **changes)


def scored(value: float, label: str = "", **changes: Any) -> EvalReport:
    """A report of a model of its own, named and hashed by its label, with this primary value."""
    label = label or f"m{value}"
    return eval_report(value=value, label=label, weights_sha256=f"sha-{label}", checkpoint=f"runs/{label}", **changes)
