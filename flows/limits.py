"""How many trainings run at once: a named limit on the Prefect server, shared by everybody who uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL

TRAINING = "segpipe-training"
MOST_TRAININGS_AT_ONCE = 16


@contextmanager
def slot_for_training() -> Iterator[None]:
    """Holds one slot of the limit, which is made when it is missing (Prefect would only warn); a person's value stays.

    Only a server keeps such limits. The API that Prefect starts inside a process, without PREFECT_API_URL, forgets who
    holds a slot when it ends, so that a killed run would hold it for ever; there Ray alone decides.
    """
    if PREFECT_API_URL.value() is None:
        yield
        return
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=TRAINING, limit=MOST_TRAININGS_AT_ONCE)
        )
    # A training is worth more than its slot: when the server is away for long, it goes on without one.
    with concurrency(TRAINING, strict=True, raise_on_lease_renewal_failure=False):
        yield
