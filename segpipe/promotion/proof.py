"""What is asked of a challenger beside its score, once it has won: was it scored on what it was trained on, and do its
bytes, loaded afresh, say what was scored? Who finds that out stands above (`stages/proofs.py`); the ledger keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What was found of a challenger that had won its comparison.

    `objection` is why it may not be champion all the same, a sentence without an end; None: nothing. `data` is the URI
    of the dataset on which it was scored. `bytes_of` says whose bytes answered in a fresh process: those of the
    registry, or while that was down those of the run's folder; None where it did not come so far. `images` are the
    samples that they were asked about, `answers_sha256` the hash of what they said, as canonical JSON.
    """

    objection: str | None
    data: str
    bytes_of: Literal["registry", "run"] | None
    images: tuple[str, ...] = ()
    answers_sha256: str | None = None
