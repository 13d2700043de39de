"""The ledger: an append-only folder of numbered JSON records that says who is champion, since when and why.

Each record is written create-if-absent, and that is the compare-and-set: whoever loses the race for a number reads the
new head and is judged again, against *that* champion. A registry alias has no such step (two promoters that read,
compare and set leave the worse model in place), so the ledger decides and an alias only follows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from typing import Literal

from segpipe import storage
from segpipe.errors import ConflictError, CorruptError, IncomparableError
from segpipe.promotion.comparison import Comparison
from segpipe.promotion.gate import Contender, Rules, Verdict, doubt, judge, object_to, refuse
from segpipe.promotion.proof import Proof
from segpipe.reports import from_plain, to_plain
from segpipe.types import LATER, ClassScores, EvalReport

# Every lost race means that somebody else's record was written: so many losses are a fault, not bad luck.
MAX_ROUNDS = 1000
# The kinds of record that make a champion; the others only say that one stays.
MOVES = ("promoted", "forced", "rollback")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What both sides were scored on."""

    dataset: str
    dataset_version: str
    split: str
    protocol: str
    primary: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A report in short: the primary metric in 0..1 with its interval. What was not finite is None."""

    value: float | None
    low: float | None
    high: float | None
    metrics: Mapping[str, float | None]
    num_samples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One entry of the ledger, as stored: a verdict, where it stands and what it rests on.

    `champion` stands from here on, `previous` stood before; `previous_score` is None where nobody did, or was not
    scored. `at` is UTC in ISO 8601. "forced" and "rollback" are a person's decisions (`overrule.py`), with what is
    known of them: the rules and scores by which a forced champion was judged, or with which the champion of a rollback
    was promoted; a rollback has no challenger. `proof` is what was found of a challenger that had won.
    """

    number: int
    kind: Literal["promoted", "kept", "refused", "forced", "rollback"]
    name: str
    who: str
    at: str
    champion: Contender | None
    previous: Contender | None
    challenger: Contender | None
    delta: float | None
    reason: str
    evaluation: Evaluation
    challenger_score: Score
    previous_score: Score | None
    floor: float
    margin: float
    code_version: str
    max_fall: float | None = field(default=None, metadata=LATER)
    max_falls: Mapping[str, float] | None = field(default=None, metadata=LATER)
    comparison: Comparison | None = field(default=None, metadata=LATER)
    changes: tuple[ClassScores, ...] = field(default=(), metadata=LATER)
    proof: Proof | None = field(default=None, metadata=LATER)


def decide(
    ledger_uri: str,
    challenger: EvalReport,
    champion_report_of: Callable[[Record], EvalReport],
    *,
    flattery_of: Callable[[EvalReport], str],
    proof_of: Callable[[EvalReport], Proof],
    name: str,
    who: str,
    rules: Rules,
) -> Verdict:
    """Judges the challenger against the ledger's champion and records the verdict; safe with any number of promoters.

    `champion_report_of(record)` scores the champion that stands since `record` on the challenger's dataset version. It
    is called once per champion: again only when another promoter has won the race with a new one. When it raises
    IncomparableError, the challenger is refused in its words. `flattery_of(its report)` says why the champion's score
    is too good, "" where it is not: a challenger that does not win all the same is refused. `proof_of(challenger)` is
    asked once, of one that has won, and may refuse it. The same pair on the same evaluation by the same rules is judged
    once: asked again, the recorded verdict is returned, nothing is written. Only what spoke against a proof is looked
    at again, as it may be mended by now.
    """
    reports = {challenger.weights_sha256: challenger}
    prove = cache(lambda: proof_of(challenger))

    def judged(log: list[Record]) -> Record:
        current = standing(log)
        known = _judged_before(log, current, challenger, rules)
        if known and not (known.kind == "refused" and known.proof):
            return known
        opponent, stands, proof = None, current.champion if current else None, None
        waits = _waits(log, challenger)
        try:
            if current and not waits:
                weights = champion_weights(current)
                if weights not in reports:
                    reports[weights] = _champion_report(champion_report_of, current, ledger_uri)
                opponent = reports[weights]
            verdict = refuse(challenger, stands, waits) if waits else judge(challenger, opponent, rules)
        except IncomparableError as error:
            verdict = refuse(challenger, stands, f"not comparable: {error}")
        if opponent and verdict.comparison and (flattery := flattery_of(opponent)):
            verdict = doubt(verdict, flattery)
        if verdict.outcome == "promoted" and (proof := prove()).objection:
            verdict = object_to(verdict, proof.objection)
        if known and known.reason == verdict.reason:
            return known
        record = _record(len(log) + 1, verdict, challenger, opponent, name=name, who=who, rules=rules)
        return replace(record, proof=proof)

    return verdict_of(append(ledger_uri, judged))


def append(ledger_uri: str, next_record: Callable[[list[Record]], Record]) -> Record:
    """Appends what `next_record(log)` makes of the ledger as it is, however many others append at the same time; one
    that is there already is not written again. Returns the record."""
    for _ in range(MAX_ROUNDS):
        log = history(ledger_uri)
        record = next_record(log)
        if record.number <= len(log):
            return record
        try:
            storage.append_record(ledger_uri, to_plain(record), after=len(log))
        except ConflictError:
            continue  # another promoter took this number: read its record and decide again
        return record
    raise ConflictError(
        f"{ledger_uri}: {MAX_ROUNDS} records of others came first while this one was written; expected to be first "
        "within a few tries. Find out who writes to this ledger without end, then do the same again"
    )


