"""How long the reads of one pass over a dataset may wait for a store that falters, all of them together.

One operation has its own budget (`object_store.RETRY_SECONDS`). Without a common one an epoch of 10,000 reads on a
store that fails every second request would take days and never say why.
"""

from __future__ import annotations

import threading

EPOCH_RETRY_SECONDS = 600.0


class RetryBudget:
    """Counts the seconds by the clock in which at least one read was failing: from the start of a failed try to the end
    of the pause after it. Thirty-two reads that meet one outage lose it once and not thirty-two times.

    Safe to share by threads.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.limit = EPOCH_RETRY_SECONDS if seconds is None else seconds
        self.retries, self.spent = 0, 0.0
        self._failing: list[tuple[float, float]] = []  # in order, apart from each other
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def spend(self, began: float, until: float) -> bool:
        """Whether a read whose try failed may pause and try again; if so, the time that was not yet counted is.

        `began` is when the try began, `until` when the pause ends, both of `time.monotonic`; now lies between them.
        """
        with self._lock:
            # Each of them holds the moment of its own call, which is past, so those that end after `began` overlap.
            after = next((n for n, (_, end) in enumerate(self._failing) if end >= began), len(self._failing))
            met = self._failing[after:]
            start, end = min([began, *(s for s, _ in met)]), max([until, *(e for _, e in met)])
            more = end - start - sum(e - s for s, e in met)
            if self._closed.is_set() or self.spent + more > self.limit:
                return False
            self._failing[after:] = [(start, end)]
            self.retries, self.spent = self.retries + 1, self.spent + more
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
        return (
            f"the reads of this pass waited {self.spent:.0f} s of at most {self.limit:.0f} for the store to answer "
            f"again, in {self.retries} retries: when it does, run again; a training goes on from its last checkpoint"
        )
