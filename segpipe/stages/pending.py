"""What MLflow was not shown because it was down or refused: one small record each, shown by a later `mirror.reconcile`.

Below `mirror.py`, which writes and drains them. A record names our own files, or repeats what is small. Its name says
when it was left, for the order, and its content's hash, so that saying the same twice leaves one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from segpipe import reports, storage
from segpipe.errors import SegpipeError
from segpipe.leaderboard import BoardRow
from segpipe.promotion import Verdict
from segpipe.stages import layout
from segpipe.types import TrainResult

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingRun:
    """One trained and evaluated architecture. `recipe` and `run`, a resolved one, are configs as plain data;
    `parent_key` is the key of its night's run."""

    recipe: Mapping[str, Any]
    run: Mapping[str, Any]
    result: TrainResult
    evaluation_uri: str
    data: str
    parent_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingVerdict:
    """What the ledger decided in a night, and the night's board. `parent_key` is None for a verdict without a run."""

    verdict: Verdict
    board: tuple[BoardRow, ...]
    parent_key: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingPages:
    """Where a night's pages lie in the home: the challenger's `card` and the page of all models, None where one was not
    made. `dataset_version` and `parent_key` name the night's run; None for pages without one."""

    weights_sha256: str
    dataset_version: str
    card: str | None
    side_by_side: str | None
    parent_key: str | None


Record = PendingRun | PendingVerdict | PendingPages
# A verdict is shown with the versions of its runs, and pages beside both.
_BEGINNINGS: dict[type[Record], str] = {PendingRun: "run-", PendingVerdict: "verdict-", PendingPages: "pages-"}


def leave(experiment: str, record: Record) -> bool:
    """Writes the record. False, with the reason in the log, when it cannot be written: the night goes on."""
    try:
        document = reports.to_plain(record)
        beginning = _BEGINNINGS[type(record)]
        ending = f"-{layout.key(storage.canonical_json(document).decode())}.json"
        if any(file.endswith(ending) for file in _files(experiment, beginning)):
            return True
        name = f"{beginning}{datetime.now(UTC):%Y%m%dT%H%M%S.%f}{ending}"
        storage.write_json_once(storage.join(layout.pending_uri(experiment), name), document)
    except SegpipeError as error:
        _log.warning("what MLflow of %s misses could not be written down either: %s", experiment, error)
        return False
    return True


def files(experiment: str) -> list[str]:
    """Where the records lie, in the order in which they are shown: runs, verdicts, pages, of each the oldest first."""
    return [place for kind in _BEGINNINGS.values() for place in _files(experiment, kind)]


def read(uri: str) -> Record:
    """One record. Raises CorruptError for what is none."""
    name = uri.rpartition("/")[2]
    kind = next(kind for kind, beginning in _BEGINNINGS.items() if name.startswith(beginning))
    return reports.from_plain(kind, storage.read_json(uri), origin=uri)


def _files(experiment: str, beginning: str) -> list[str]:
    folder = layout.pending_uri(experiment)
    names = storage.list_names(folder, suffix=".json")
    return [storage.join(folder, name) for name in names if name.startswith(beginning)]
