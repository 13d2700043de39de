"""A dataset version -> samples: all of a split once and in order, or any rows in any order.

The whole state of a reader is (epoch, step): `epoch_order` is a pure function, and a resumed run reads on in the same
list. Each shard's hash is checked when it is first opened, and each page's checksum whenever it is read.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from segpipe import storage
from segpipe.errors import CorruptError, InputError
from segpipe.shards.manifest import is_version, manifest_from_json, manifest_path, version_of
from segpipe.shards.row_groups import RowGroups
from segpipe.shards.schema import ANNOTATION_COLUMNS, annotation_hash, row_to_sample
from segpipe.types import Manifest, Sample, Shard, Split

GROUPS_PER_BLOCK = 32
MIN_PREFIX = 8


def open_dataset(uri: str, *, version: str | None = None) -> Dataset:
    """Opens a version of the dataset at `uri`: the current one, or the one whose hash begins with `version` (8 digits).

    Raises InputError when there is no such dataset or version, CorruptError when the manifest differs from its hash.
    """
    found = _current(uri) if version is None else _find(uri, version)
    where = storage.join(uri, manifest_path(found))
    data = storage.read_bytes(where)
    if storage.sha256_bytes(data) != found:
        raise CorruptError(f"{where}: its content differs from its name; restore it from a copy or ingest again")
    manifest = manifest_from_json(storage.parse_json(data, where=where), where=where)
    return Dataset(uri, manifest, found)


def epoch_order(row_groups: Sequence[int], *, seed: int, epoch: int, version: str) -> list[int]:
    """The order of an epoch: every row of a split once, as indices for `Dataset.read`. A pure function.

    `row_groups` are the rows of each row group of the split. All groups are permuted, then rows are shuffled inside
    blocks of 32 groups, so that a reader needs 32 groups in memory and not the whole split.
    """
    key = f"segpipe epoch order|{version}|{seed}|{epoch}".encode()
    generator = random.Random(int.from_bytes(hashlib.sha256(key).digest()))  # noqa: S311 - an order is no secret
    starts = list(itertools.accumulate(row_groups, initial=0))
    groups = _shuffled(list(range(len(row_groups))), generator)
    order: list[int] = []
    for first in range(0, len(groups), GROUPS_PER_BLOCK):
        block = groups[first : first + GROUPS_PER_BLOCK]
        rows = [row for group in block for row in range(starts[group], starts[group + 1])]
        order += _shuffled(rows, generator)
    return order


def _shuffled(items: list[int], generator: random.Random) -> list[int]:
    """Sorted by a random draw: Python promises the sequence of `random()` over its versions, not that of `shuffle`."""
    return [item for _, item in sorted((generator.random(), item) for item in items)]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each row group of a split lies, and the number of its first row in the split."""

    places: tuple[tuple[Shard, int], ...]
    starts: tuple[int, ...]


