"""A person's word against the gate's: a challenger that is champion all the same, a champion that is one no more.

Both are records of the ledger like all others, with who and why, and nothing is taken out of it.
"""

from __future__ import annotations

from dataclasses import replace

from segpipe.errors import InputError
from segpipe.promotion.gate import Verdict
from segpipe.promotion.ledger import Record, append, now, standing, verdict_of


def force(ledger_uri: str, verdict: Verdict, *, who: str, why: str) -> Verdict:
    """Makes the challenger of a recorded verdict the champion, whatever the gate said of it.

    Where it is champion by now, its record is returned and nothing is written. Raises InputError without a reason.
    """
    _require_reason(why)

    def forced(log: list[Record]) -> Record:
        current = standing(log)
        if current and current.champion == verdict.challenger:
            return current if current.challenger else log[verdict.number - 1]
        return replace(
            log[verdict.number - 1],
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
    """Gives the championship back: to whom the champion of today took it from, or to the champion of record `to`.

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
        target = current.previous if to is None else log[to - 1].champion
        if target is None:
            raise InputError(
                f"{name}: {'nobody was champion before' if to is None else f'nobody is champion after record {to}'}; "
                f"name a record with one as --to (`segpipe history {name}`)"
            )
        if target == current.champion:
            raise InputError(f"{name}: {target.label} of record {to} is champion already")
        promoted = next(record for record in log if record.champion == target)
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
            delta=None,
            reason=f"{gone} was taken back to {target.label} (record {promoted.number}) by {who}: {why}",
            comparison=None,
            changes=(),
        )

    return append(ledger_uri, back)


def _require_reason(why: str) -> None:
    if not why.strip():
        raise InputError("why: expected a sentence; who reads the ledger next year will want to know")
