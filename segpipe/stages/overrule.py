"""Stage 4, by a person's hand: a challenger is champion whatever the gate said, or a champion is one no more."""

from __future__ import annotations

from segpipe import promotion
from segpipe.promotion import Record, Verdict
from segpipe.stages import layout, mirror
from segpipe.stages.nights import chosen
from segpipe.user import current_user


def force(verdict: Verdict, why: str) -> Verdict:
    """Makes the challenger of a recorded verdict the champion, in the ledger and then in MLflow.

    Raises InputError without a reason.
    """
    forced = promotion.force(layout.ledger_uri(verdict.name), verdict, who=current_user(), why=why)
    mirror.reconcile(verdict.name)
    return forced


def roll_back(experiment: str | None, why: str, *, to: int | None = None) -> Record:
    """Gives the championship of an experiment (the only one of the home, where none is named) back to whom it was taken
    from, or to the champion of the ledger's record `to`; MLflow's alias follows.

    Raises InputError without a reason, or where there is nobody to go back to.
    """
    name = chosen(experiment)
    record = promotion.roll_back(layout.ledger_uri(name), name=name, who=current_user(), why=why, to=to)
    mirror.reconcile(name)
    return record
