"""What each night came to, one record a night: written by `retrain.py`, by `promote.py` where it judges a night again,
and looked at afterwards.

The last leaderboard, the decisions, the experiments of this home. Small documents, and nothing heavy is imported: a
board must not wait for torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from segpipe import promotion, reports, storage
from segpipe.errors import ConflictError, InputError, SegpipeError
from segpipe.leaderboard import BoardRow, rank
from segpipe.promotion import Record, Verdict
from segpipe.stages import layout
from segpipe.stages.evaluations import load_report
from segpipe.stages.halving.report import BudgetReport
from segpipe.types import LATER, EvalReport

_log = logging.getLogger(__name__)
MAX_ROUNDS = 1000  # as in the ledger: so many lost races are a fault, not bad luck


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """One record of `<home>/nights/<experiment>`: enough to show the board again without looking for it.

    `outcome` is the verdict's, or "failed" when no architecture was left to judge: then there are no `evaluations`, and
    `champion` is who stands since an earlier night. `budget` is what the rungs of a night within one came to.
    """

    dataset_uri: str
    dataset_version: str
    evaluations: tuple[str, ...]
    champion: str | None
    outcome: str
    reason: str
    failures: Mapping[str, str]
    budget: BudgetReport | None = field(default=None, metadata=LATER)


def record(experiment: str, night: Night) -> bool:
    """Appends a night to those of its experiment. False, and nothing is written, when the last one says the very same.

    Nights that end in the same moment are all written, one after the other. Raises ConflictError when others come
    first without end.
    """
    folder, document = layout.nights_uri(experiment), reports.to_plain(night)
    for _ in range(MAX_ROUNDS):
        last = storage.last_record(folder)
        if last is not None and last[1] == document:
            return False
        try:
            storage.append_record(folder, document, after=last[0] if last else 0)
        except ConflictError:
            continue  # another night took this number: read its record and append after it
        return True
    raise ConflictError(
        f"{folder}: {MAX_ROUNDS} nights of others came first while this one was written down; expected to be first "
        "within a few tries. Find out who writes there without end, then run the same command again"
    )


def judged(
    experiment: str,
    verdict: Verdict,
    *,
    dataset_uri: str,
    dataset_version: str,
    evaluations: Sequence[str],
    failures: Mapping[str, str],
    budget: BudgetReport | None = None,
) -> bool:
    """Writes the record of a night, or of a later look at its models, that ended with a verdict. As `record`."""
    night = Night(
        dataset_uri=dataset_uri,
        dataset_version=dataset_version,
        evaluations=tuple(evaluations),
        champion=verdict.champion.weights_sha256 if verdict.champion else None,
        outcome=verdict.outcome,
        reason=verdict.reason,
        failures=dict(failures),
        budget=budget,
    )
    return record(experiment, night)


def failed(
    experiment: str,
    *,
    dataset_uri: str,
    dataset_version: str,
    failures: Mapping[str, str],
    budget: BudgetReport | None = None,
) -> SegpipeError:
    """Writes the record of a night without a model; gives the error that ends it. Raises as `record`."""
    standing = promotion.champion(layout.ledger_uri(experiment))
    night = Night(
        dataset_uri=dataset_uri,
        dataset_version=dataset_version,
        evaluations=(),
        champion=standing.champion.weights_sha256 if standing and standing.champion else None,
        outcome="failed",
        reason="no architecture could be trained and evaluated",
        failures=dict(failures),
        budget=budget,
    )
    record(experiment, night)
    return SegpipeError(f"{experiment}: {_told(night)}")


def board(experiment: str | None = None) -> list[BoardRow]:
    """The leaderboard of the last night of an experiment that left a model. Raises InputError when there was none.

    Later nights, in which every architecture failed, are told of in a warning.
    """
    name = chosen(experiment)
    for where, night in _newest_first(name):
        if night.evaluations:
            return rank(_reports(name, night))
        _log.warning("%s: %s; this board is of an earlier night", where, _told(night))
    raise _no_night(name)


def last(experiment: str) -> tuple[Night, list[EvalReport]]:
    """The last night of an experiment with its reports. Raises InputError when there was none or it left no model."""
    name = chosen(experiment)
    for where, night in _newest_first(name):
        if not night.evaluations:
            raise InputError(f"{where}: the last night of {name!r} left no model: {_told(night)}")
        return night, _reports(name, night)
    raise _no_night(name)


def history(experiment: str | None = None) -> list[Record]:
    """Every decision on an experiment, oldest first. Raises InputError when there is no such experiment."""
    return promotion.history(layout.ledger_uri(chosen(experiment)))


def experiments() -> list[str]:
    """Every experiment of this home of which a night is on record or that has a ledger."""
    home = layout.home()
    folders = (storage.join(home, "nights"), storage.join(home, "ledger"))
    return sorted({name for folder in folders for name in storage.list_folders(folder)})


def chosen(experiment: str | None) -> str:
    """The experiment that was named, or the only one there is."""
    known = experiments()
    if not known:
        raise InputError(
            f"{layout.home()}: no retrain has finished here; run `segpipe retrain RECIPE`, or set SEGPIPE_HOME to "
            "where one did"
        )
    if experiment is None and len(known) > 1:
        raise InputError(f"{layout.home()} holds several experiments; name one of: {', '.join(known)}")
    if experiment is not None and experiment not in known:
        raise InputError(f"{layout.home()}: no experiment {experiment!r}; there are: {', '.join(known)}")
    return experiment or known[0]


def _newest_first(experiment: str) -> Iterator[tuple[str, Night]]:
    """The records of an experiment's nights, each with its file."""
    folder = layout.nights_uri(experiment)
    last = storage.last_record(folder)
    for number in range(last[0] if last else 0, 0, -1):
        where = storage.record_uri(folder, number)
        yield where, reports.from_plain(Night, storage.read_json(where), origin=where)


def _no_night(experiment: str) -> InputError:
    return InputError(
        f"{layout.nights_uri(experiment)}: no retrain of {experiment!r} has left a model that can be shown; run "
        "`segpipe retrain` with its recipe, or look at `segpipe history`"
    )


def _told(night: Night) -> str:
    return f"{night.reason}: " + "; ".join(f"{label}: {message}" for label, message in night.failures.items())


def _reports(experiment: str, night: Night) -> list[EvalReport]:
    try:
        return [load_report(evaluation) for evaluation in night.evaluations]
    except InputError as error:
        raise InputError(
            f"{error}. The last night of {experiment!r} wrote this report: run `segpipe retrain` with the same recipe "
            "again, which scores the stored model once more"
        ) from error
