"""The Parquet files behind a `Dataset`: checked once each, hash first, with the row groups in use kept in memory.

Files are opened for one read at a time: a parsed footer is what costs, and that is kept. A remote shard is read from
its copy in the cache (`storage/cache.py`), or in ranges from the store where there is none or no use in one.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from segpipe import storage
from segpipe.errors import CorruptError, InputError, SegpipeError
from segpipe.shards.ahead import Flights
from segpipe.shards.order import BLOCK_BYTES, GROUPS_PER_BLOCK, LEAST_GROUPS
from segpipe.shards.rows import Rows
from segpipe.shards.schema import SCHEMA
from segpipe.storage import RetryBudget
from segpipe.types import Shard

# An epoch's order mixes one block of row groups at a time; twice that lets the next be read while one is in use. An
# eighth more, since in memory a row group is a little larger than its share of the file.
MAX_GROUPS = 2 * GROUPS_PER_BLOCK
MAX_BYTES = 2 * BLOCK_BYTES + BLOCK_BYTES // 4
# Kept whatever they take, or each row of a block of large ones would read its row group anew: that block and what is
# read ahead of the next. Of the longest clips (1 GiB) they take 5 GiB.
LEAST_KEPT = LEAST_GROUPS + 1
MAX_FOOTERS = 256
_EVICTIONS = 3  # of a copy between its landing and its opening, until it is read from the store

R = TypeVar("R")
Key = tuple[str, int, bool]  # path of the shard, number of the row group, with extras or without


class RowGroups:
    """Row groups by shard and number, the least recently used ones forgotten, those that nobody holds first.

    Safe to use from several threads.
    """

    def __init__(
        self, uri: str, *, max_groups: int = MAX_GROUPS, max_bytes: int = MAX_BYTES, least_groups: int = LEAST_KEPT
    ) -> None:
        self._uri, self._max_groups, self._max_bytes, self._least_groups = uri, max_groups, max_bytes, least_groups
        self._in_parts: set[str] = set()
        self._is_local = storage.local_path(uri) is not None
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self._verified: set[str] = set()
        self._groups: OrderedDict[Key, Rows] = OrderedDict()
        self._held: Counter[Key] = Counter()
        self._bytes = 0
        self._lock = threading.Lock()
        self._flights = Flights()
        self.loads = 0

    def get(self, shard: Shard, group: int, budget: RetryBudget | None = None, *, extras: bool = True) -> Rows:
        """One row group, kept for the next call; without `extras` that column is not read.

        Raises CorruptError, and what `storage` raises.
        """
        if (rows := self._kept((shard.path, group, extras))) is not None:
            return rows
        return self._flights.run((shard.path, group, extras), lambda: self._keep(shard, group, budget, extras=extras))

    def hold(self, shard: Shard, group: int, budget: RetryBudget | None = None, *, extras: bool = True) -> Rows:
        """As `get`; until `release` the row group is forgotten only where all others are held too.

        What is read ahead was used longer ago than what is exhausted: by age alone it would go first.
        """
        with self._lock:
            self._held[shard.path, group, extras] += 1
        return self.get(shard, group, budget, extras=extras)

    def release(self, shard: Shard, group: int, *, extras: bool = True) -> None:
        """Ends one `hold`."""
        with self._lock:
            self._held[shard.path, group, extras] -= 1
            if not self._held[shard.path, group, extras]:
                del self._held[shard.path, group, extras]

    def load(self, shard: Shard, group: int, budget: RetryBudget | None = None, *, extras: bool = True) -> Rows:
        """One row group, read now and not kept. Raises as `get`."""
        columns = [name for name in SCHEMA.names if extras or name != "extras"]
        with self._lock:
            self.loads += 1
        return self._read(
            shard, lambda file: Rows(file.read_row_group(group, columns=columns, use_threads=False)), budget
        )

    def columns(self, shard: Shard, names: Sequence[str], budget: RetryBudget | None = None) -> list[dict[str, Any]]:
        """Some columns of each row of a shard, without reading the others. Raises as `get`."""
        rows: list[dict[str, Any]] = self._read(
            shard, lambda file: file.read(list(names), use_threads=False).to_pylist(), budget
        )
        return rows

    def read_in_parts(self, shards: Iterable[Shard]) -> None:
        """From now on no whole copy of these is fetched for a row group: together they are more than the cache holds.

        Else each row group of an epoch would download a shard that the next ones drive out again. Hashing a file that
        is new still brings a copy, which serves for as long as it is there.
        """
        self._in_parts.update(shard.path for shard in shards)

    def verify(self, shard: Shard) -> None:
        """Raises CorruptError when the file (a remote one, not its copy) is not the one that the manifest names."""
        self._compare(shard, lambda: storage.sha256_file(self._locate(shard)))

    def _kept(self, key: Key) -> Rows | None:
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)
            return self._groups.get(key)

    def _keep(self, shard: Shard, group: int, budget: RetryBudget | None, *, extras: bool) -> Rows:
        # Looked up once more: it may have come between the look in `get` and this flight.
        key = (shard.path, group, extras)
        if (rows := self._kept(key)) is not None:
            return rows
        rows = self.load(shard, group, budget, extras=extras)
        with self._lock:
            self._groups[key] = rows
            self._bytes += rows.nbytes
            while len(self._groups) > self._max_groups or (
                len(self._groups) > self._least_groups and self._bytes > self._max_bytes
            ):
                oldest = next((key for key in self._groups if key not in self._held), next(iter(self._groups)))
                self._bytes -= self._groups.pop(oldest).nbytes
        return rows

    def _read(self, shard: Shard, read: Callable[[pq.ParquetFile], R], budget: RetryBudget | None) -> R:
        if shard.path not in self._verified:
            self._flights.run(shard.path, lambda: self._check(shard, budget))
        tries = 1 if self._is_local else 2
        while True:
            tries -= 1
            try:
                with self._open(shard, budget) as source:
                    return read(self._parse(shard, source))
            except (pa.ArrowNotImplementedError, MemoryError) as error:  # the second is pyarrow's, too
                raise self._too_large(shard, error) from error
            except (OSError, pa.ArrowException) as error:
                if tries:  # damaged on the way here, or on the cache's disk
                    storage.forget_cached(shard.sha256)
                    continue
                raise CorruptError(
                    f"{self._locate(shard)}: cannot be read any more ({error}), though its hash was right when it "
                    f"was opened: {'check the disk' if self._is_local else 'check the store and the memory'}, or "
                    "restore the file from a copy"
                ) from error

    def _too_large(self, shard: Shard, error: Exception) -> SegpipeError:
        """The error for a row group that pyarrow cannot hold: of a column of more than 2 GiB, or beyond the memory."""
        rows = max(shard.row_groups)
        what = f"{self._locate(shard)}: a row group of up to {rows} rows is too large to read at once ({error}); "
        if isinstance(error, MemoryError):
            return SegpipeError(f"{what}use a machine with more memory, or fewer workers on this one")
        return CorruptError(
            f"{what}expected less than 2 GiB in each of its columns: ingest again, which cuts smaller ones"
        )

    def _check(self, shard: Shard, budget: RetryBudget | None) -> None:
        if shard.path not in self._verified:
            self._compare(shard, lambda: self._digest(shard, budget))

    def _compare(self, shard: Shard, digest: Callable[[], str]) -> None:
        uri = self._locate(shard)
        try:
            found = digest()
            if found != shard.sha256 and not self._is_local:
                storage.forget_cached(shard.sha256)
                found = digest()
        except InputError as error:
            if storage.exists(uri):
                raise
            raise CorruptError(
                f"{uri}: this shard of the version is missing; restore it from a copy or ingest again"
            ) from error
        if found != shard.sha256:
            raise CorruptError(
                f"{uri}: sha256 {found[:12]}, the manifest says {shard.sha256[:12]}; restore the file from a copy, or "
                "delete it and ingest again"
            )
        self._verified.add(shard.path)

    def _digest(self, shard: Shard, budget: RetryBudget | None) -> str:
        """The hash of what will be read: the file, its copy in the cache, or what the store sends."""
        landed: list[str] = []
        for _ in range(_EVICTIONS):
            copy = (
                None if self._is_local else self._fetch(shard, budget, on_landing=partial(landed.append, shard.sha256))
            )
            if copy is None:
                break
            if landed:  # and was compared: a small cache may have driven it out again before it is hashed once more
                return landed[0]
            try:
                return storage.sha256_file(copy)
            except InputError:  # another process made room meanwhile
                if storage.exists(copy):
                    raise
        return storage.sha256_file(self._locate(shard), budget=budget)

    def _open(self, shard: Shard, budget: RetryBudget | None) -> Any:
        uri = self._locate(shard)
        if self._is_local:
            return pa.memory_map(str(storage.local_path(uri)))
        for _ in range(_EVICTIONS):
            if (copy := self._copy(shard, budget)) is None:
                break
            try:
                return pa.memory_map(copy)
            except FileNotFoundError:  # another process made room meanwhile
                continue
        return storage.open_read(uri, size=shard.bytes, budget=budget)

    def _copy(self, shard: Shard, budget: RetryBudget | None) -> str | None:
        if shard.path not in self._in_parts:
            return self._fetch(shard, budget)
        copy = storage.find_cached(shard.sha256)
        return None if copy is None else str(copy)

    def _fetch(
        self, shard: Shard, budget: RetryBudget | None, *, on_landing: Callable[[], None] = lambda: None
    ) -> str | None:
        copy = storage.fetch(
            self._locate(shard), sha256=shard.sha256, size=shard.bytes, budget=budget, on_landing=on_landing
        )
        return None if copy is None else str(copy)

    def _parse(self, shard: Shard, source: Any) -> pq.ParquetFile:
        with self._lock:
            footer = self._footers.get(shard.path)
        # A bit that flips after the hash was checked (memory, disk, a second download) fails its page's checksum.
        ranged = not isinstance(source, pa.MemoryMappedFile)
        file = pq.ParquetFile(source, metadata=footer, page_checksum_verification=True, pre_buffer=ranged)
        if footer is not None:
            return file
        groups = tuple(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
        if file.schema_arrow != SCHEMA or groups != shard.row_groups:
            raise CorruptError(
                f"{self._locate(shard)}: {sum(groups)} rows in {len(groups)} row groups of schema "
                f"{file.schema_arrow.names}; the manifest says {shard.rows} rows in "
                f"{len(shard.row_groups)}; ingest again"
            )
        with self._lock:
            self._footers[shard.path] = file.metadata
            while len(self._footers) > MAX_FOOTERS:
                self._footers.popitem(last=False)
        return file

    def _locate(self, shard: Shard) -> str:
        return storage.join(self._uri, shard.path)
