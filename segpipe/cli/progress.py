"""How far long work is, as lines for a log or a pipe: one a tenth of the way, not one a step, and none too soon.

For a command whose standard error is no terminal, and for the logs of flow runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from segpipe.types import TrainProgress

Say = Callable[[str], None]
Clock = Callable[[], float]
LEAST_PAUSE_SECONDS = 10.0  # what is over in seconds says that it began and that it ended


class Tenths:
    """Says when another tenth is done, and how long the rest will take at the pace since the first call.

    From the first call, not from zero: what a resumed training had done before took none of this time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None
        self._told = -1
        self._told_at = -math.inf

    def news(self, done: int, total: int) -> list[str] | None:
        """What to say of the rest, ["about 12 min left"] or nothing; None while there is no news."""
        now, tenth = self._clock(), 10 * done // total
        self._first = self._first or (now, done)
        if tenth == self._told or (now - self._told_at < LEAST_PAUSE_SECONDS and done < total):
            return None
        self._told, self._told_at = tenth, now
        since, before = self._first
        if done in (before, total):
            return []
        return [f"about {readable((now - since) / (done - before) * (total - done))} left"]


def training_lines(say: Say, label: str, clock: Clock = time.monotonic) -> Callable[[TrainProgress], None]:
    """A callback that says `unet: step 120 of 600, loss 0.912, about 3 min left` whenever another tenth is done; first,
    where the training goes on from a checkpoint, that it does."""
    tenths, began = Tenths(clock), False

    def tell(progress: TrainProgress) -> None:
        nonlocal began
        if not began and progress.resumed_at:
            say(resumed(label, progress))
        began = True
        if (rest := tenths.news(progress.step, progress.total_steps)) is None:
            return
        loss = progress.metrics.get("train/loss")
        said = [] if loss is None else [f"loss {loss:.3f}"]
        say(", ".join([f"{label}: step {progress.step} of {progress.total_steps}", *said, *rest]))

    return tell


def resumed(label: str, progress: TrainProgress) -> str:
    """That a training goes on from a checkpoint, for a person."""
    return f"{label}: continues at step {progress.resumed_at} of {progress.total_steps}"


def ingest_lines(say: Say, name: str, clock: Clock = time.monotonic) -> Callable[[int, int], None]:
    """A callback that says `roofs: 3000 of 30000 samples, about 9 min left` whenever another tenth is done."""
    tenths = Tenths(clock)

    def tell(done: int, total: int) -> None:
        if (rest := tenths.news(done, total)) is not None:
            say(", ".join([f"{name}: {done} of {total} samples", *rest]))

    return tell


def readable(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
