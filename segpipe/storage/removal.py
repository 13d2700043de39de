"""Many files removed, several at a time where each is a request to a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from segpipe.storage.files import delete
from segpipe.storage.uris import local_path

IN_FLIGHT = 16


def delete_each(uris: Sequence[str]) -> Iterator[str]:
    """Removes files in order, and gives each when it is gone; absent ones are passed over.

    In a store up to 16 go at a time, by a request each: of S3's deletion of many at once s3fs does not tell which the
    store refused. Raises as `delete`, after giving those that went beside the one that did not.
    """
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="segpipe-delete") as pool:
        at_once = IN_FLIGHT if any(local_path(uri) is None for uri in uris) else 1
        for first in range(0, len(uris), at_once):
            batch = uris[first : first + at_once]
            if len(batch) == 1:
                delete(batch[0])
                yield batch[0]
                continue
            tries = [pool.submit(delete, uri) for uri in batch]
            yield from (uri for uri, done in zip(batch, tries, strict=True) if done.exception() is None)
            for done in tries:
                done.result()
