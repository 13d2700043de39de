"""The versions of a dataset in the order in which they became current. Behind `segpipe data log`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from segpipe import storage
from segpipe.shards import open_dataset
from segpipe.shards.manifest import manifest_path
from segpipe.shards.versions import removal, versions_logged
from segpipe.stages import datasets


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
    rows = []
    for number, version in enumerate(versions, start=1):
        row = Logged(
            number=number,
            at=datetime.fromtimestamp(times[storage.record_uri(folder, number)], UTC).isoformat(
                sep=" ", timespec="seconds"
            )[:19],
            version=version,
            splits=_splits(uri, version),
            state=_state(uri, version, is_last=number == len(versions)),
        )
        rows.append(row)
    return tuple(rows)


def _splits(uri: str, version: str) -> dict[str, int]:
    if not storage.exists(storage.join(uri, manifest_path(version))):
        return {}
    splits = open_dataset(uri, version=version).manifest.splits
    return {name: split.samples for name, split in splits.items()}


def _state(uri: str, version: str, *, is_last: bool) -> str:
    if storage.exists(storage.join(uri, manifest_path(version))):
        return "current" if is_last else "kept"
    return removal(uri, version) or "its manifest is missing: restore it from a copy, or ingest its source again"
