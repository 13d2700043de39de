"""Samples that an ingest left out: their list beside the dataset, and how many are too many. Part of `ingest.py`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from segpipe import reports, storage
from segpipe.config import DatasetConfig
from segpipe.errors import SegpipeError
from segpipe.types import QuarantineEntry

KNOWN_BAD = "known_bad"  # broken as published: every copy has them, so they tell nothing of this one


class QuarantineLimitError(SegpipeError):
    """More samples were bad than the recipe allows; no version was published. `entries` lists them, `notes` are those
    of the source's index, which may say why."""

    def __init__(self, message: str, entries: Sequence[QuarantineEntry], notes: Sequence[str]) -> None:
        super().__init__(message)
        self.entries, self.notes = tuple(entries), tuple(notes)

    def __reduce__(self) -> tuple[Any, ...]:
        # Crosses processes in flows: the default pickling would call __init__ with the message alone.
        return QuarantineLimitError, (str(self), self.entries, self.notes)


def keep(entries: Sequence[QuarantineEntry], uri: str) -> str | None:
    """Writes the list of bad samples below `uri`, also where it is too long to publish; its path there."""
    if not entries:
        return None
    data = json.dumps(reports.to_plain(list(entries)), indent=1, sort_keys=True).encode()
    path = f"quarantine/{storage.sha256_bytes(data)[:20]}.json"
    storage.write_once(storage.join(uri, path), data)
    return path


def refuse_above_limit(
    config: DatasetConfig, entries: Sequence[QuarantineEntry], found: int, listed: str, notes: Sequence[str]
) -> None:
    """Raises QuarantineLimitError where too many of the `found` samples are bad; those known to be count nowhere.

    A share is one of a small dataset, too: of a dozen images each bad one is a twelfth of what is learnt or scored, and
    somebody should look, once. The message says which limit takes it.
    """
    bad = [entry for entry in entries if entry.reason != KNOWN_BAD]
    known = len(entries) - len(bad)
    if not bad or (share := len(bad) / (found - known)) <= config.max_quarantine:
        return
    counts = ", ".join(f"{n} {reason}" for reason, n in Counter(e.reason for e in bad).most_common())
    besides = f", besides {known} that are known to be" if known else ""
    digits = 1 if f"{share:.1%}" != f"{config.max_quarantine:.1%}" else 2
    are = "is" if len(bad) == 1 else "are"
    raise QuarantineLimitError(
        f"{len(bad)} of {found - known} samples {are} bad{besides} ({share:.{digits}%}; the limit is "
        f"{config.max_quarantine:.{digits}%}): {counts}. First: {bad[0].file}: {bad[0].detail}. All of them: "
        f"{listed}. Mend them or raise dataset.max_quarantine (segpipe ingest: --max-quarantine) to "
        f"{math.ceil(1000 * share) / 1000:g}; nothing was published",
        entries,
        notes,
    )
