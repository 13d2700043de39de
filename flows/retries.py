"""Which tasks are tried again, and when: one rule for all of them, as the settings of every `@task`."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from segpipe.errors import UnreachableError


def may_succeed_when_retried(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Only what did not answer may answer next time: Ray, a store, a download.

    The other errors come back on every try: wrong input, a damaged file, a NaN, a full disk, a bug; another process
    that has the same run in work, for hours maybe; workers that died again and again, because Ray has then started them
    `max_failures` times already.
    """
    return isinstance(state.result(raise_on_failure=False), UnreachableError)


RETRIED: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [10, 60],  # a connection that broke, a service that restarts
    "retry_jitter_factor": 0.3,  # three trainings that lost one cluster do not all come back in the same second
    "retry_condition_fn": may_succeed_when_retried,
    # The stages know what is done already, by content; Prefect's caches and stored results would only repeat it.
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
