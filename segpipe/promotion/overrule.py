"""A person's word against the gate's: a challenger that is champion all the same, a champion that is one no more.

Both are records of the ledger like all others, with who and why, and nothing is taken out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segpipe.errors import InputError
from segpipe.promotion.gate import Contender, Verdict
from segpipe.promotion.ledger import MOVES, Record, append, champion_weights, now, standing, taken_back, verdict_of


def force(ledger_uri: str, verdict: Verdict, *, who: str, why: str) -> Verdict:
    """Makes the challenger of a recorded verdict the champion, whatever the gate said of it.

    Where it is champion by now, its record is returned and nothing is written. Where another champion stands than the
    one that it was compared with, that comparison is not told of the two. Raises InputError without a reason.
    """
    _require_reason(why)

    def forced(log: list[Record]) -> Record:
        current, judged = standing(log), log[verdict.number - 1]
        if champion_weights(current) == verdict.challenger.weights_sha256:
            return current if current and current.challenger else judged
        met = judged.previous.weights_sha256 if judged.previous else ""
        if met != champion_weights(current):
            judged = replace(judged, delta=None, previous_score=None, comparison=None, changes=())
        return replace(
            judged,
            number=len(log) + 1,
            kind="forced",
            who=who,
            at=now(),
            champion=verdict.challenger,
            previous=current.champion if current else None,
            reason=f"{verdict.challenger.label} was made champion by {who}: {why}. The gate had said: {verdict.reason}",
        )

    return verdict_of(append(ledger_uri, forced))


def roll_back(ledger_uri: str, *, name: str, who: str, why: str, to: int | None = None) -> Record:
    """Gives the championship back: to the last champion before today's was made one, leaving out those who were taken
    back themselves; or to the champion of record `to`.

    The gate does not promote the weights that were taken back again by itself. Raises InputError without a reason,
    without anybody to go back to, and where `to` names no other champion.
    """
    _require_reason(why)

    def back(log: list[Record]) -> Record:
        current = standing(log)
        if current is None:
            raise InputError(f"{name}: has no champion, so there is nothing to take back")
        if to is not None and not 1 <= to <= len(log):
            raise InputError(
                f"{name}: the ledger has no record {to}; expected 1 to {len(log)} (`segpipe history {name}`)"
            )
        target = _before(log, current) if to is None else log[to - 1].champion
        if target is None:
            nobody = "was champion before who was not taken back" if to is None else f"is champion after record {to}"
            raise InputError(
                f"{name}: nobody {nobody}; name a record with a champion as --to (`segpipe history {name}`)"
            )
        if target.weights_sha256 == champion_weights(current):
            raise InputError(f"{name}: {target.label} of record {to} is champion already")
        promoted = _made(log, target.weights_sha256)
        gone = current.champion.label if current.champion else "the champion"
        return replace(
            promoted,
            number=len(log) + 1,
            kind="rollback",
            who=who,
            at=now(),
            champion=target,
            previous=current.champion,
            challenger=None,
            previous_score=None,
            delta=None,
            reason=f"{gone} was taken back to {target.label} (record {promoted.number}) by {who}: {why}",
            comparison=None,
            changes=(),
        )

    return append(ledger_uri, back)


def _before(log: Sequence[Record], current: Record) -> Contender | None:
    """The last champion before today's was made one, but for those who were taken back."""
    today = champion_weights(current)
    for record in reversed(log[: _made(log, today).number - 1]):
        weights = champion_weights(record)
        if record.kind in MOVES and weights != today and taken_back(log, weights) is None:
            return record.champion
    return None


def _made(log: Sequence[Record], weights_sha256: str) -> Record:
    """The record that made these weights champion the last time, by the gate or by force."""
    made = ("promoted", "forced")
    return next(each for each in reversed(log) if each.kind in made and champion_weights(each) == weights_sha256)


def _require_reason(why: str) -> None:
    if not why.strip():
        raise InputError("why: expected a sentence; who reads the ledger next year will want to know")