def _record(
    number: int,
    verdict: Verdict,
    challenger: EvalReport,
    opponent: EvalReport | None,
    *,
    name: str,
    who: str,
    rules: Rules,
) -> Record:
    return Record(
        number=number,
        kind=verdict.outcome,
        name=name,
        who=who,
        at=now(),
        champion=verdict.champion,
        previous=verdict.previous,
        challenger=verdict.challenger,
        delta=verdict.delta,
        reason=verdict.reason,
        evaluation=_evaluation(challenger),
        challenger_score=_score(challenger),
        previous_score=_score(opponent) if opponent else None,
        floor=rules.floor,
        margin=rules.margin,
        code_version=challenger.code_version,
        max_fall=rules.max_fall,
        max_falls=rules.max_falls,
        comparison=verdict.comparison,
        changes=verdict.changes,
    )


def champion(ledger_uri: str) -> Record | None:
    """The record since which today's champion stands: its promotion, or the rollback to it. None: no champion yet."""
    return standing(history(ledger_uri))


def history(ledger_uri: str) -> list[Record]:
    """Every record in order; none for a ledger that does not exist. Raises CorruptError for what is not a record."""
    log = []
    for number, document in storage.records(ledger_uri):
        origin = storage.record_uri(ledger_uri, number)
        record = from_plain(Record, document, origin=origin)
        if record.number != number:
            raise CorruptError(f"{origin}: says that it is record {record.number}, expected {number}; restore the file")
        if record.kind in MOVES and record.champion is None:
            raise CorruptError(f"{origin}: a {record.kind} record without a champion; expected one; restore the file")
        log.append(record)
    return log


def standing(log: Sequence[Record]) -> Record | None:
    """As `champion`, of a log at hand."""
    return next((record for record in reversed(log) if record.kind in MOVES), None)


def now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def taken_back(log: Sequence[Record], weights_sha256: str) -> Record | None:
    """The rollback since which these weights wait for a person: they were champion, and somebody took them back. None
    where nobody did, or made them champion again since."""
    for record in reversed(log):
        if record.kind in MOVES and champion_weights(record) == weights_sha256:
            return None
        if record.kind == "rollback" and record.previous and record.previous.weights_sha256 == weights_sha256:
            return record
    return None


def _waits(log: Sequence[Record], challenger: EvalReport) -> str:
    """Why this challenger waits for a person, in a sentence; empty where it does not."""
    back = taken_back(log, challenger.weights_sha256)
    if back is None:
        return ""
    return (
        f"{challenger.label} was champion and is so no more since record {back.number}: {back.reason}. "
        "`segpipe promote --force --why ...` brings it back"
    )


def champion_weights(record: Record | None) -> str:
    """The weights that stand after a record; empty when nobody does."""
    return record.champion.weights_sha256 if record and record.champion else ""


def _judged_before(
    log: Sequence[Record], current: Record | None, challenger: EvalReport, rules: Rules
) -> Record | None:
    """The record that holds the answer to this very question already, if there is one.

    It made the challenger the champion that stands, or it left the one that stands in place: that binds only the same
    scores. The report may have been what was faulty, or other code has scored the model since.
    """
    for record in reversed(log):
        if record.challenger is None or record.challenger.weights_sha256 != challenger.weights_sha256:
            continue
        if record.evaluation != _evaluation(challenger) or _rules(record) != rules:
            continue
        made_it = record.kind in MOVES and record is current
        same_champion = record.kind not in MOVES and champion_weights(record) == champion_weights(current)
        if made_it or (same_champion and record.challenger_score == _score(challenger)):
            return record
    return None


def _rules(record: Record) -> Rules | None:
    """By what a verdict was found; None of one of the time before images were compared, whose file has no limits of
    falls."""
    if record.max_falls is None:
        return None
    return Rules(floor=record.floor, margin=record.margin, max_fall=record.max_fall, max_falls=dict(record.max_falls))


def _champion_report(score: Callable[[Record], EvalReport], current: Record, ledger_uri: str) -> EvalReport:
    report = score(current)
    if report.weights_sha256 != champion_weights(current):
        raise CorruptError(
            f"{report.checkpoint}: this report is of the weights {report.weights_sha256}; expected those of the "
            f"champion, {champion_weights(current)}: evaluate the checkpoint that record {current.number} of "
            f"{ledger_uri} names"
        )
    return report


def verdict_of(record: Record) -> Verdict:
    """A record with a challenger as the gate's verdict."""
    shared = {f.name: getattr(record, f.name) for f in fields(Verdict) if f.name != "outcome"}
    return Verdict(outcome=record.kind, **shared)  # type: ignore[arg-type]


def _evaluation(report: EvalReport) -> Evaluation:
    return Evaluation(
        dataset=report.dataset,
        dataset_version=report.dataset_version,
        split=report.split,
        protocol=report.protocol,
        primary=report.primary,
    )


def _score(report: EvalReport) -> Score:
    return Score(
        value=_finite(report.value),
        low=_finite(report.low),
        high=_finite(report.high),
        metrics={name: _finite(value) for name, value in report.metrics.items()},
        num_samples=report.num_samples,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
