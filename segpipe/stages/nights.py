"""What earlier nights left to look at: the last leaderboard, the decisions, the experiments of this home.

Reads small documents and imports nothing heavy: a board must not wait for torch. `retrain.py` writes what is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segpipe import promotion, reports, storage
from segpipe.errors import InputError
from segpipe.leaderboard import BoardRow, rank
from segpipe.promotion import Record
from segpipe.stages import layout
from segpipe.types import EvalReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """One record of `<home>/nights/<experiment>`: enough to show the board again without looking for it."""

    dataset_uri: str
    dataset_version: str
    evaluations: tuple[str, ...]
    champion: str | None
    outcome: str
    reason: str
    failures: Mapping[str, str]


def board(experiment: str | None = None) -> list[BoardRow]:
    """The leaderboard of the last night of an experiment. Raises InputError when there was none."""
    return rank(last_reports(experiment))


def last_reports(experiment: str | None = None) -> list[EvalReport]:
    """Every report of the last night of an experiment. Raises InputError when there was none."""
    chosen = _chosen(experiment)
    folder = layout.nights_uri(chosen)
    last = storage.last_record(folder)
    if last is None:
        raise InputError(
            f"{folder}: models of {chosen!r} were promoted, but no retrain has finished; run `segpipe retrain` with "
            "its recipe, or look at `segpipe history`"
        )
    number, document = last
    night = reports.from_plain(Night, document, origin=storage.record_uri(folder, number))
    return [_report(evaluation) for evaluation in night.evaluations]


def history(experiment: str | None = None) -> list[Record]:
    """Every decision on an experiment, oldest first. Raises InputError when there is no such experiment."""
    return promotion.history(layout.ledger_uri(_chosen(experiment)))


def experiments() -> list[str]:
    """Every experiment of this home that has finished a retrain or has a ledger."""
    home = layout.home()
    folders = (storage.join(home, "nights"), storage.join(home, "ledger"))
    return sorted({path.split("/")[0] for folder in folders for path in storage.list_tree(folder, suffix=".json")})


def _chosen(experiment: str | None) -> str:
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


def _report(evaluation: str) -> EvalReport:
    path = storage.join(evaluation, "report.json")
    return reports.from_plain(EvalReport, storage.read_json(path), origin=path)
