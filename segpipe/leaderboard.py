"""Evaluation reports as one ranked table. Pure; standard library only.

Stands between `evaluate.py`, which writes the reports, and `promotion/`, which judges the first row. Numbers are put
side by side only when they answer the same question: everything in `SAME` must be equal, or nothing is ranked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segpipe.errors import InputError, NonFiniteError
from segpipe.types import EvalReport

# What two reports must have in common to be compared at all.
SAME = ("task", "dataset_version", "split", "protocol", "primary", "scored_by")


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardRow:
    """One line of the leaderboard. `value`, `low` and `high` are the primary metric and its 95 % interval, 0..1;
    `seconds` is how long the evaluation took; `rank` starts at 1. The last two are what `constant` gives."""

    rank: int
    arch: str
    label: str
    primary: str
    value: float
    low: float
    high: float
    parameters: int
    seconds: float
    dataset_version: str
    split: str
    protocol: str
    checkpoint: str
    weights_sha256: str
    constant_class: str | None
    constant_value: float | None


def rank(reports: Sequence[EvalReport]) -> list[BoardRow]:
    """The reports as rows, best first: higher value, then fewer parameters, then label; none for none.

    Raises InputError when two reports are not comparable and NonFiniteError when a value is NaN or infinite.
    """
    for report in reports:
        require_comparable(reports[0], report)
        if not math.isfinite(report.value):
            raise NonFiniteError(
                f"{report.checkpoint} ({report.label}): {report.primary} is {report.value}; expected a finite number: "
                "a model that scores no number has no rank, so train it again or leave it out"
            )
    ordered = sorted(reports, key=lambda report: (-report.value, report.parameters, report.label, report.checkpoint))
    return [_row(place, report) for place, report in enumerate(ordered, start=1)]


def constant(report: EvalReport) -> tuple[str, float] | None:
    """The most frequent class of the truth, and what predicting it everywhere would score: a model that is not above
    that has learnt nothing. None for a metric other than mIoU, or where nothing is labelled.

    Its IoU is its share of the labelled pixels; that of every other class that occurs is 0, and the rest do not count.
    """
    truth = report.truth_counts
    if report.primary != "miou" or not sum(truth):
        return None
    most = max(truth)
    return report.classes[truth.index(most)], most / sum(truth) / sum(count > 0 for count in truth)


def difference(first: EvalReport, second: EvalReport) -> str | None:
    """The first field of `SAME` in which two reports differ, with both values and labels; None if they compare."""
    for name in SAME:
        left, right = getattr(first, name), getattr(second, name)
        if left != right:
            return f"{name} is {str(left)!r} for {first.label} and {str(right)!r} for {second.label}"
    return None


def require_comparable(first: EvalReport, second: EvalReport) -> None:
    """Raises InputError, naming the field and both values, unless the two reports may be compared."""
    found = difference(first, second)
    if found:
        raise InputError(
            f"{second.checkpoint}: these reports cannot be compared: {found}; expected the same {', '.join(SAME)}. "
            "Evaluate both on the same dataset version and split with this version of segpipe"
        )


def _row(place: int, report: EvalReport) -> BoardRow:
    name, value = constant(report) or (None, None)
    return BoardRow(
        rank=place,
        arch=report.arch,
        label=report.label,
        primary=report.primary,
        value=report.value,
        low=report.low,
        high=report.high,
        parameters=report.parameters,
        seconds=report.seconds,
        dataset_version=report.dataset_version,
        split=report.split,
        protocol=report.protocol,
        checkpoint=report.checkpoint,
        weights_sha256=report.weights_sha256,
        constant_class=name,
        constant_value=value,
    )
