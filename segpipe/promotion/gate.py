"""The gate: may this challenger replace that champion? Pure: two evaluation reports in, a verdict with its reason out.

Called by `ledger.py`, which knows who the champion is. A gate that is unsure says no: a night without a promotion costs
nothing, a worse model in production does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal

from segpipe import leaderboard
from segpipe.promotion.comparison import (
    LEAST_IMAGES,
    Comparison,
    changes,
    compare,
    evidence_faults,
    evidence_unlike,
)
from segpipe.types import LATER, ClassScores, EvalReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One model as verdicts and the ledger name it: the weights are what is promoted, the rest is for people."""

    arch: str
    label: str
    weights_sha256: str
    checkpoint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What is asked of a challenger, in shares of 1.

    The first champion must reach `floor`. A challenger must surely be better by more than `margin`, and no class may
    fall by more than `max_fall` (None: any may), or than what `max_falls` says of it.
    """

    floor: float = 0.0
    margin: float = 0.0
    max_fall: float | None = None
    max_falls: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gate said; "forced" is what a person decided against it.

    `champion` is who stands afterwards and `previous` who stood before (None: nobody); `delta` is challenger minus
    previous in the primary metric, None when they were not compared; `reason` is one sentence for a person.
    `comparison` says how sure the difference is, `changes` what became of every class. `name`, `number` and `at` say
    where the ledger holds it; a verdict of `judge` alone is not there yet.
    """

    outcome: Literal["promoted", "kept", "refused", "forced"]
    champion: Contender | None
    previous: Contender | None
    challenger: Contender
    delta: float | None
    reason: str
    name: str = ""
    number: int = 0
    at: str = ""
    comparison: Comparison | None = field(default=None, metadata=LATER)
    changes: tuple[ClassScores, ...] = field(default=(), metadata=LATER)


def judge(challenger: EvalReport, champion: EvalReport | None, rules: Rules) -> Verdict:
    """The gate. Pure: the same reports give the same verdict, and no report makes it raise.

    "refused": a number is not finite, the reports are not comparable, their evidence is not what their scores were made
    of, or the first champion would be below the floor. "kept": a fair comparison in which the challenger is not surely
    better by the margin (a tie keeps the champion), or in which a class falls too far. "promoted": it is, and none
    does; or a first champion that reaches the floor.
    """
    previous = None if champion is None else contender(champion)
    fault = next(_faults(challenger, champion), None)
    comparison: Comparison | None = None
    found: tuple[ClassScores, ...] = ()
    if fault:
        passed, reason = False, fault
    elif champion is None:
        passed, reason = _reaches(challenger, rules.floor)
    elif challenger.weights_sha256 == champion.weights_sha256:
        passed, reason = False, f"{_scored(challenger)} is the champion already"
    else:
        comparison, found = compare(challenger, champion), changes(challenger, champion)
        passed, reason = _is_better(challenger, champion, comparison, found, rules)
    return Verdict(
        outcome="promoted" if passed else "refused" if fault or previous is None else "kept",
        champion=contender(challenger) if passed else previous,
        previous=previous,
        challenger=contender(challenger),
        delta=None if comparison is None or champion is None else float(_delta(challenger, champion)),
        reason=reason,
        comparison=comparison,
        changes=found,
    )


def refuse(challenger: EvalReport, standing: Contender | None, why: str) -> Verdict:
    """The verdict on a challenger that cannot be judged: nothing moves, and a person decides."""
    return Verdict(
        outcome="refused",
        champion=standing,
        previous=standing,
        challenger=contender(challenger),
        delta=None,
        reason=why,
    )


def doubt(verdict: Verdict, flattery: str) -> Verdict:
    """The verdict of a comparison in which the champion was scored on what it had seen: one who wins against that has
    won, and of one who does not, nothing is known."""
    if verdict.outcome == "promoted":
        return replace(verdict, reason=f"{verdict.reason}, though {flattery}")
    return replace(verdict, outcome="refused", reason=f"not comparable: {flattery}. Else: {verdict.reason}")


def object_to(verdict: Verdict, objection: str) -> Verdict:
    """The verdict on a challenger that has won, and may not be champion all the same."""
    return replace(verdict, outcome="refused", champion=verdict.previous, reason=f"{objection}. Else: {verdict.reason}")


def _is_better(
    challenger: EvalReport,
    champion: EvalReport,
    comparison: Comparison,
    found: tuple[ClassScores, ...],
    rules: Rules,
) -> tuple[bool, str]:
    """Whether the challenger takes over, and a sentence why."""
    delta, margin = _delta(challenger, champion), _exact(rules.margin)
    ours, theirs = _scored(challenger), _scored(champion)
    interval = f"95 % interval {comparison.low:+.4f} to {comparison.high:+.4f}"
    better = f"{theirs} stays: {ours} is better by {_size(delta)} ({interval})"
    if delta == 0:
        return False, f"{theirs} stays: {ours} is equally good, and a tie keeps the champion"
    if delta < 0:
        return False, f"{theirs} stays: {ours} is worse by {_size(-delta)} ({interval})"
    if delta <= margin:
        return False, f"{better}, not by more than the margin of {rules.margin:g}"
    if challenger.num_samples < LEAST_IMAGES:
        return (
            False,
            f"{better}, but {challenger.num_samples} images, fewer than {LEAST_IMAGES}, cannot tell that from luck",
        )
    if comparison.low <= rules.margin:
        return False, f"{better}, but not surely by more than the margin of {rules.margin:g}"
    for change in found:
        limit = rules.max_falls.get(change.name, rules.max_fall)
        if limit is not None and change.delta is not None and -change.delta > limit:
            fell = f"{change.name} falls from {change.champion:.4f} to {change.challenger:.4f}"
            return False, f"{better}, but {fell}, by more than the {limit:g} that it may"
    return (
        True,
        f"{ours} beats {theirs} by {_size(delta)} ({interval}), surely more than the margin of {rules.margin:g}",
    )


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
    reports = [report for report in (challenger, champion) if report is not None]
    for report in reports:
        yield from _not_finite(report)
    if champion is not None:
        yield from _unlike(challenger, champion)
    for report in reports:
        yield from evidence_faults(report)
    if champion is not None:
        yield from (f"not comparable: {unlike}" for unlike in evidence_unlike(challenger, champion))


def _unlike(challenger: EvalReport, champion: EvalReport) -> Iterator[str]:
    """What two reports answer differently, though it is one question."""
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
    if challenger.classes != champion.classes or set(champion.per_class) != set(champion.classes):
        yield f"not comparable: {both} do not have the scores of the same classes in the same order"
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
