"""How far a training is, as lines of the flow run's log: one a tenth of the way, not one a step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from segpipe.types import TrainProgress

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


def in_log(log: Logger, label: str, clock: Callable[[], float] = time.monotonic) -> Callable[[TrainProgress], None]:
    """A callback that logs `unet: step 120 of 600, loss 0.912, about 3 min left` whenever another tenth is done.

    The time left is that of the steps since the first news of this attempt: a resumed training counts from there.
    """
    first: tuple[float, int] | None = None
    tenths_told = -1

    def tell(progress: TrainProgress) -> None:
        nonlocal first, tenths_told
        first = first or (clock(), progress.step)
        tenths = 10 * progress.step // progress.total_steps
        if tenths == tenths_told:
            return
        tenths_told = tenths
        loss = progress.metrics.get("train/loss")
        said = [f"{label}: step {progress.step} of {progress.total_steps}"]
        said += [f"loss {loss:.3f}"] if loss is not None else []
        done = progress.step - first[1]
        if done > 0:
            left = (clock() - first[0]) / done * (progress.total_steps - progress.step)
            said += [f"about {readable(left)} left"] if left > 0 else []
        log.info(", ".join(said))

    return tell


def readable(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