class Dataset:
    """One immutable version of a dataset. Cheap to make and to pickle: files are opened when first read.

    `uri`, `manifest` and `version` are read-only. May be read from several threads.
    """

    def __init__(self, uri: str, manifest: Manifest, version: str) -> None:
        self.uri, self.manifest, self.version = uri, manifest, version
        self._row_groups = RowGroups(uri)
        self._layouts: dict[str, _Layout] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.uri, self.manifest, self.version)

    def __repr__(self) -> str:
        return f"Dataset({self.uri!r}, version={self.version[:12]!r})"

    def rows(self, split: str) -> int:
        """Samples of a split. Raises InputError for a split that does not exist, as all methods do."""
        return self._split(split).samples

    def row_groups(self, split: str) -> tuple[int, ...]:
        """Rows of each row group of a split: what `epoch_order` needs."""
        return tuple(rows for shard in self._split(split).shards for rows in shard.row_groups)

    def samples(self, split: str) -> Iterator[Sample]:
        """Every sample of a split exactly once, in the stored order.

        Raises CorruptError when a shard differs from its hash, or when at the end an id came twice or the count is not
        the manifest's.
        """
        seen: set[str] = set()
        for shard, group in self._layout(split).places:
            for row in self._row_groups.load(shard, group).to_pylist():
                if row["sample_id"] in seen:
                    raise CorruptError(f"{self.uri}: sample {row['sample_id']!r} comes twice in {split}; ingest again")
                seen.add(row["sample_id"])
                yield row_to_sample(row)
        if len(seen) != self.rows(split):
            raise CorruptError(
                f"{self.uri}: {split} gave {len(seen)} samples, its manifest says {self.rows(split)}; ingest again"
            )

    def read(self, split: str, indices: Sequence[int], *, extras: bool = True) -> Iterator[Sample]:
        """The samples at these places of the stored order, in the order asked for.

        Who has no use for depth and flow asks for none by `extras`: they may be larger than all the rest.
        Row groups are kept while they are in use (see `row_groups.py`), so an `epoch_order` reads each of them once.
        Raises InputError for an index outside the split, CorruptError as `samples`.
        """
        layout, rows = self._layout(split), self.rows(split)
        for index in indices:
            if not 0 <= index < rows:
                raise InputError(f"{self.uri}: row {index} of {split} does not exist; it has rows 0 to {rows - 1}")
            place = bisect.bisect_right(layout.starts, index) - 1
            table = self._row_groups.get(*layout.places[place], extras=extras)
            row = table.slice(index - layout.starts[place], 1).to_pylist()[0]
            yield row_to_sample(row if extras else {**row, "extras": []})

    def sample_ids(self, split: str) -> list[str]:
        """Ids in the stored order, without reading images."""
        return self._column(split, "sample_id")

    def groups(self, split: str) -> list[str]:
        """What must not be cut by a split (a drive, a clip), one for each sample, in the stored order."""
        return self._column(split, "group")

    def sizes(self, split: str) -> list[tuple[int, int]]:
        """(height, width) of each image in the stored order, without reading images."""
        return list(zip(self._column(split, "height"), self._column(split, "width"), strict=True))

    def image_hashes(self, split: str) -> list[str]:
        """SHA-256 of each image file in hex, in the stored order."""
        return [digest.hex() for digest in self._column(split, "image_sha256")]

    def annotation_hashes(self, split: str) -> list[str]:
        """SHA-256 over all annotations of each sample in hex, in the stored order, without reading images."""
        hashes: list[str] = []
        for shard in self._split(split).shards:  # not all at once: the maps of a large split are gigabytes
            columns = [self._row_groups.column(shard, name) for name in ANNOTATION_COLUMNS]
            rows = zip(*columns, strict=True)
            hashes += [annotation_hash(dict(zip(ANNOTATION_COLUMNS, row, strict=True))) for row in rows]
        return hashes

    def verify(self, split: str) -> None:
        """Hashes every shard of a split again. Raises CorruptError naming the first that differs."""
        for shard in self._split(split).shards:
            self._row_groups.verify(shard)

    def _split(self, split: str) -> Split:
        if split not in self.manifest.splits:
            known = ", ".join(sorted(self.manifest.splits)) or "none"
            raise InputError(f"{self.uri}: no split {split!r} in version {self.version[:12]}; it has: {known}")
        return self.manifest.splits[split]

    def _layout(self, split: str) -> _Layout:
        if split not in self._layouts:
            shards = self._split(split).shards
            places = tuple((shard, group) for shard in shards for group in range(len(shard.row_groups)))
            starts = tuple(itertools.accumulate(self.row_groups(split), initial=0))
            self._layouts[split] = _Layout(places, starts)
        return self._layouts[split]

    def _column(self, split: str, name: str) -> list[Any]:
        return [value for shard in self._split(split).shards for value in self._row_groups.column(shard, name)]


def _current(uri: str) -> str:
    log = storage.join(uri, "log")
    head = storage.last_record(log)
    if head is None:
        raise InputError(f"{uri}: no dataset here (its log is empty); make one with `segpipe ingest ... --to {uri}`")
    where = storage.record_uri(log, head[0])
    version = version_of(head[1], where)
    if not storage.exists(storage.join(uri, manifest_path(version))):
        raise CorruptError(
            f"{where}: names version {version[:12]}, whose manifest is missing; restore it or ingest again"
        )
    return version


def _find(uri: str, version: str) -> str:
    if not is_version(version) and (len(version) < MIN_PREFIX or not is_version(version.ljust(64, "0"))):
        raise InputError(f"version {version!r}: expected {MIN_PREFIX} to 64 hex digits in lower case")
    files = storage.list_files(storage.join(uri, "manifests"), suffix=".json")
    known = [file.rpartition("/")[2].removesuffix(".json") for file in files]
    matches = [name for name in known if name.startswith(version)]
    if len(matches) != 1:
        state = f"fits {len(matches)} versions, give more digits" if matches else "is not here"
        raise InputError(
            f"{uri}: version {version} {state}; there are: {', '.join(n[:12] for n in known[:10]) or 'none'}"
        )
    return matches[0]
