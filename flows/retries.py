"""Which tasks are tried again, and when: one rule for all of them."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State

from segpipe.errors import UnreachableError

DELAYS: list[float] = [10, 60]  # seconds: a connection that broke, a service that restarts
JITTER = 0.3  # three trainings that lost one cluster do not all come back in the same second


def may_succeed_when_retried(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Only what did not answer may answer next time: Ray, a store, a download.

    The other errors come back on every try: wrong input, a damaged file, a NaN, a full disk, a bug; another process
    that has the same run in work, for hours maybe; workers that died again and again, because Ray has then started them
    `max_failures` times already.
    """
    return isinstance(state.result(raise_on_failure=False), UnreachableError)
