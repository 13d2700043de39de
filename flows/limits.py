"""How much runs at once, as named limits on the Prefect server: made when they are missing, a person's value stays.

Only a server keeps them. The API that Prefect starts inside a process without PREFECT_API_URL forgets who holds a slot
when it ends, and what a killed run held would be taken for ever; there one process is all there is, and Ray decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL

TRAINING = "segpipe-training"
MOST_TRAININGS_AT_ONCE = 16


@contextmanager
def one_training() -> Iterator[None]:
    """Holds one of the site's `segpipe-training` slots, which all experiments share."""
    with _slot(TRAINING, MOST_TRAININGS_AT_ONCE):
        yield


@contextmanager
def alone_on(experiment: str) -> Iterator[None]:
    """Waits until no other run works on `experiment`, whichever deployment or trigger started it."""
    with _slot(f"segpipe-experiment-{experiment}", 1):
        yield


@contextmanager
def _slot(name: str, most: int) -> Iterator[None]:
    if PREFECT_API_URL.value() is None:
        yield
        return
    with get_client(sync_client=True) as client:
        if name not in {limit.name for limit in client.read_global_concurrency_limits()}:
            client.upsert_global_concurrency_limit_by_name(name, most)
    with concurrency(name, strict=True, raise_on_lease_renewal_failure=False):
        yield
