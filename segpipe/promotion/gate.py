"""The gate: may this challenger replace that champion? Pure: two evaluation reports in, a verdict with its reason out.

Called by `ledger.py`, which knows who the champion is. A gate that is unsure says no: a night without a promotion costs
nothing, a worse model in production does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from segpipe import leaderboard
from segpipe.types import EvalReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One model as verdicts and the ledger name it: the weights are what is promoted, the rest is for people."""

    arch: str
    label: str
    weights_sha256: str
    checkpoint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gate said. `champion` is who stands afterwards and `previous` who stood before (None: nobody); `delta`
    is challenger minus previous in the primary metric, None when they were not compared; `reason` is one sentence for
    a person. `name`, `number` and `at` say where the ledger holds it; a verdict of `judge` alone is not there yet."""

    outcome: Literal["promoted", "kept", "refused"]
    champion: Contender | None
    previous: Contender | None
    challenger: Contender
    delta: float | None
    reason: str
    name: str = ""
    number: int = 0
    at: str = ""


def judge(challenger: EvalReport, champion: EvalReport | None, *, floor: float, margin: float) -> Verdict:
    """The gate. Pure: the same reports give the same verdict, and no report makes it raise.

    "refused": a number is not finite, the reports are not comparable, or the first champion would be below `floor`.
    "kept": a fair comparison that the champion won, ties included. "promoted": a fair comparison that `is_better` won,
    or a first champion that reaches the floor.
    """
    previous = None if champion is None else contender(champion)
    fault = next(_faults(challenger, champion), None)
    delta = None
    if fault:
        passed, reason = False, fault
    elif champion is None:
        passed, reason = _reaches(challenger, floor)
    elif challenger.weights_sha256 == champion.weights_sha256:
        passed, reason = False, f"{_scored(challenger)} is the champion already"
    else:
        passed, reason = is_better(challenger, champion, margin)
        delta = float(_delta(challenger, champion))
    return Verdict(
        outcome="promoted" if passed else "refused" if fault or previous is None else "kept",
        champion=contender(challenger) if passed else previous,
        previous=previous,
        challenger=contender(challenger),
        delta=delta,
        reason=reason,
    )


def refuse(challenger: EvalReport, standing: Contender | None, why: str) -> Verdict:
    """The verdict on a challenger whose champion cannot be scored as it was: nothing moves, and a person decides."""
    return Verdict(
        outcome="refused",
        champion=standing,
        previous=standing,
        challenger=contender(challenger),
        delta=None,
        reason=f"not comparable: {why}",
    )


def is_better(challenger: EvalReport, champion: EvalReport, margin: float) -> tuple[bool, str]:
    """Whether the challenger's primary metric exceeds the champion's by more than `margin`, and a sentence why.

    Both reports are finite and comparable. This is the place of the paired bootstrap over their evidence.
    """
    delta = _delta(challenger, champion)
    ours, theirs = _scored(challenger), _scored(champion)
    if delta > _exact(margin):
        return True, f"{ours} beats {theirs} by {_size(delta)}, which is more than the margin of {margin:g}"
    if delta > 0:
        return False, f"{theirs} stays: {ours} is better by {_size(delta)}, not by more than the margin of {margin:g}"
    if delta == 0:
        return False, f"{theirs} stays: {ours} is equally good, and a tie keeps the champion"
    return False, f"{theirs} stays: {ours} is worse by {_size(-delta)}"


def contender(report: EvalReport) -> Contender:
    """The model that a report is about."""
    return Contender(
        arch=report.arch,
        label=report.label,
        weights_sha256=report.weights_sha256,
        checkpoint=report.checkpoint,
    )


def _reaches(first: EvalReport, floor: float) -> tuple[bool, str]:
    if first.value >= floor:
        # Said and not demanded: a floor of 0 lets the first night have a champion, whatever it has learnt.
        known = leaderboard.constant(first)
        least = f"; {known[0]} everywhere would score {known[1]:.4f}" if known else ""
        return True, f"{_scored(first)} is the first champion and reaches the floor of {floor:g}{least}"
    return False, f"{_scored(first)} would be the first champion, but is below the floor of {floor:g}"


def _faults(challenger: EvalReport, champion: EvalReport | None) -> Iterator[str]:
    """Why these reports decide nothing, one sentence each."""
    yield from _not_finite(challenger)
    if champion is None:
        return
    yield from _not_finite(champion)
    unlike = leaderboard.difference(challenger, champion)
    if unlike:
        yield f"not comparable: {unlike}"
    both = f"{challenger.label} and {champion.label}"
    if challenger.sample_ids != champion.sample_ids:
        odd = sorted(set(challenger.sample_ids) ^ set(champion.sample_ids))
        yield f"not comparable: {both} were scored on different samples ({odd[0] if odd else 'in another order'})"
    odd = sorted(set(challenger.per_class) ^ set(champion.per_class))
    if odd:
        yield f"not comparable: only one of {both} was scored on the class {odd[0]!r}"
    # No model changes the truth: other counts mean that other labels hide behind the same version.
    if challenger.truth_counts != champion.truth_counts:
        yield f"not comparable: {both} were scored on different truths, though of the same version"


def _not_finite(report: EvalReport) -> Iterator[str]:
    numbers: dict[str, float | None] = {"value": report.value, "low": report.low, "high": report.high, **report.metrics}
    for name, scores in report.per_class.items():
        numbers |= {f"{name}.{metric}": value for metric, value in scores.items()}
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            yield f"the report of {report.label} has {name} = {value}; only finite numbers can be compared"


def _delta(challenger: EvalReport, champion: EvalReport) -> Decimal:
    return _exact(challenger.value) - _exact(champion.value)


def _exact(value: float) -> Decimal:
    # In binary, 0.55 - 0.50 exceeds 0.05, and what a person reads as a tie with the margin would pass.
    return Decimal(repr(float(value)))


def _size(delta: Decimal) -> str:
    return f"{delta:.4f}" if delta >= Decimal("0.0001") else f"{delta:.1e}"


def _scored(report: EvalReport) -> str:
    return f"{report.label} ({report.primary} {report.value:.4f})"
