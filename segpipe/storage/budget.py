"""How long the reads of one pass over a dataset may wait for a store that falters, all of them together.

One operation has its own budget (`object_store.RETRY_SECONDS`). Without a common one an epoch of 10,000 reads on a
store that fails every second request would take days and never say why.
"""

from __future__ import annotations

import threading

EPOCH_RETRY_SECONDS = 600.0


class RetryBudget:
    """Counts what was lost to retries: failed tries and the pauses after them, in seconds. Safe to share by threads."""

    def __init__(self, seconds: float | None = None) -> None:
        self.limit = EPOCH_RETRY_SECONDS if seconds is None else seconds
        self.retries, self.spent = 0, 0.0
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def spend(self, seconds: float) -> bool:
        """Whether one more retry that costs `seconds` may be made; counted if so."""
        with self._lock:
            if self._closed.is_set() or self.spent + seconds > self.limit:
                return False
            self.retries, self.spent = self.retries + 1, self.spent + seconds
            return True

    def pause(self, seconds: float) -> None:
        """Sleeps, but no longer than until `close`."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """Ends every pause and grants no retry from now on: nobody waits for these reads any more."""
        self._closed.set()

    def __str__(self) -> str:
        if self._closed.is_set():
            return "the reader was closed meanwhile"
        return f"the reads of this pass lost {self.spent:.0f} of {self.limit:.0f} s to {self.retries} retries"
