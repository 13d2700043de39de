"""The versions of a dataset in the order in which they became current. Behind `segpipe data log`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from segpipe import storage
from segpipe.shards import open_dataset
from segpipe.shards.versions import removal, versions_logged, versions_there
from segpipe.stages import datasets

KEPT = "kept"


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged:
    """One record of a dataset's log. A version that came back has several.

    `at` is when it became current, by the store's clock; `splits` are its samples, none where the version is gone;
    `state` is "current", "kept", or how it came to be gone.
    """

    number: int
    at: str
    version: str
    splits: Mapping[str, int]
    state: str


def log(place: str) -> tuple[Logged, ...]:
    """Every record of the log of the dataset that `place` means (a name, a path or a URI), the first one first.

    Raises InputError where there is no dataset, CorruptError where a record or a manifest is damaged.
    """
    uri = datasets.found(place)
    folder = storage.join(uri, "log")
    versions = versions_logged(uri)
    if not versions:
        open_dataset(uri)  # which says that there is none
    times = {storage.join(folder, entry.path): entry.changed for entry in storage.inventory(folder)}
    there = set(versions_there(uri))
    known = {version: _known(uri, version, is_there=version in there) for version in dict.fromkeys(versions)}
    rows = []
    for number, version in enumerate(versions, start=1):
        at = datetime.fromtimestamp(times[storage.record_uri(folder, number)], UTC)
        splits, state = known[version]
        row = Logged(
            number=number,
            at=at.isoformat(sep=" ", timespec="seconds")[:19],
            version=version,
            splits=splits,
            state="current" if state == KEPT and number == len(versions) else state,
        )
        rows.append(row)
    return tuple(rows)


def _known(uri: str, version: str, *, is_there: bool) -> tuple[Mapping[str, int], str]:
    """The samples of each split, and `KEPT` or how the version came to be gone. A version may come many times."""
    if not is_there:
        absent = "its manifest is missing: restore it from a copy, or ingest its source again"
        return {}, removal(uri, version) or absent
    splits = open_dataset(uri, version=version).manifest.splits
    return {name: split.samples for name, split in splits.items()}, KEPT
