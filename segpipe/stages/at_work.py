"""Who is at work on a dataset: ingests, readers, and the collector (`gc/`), which must know of all of them.

    <dataset>/claims/      one small file a user, renewed while it works (`storage.claim`)

An ingest may store a shard by finding it there already, and a training of hours may read a version that nobody else
names. Both say so before they look, as the collector does before it looks for them: of two that meet, one always sees
the other. Ingests wait for a collector, and readers of what it may remove; it leaves what is read, and never begins
beside an ingest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from segpipe import storage
from segpipe.errors import ConflictError, InputError
from segpipe.shards import open_dataset
from segpipe.user import current_user

_log = logging.getLogger(__name__)
INGEST, READ, COLLECT = "ingest", "read", "gc"
POLL_SECONDS = 1.0


@contextmanager
def ingesting(dataset_uri: str) -> Iterator[None]:
    """Around everything that an ingest stores. Waits for a collector as long as that renews its claim."""
    with storage.claim(_folder(dataset_uri), kind=INGEST, about="", who=current_user()) as mine:
        _wait_for_collector(dataset_uri, mine)
        yield


@contextmanager
def reading(dataset_uri: str, version: str) -> Iterator[None]:
    """Around work that reads a version for long. Raises InputError without such a version, or where it was removed.

    A dataset that we may not write to is read all the same, with a warning: nobody can be told there. Waits for a
    collector as `ingesting` does, unless the version is the current one, which none removes.
    """
    version = open_dataset(dataset_uri, version=version).version
    with ExitStack() as held:
        try:
            mine = held.enter_context(storage.claim(_folder(dataset_uri), kind=READ, about=version, who=current_user()))
        except InputError as error:
            _log.warning("`segpipe data gc` elsewhere cannot see that version %s is read: %s", version[:12], error)
        else:
            _wait_for_collector(dataset_uri, mine, reads=version)
        open_dataset(dataset_uri, version=version)  # a collector that did not see our claim may have removed it
        yield


@contextmanager
def collecting(dataset_uri: str) -> Iterator[tuple[float, list[storage.Claim]]]:
    """Around what a collector removes; gives the time, by the store's clock, and the claims of the readers.

    Raises ConflictError beside an ingest or another collector.
    """
    with storage.claim(_folder(dataset_uri), kind=COLLECT, about="", who=current_user()) as mine:
        others = storage.claimants(_folder(dataset_uri), beside=mine)
        for other in others:
            if other.kind != READ:
                raise ConflictError(
                    f"{dataset_uri}: {told(other)} is at work there since {other.at}; nothing was removed. Run the "
                    "same again when it has ended"
                )
        yield storage.claim_time(_folder(dataset_uri), mine), others


def readers(dataset_uri: str) -> list[storage.Claim]:
    """Who reads a version for long, as far as can be seen without writing anything."""
    return [each for each in storage.claimants(_folder(dataset_uri)) if each.kind == READ]


def told(claim: storage.Claim) -> str:
    """A claim for a person."""
    return f"{claim.kind} of {claim.who} (process {claim.pid} on {claim.host})"


def _wait_for_collector(dataset_uri: str, mine: storage.Claim, *, reads: str | None = None) -> None:
    """No limit of time: a large store may take hours to collect, and the claim of one that has died ends by itself."""
    said = False
    while True:
        found = [each for each in storage.claimants(_folder(dataset_uri), beside=mine) if each.kind == COLLECT]
        if not found or (reads is not None and open_dataset(dataset_uri).version == reads):
            return
        if not said:
            _log.warning("%s: waiting for %s, at work there since %s", dataset_uri, told(found[0]), found[0].at)
            said = True
        time.sleep(POLL_SECONDS)


def _folder(dataset_uri: str) -> str:
    return storage.join(dataset_uri, "claims")
