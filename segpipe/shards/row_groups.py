"""The Parquet files behind a `Dataset`: opened once each, hash first, with the row groups in use kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segpipe import storage
from segpipe.errors import CorruptError
from segpipe.shards.schema import SCHEMA
from segpipe.types import Shard

# An epoch's order mixes 32 row groups at a time; twice that lets one block be read ahead while another is in use.
MAX_GROUPS = 64
# Groups of very large images may hit this first; they are then read again, from the memory map.
MAX_BYTES = 512 << 20
MAX_OPEN_SHARDS = 128


class RowGroups:
    """Row groups by shard and number, the least recently used ones forgotten. Safe to use from several threads."""

    def __init__(self, uri: str, *, max_groups: int = MAX_GROUPS, max_bytes: int = MAX_BYTES) -> None:
        self._uri, self._max_groups, self._max_bytes = uri, max_groups, max_bytes
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._verified: set[str] = set()
        self._tables: OrderedDict[tuple[str, int, bool], pa.Table] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()
        self.loads = 0

    def get(self, shard: Shard, group: int, *, extras: bool = True) -> pa.Table:
        """One row group, kept for the next call; without `extras` that column is not read. Raises CorruptError, and
        what `storage` raises."""
        key = (shard.path, group, extras)
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
                return table
            table = self._tables[key] = self.load(shard, group, extras=extras)
            self._bytes += table.nbytes
            while len(self._tables) > 1 and (len(self._tables) > self._max_groups or self._bytes > self._max_bytes):
                self._bytes -= self._tables.popitem(last=False)[1].nbytes
            return table

    def load(self, shard: Shard, group: int, *, extras: bool = True) -> pa.Table:
        """One row group, read now and not kept. Raises as `get`."""
        columns = [name for name in SCHEMA.names if extras or name != "extras"]
        with self._lock:
            self.loads += 1
            return self._read(shard, lambda file: file.read_row_group(group, columns=columns, use_threads=False))

    def column(self, shard: Shard, name: str) -> list[Any]:
        """One column of a shard, without reading the others. Raises as `get`."""
        with self._lock:
            values: list[Any] = self._read(shard, lambda file: file.read([name], use_threads=False))[name].to_pylist()
            return values

    def verify(self, shard: Shard) -> None:
        """Raises CorruptError when the file is not the one that the manifest names."""
        uri = self._locate(shard)
        if not storage.exists(uri):
            raise CorruptError(f"{uri}: this shard of the version is missing; restore it from a copy or ingest again")
        found = storage.sha256_file(uri)
        if found != shard.sha256:
            raise CorruptError(
                f"{uri}: sha256 {found[:12]}, the manifest says {shard.sha256[:12]}; restore the file from a copy, or "
                "delete it and ingest again"
            )
        self._verified.add(shard.path)

    def _read(self, shard: Shard, read: Any) -> Any:
        try:
            return read(self._open(shard))
        except (OSError, pa.ArrowException) as error:
            raise CorruptError(
                f"{self._locate(shard)}: cannot be read any more ({error}); check the disk, or restore "
                "the file from a copy"
            ) from error

    def _open(self, shard: Shard) -> pq.ParquetFile:
        if shard.path in self._files:
            self._files.move_to_end(shard.path)
            return self._files[shard.path]
        if shard.path not in self._verified:
            self.verify(shard)
        path = storage.local_path(self._locate(shard))
        source = storage.open_read(self._locate(shard)) if path is None else pa.memory_map(str(path))
        # A bit that flips after the hash was checked (memory, disk, a second download) fails its page's checksum.
        file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=path is None)
        groups = tuple(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
        if file.schema_arrow != SCHEMA or groups != shard.row_groups:
            raise CorruptError(
                f"{self._locate(shard)}: {sum(groups)} rows in {len(groups)} row groups of schema "
                f"{file.schema_arrow.names}; the manifest says {shard.rows} rows in "
                f"{len(shard.row_groups)}; ingest again"
            )
        self._files[shard.path] = file
        while len(self._files) > MAX_OPEN_SHARDS:
            self._files.popitem(last=False)[1].close(force=True)
        return file

    def _locate(self, shard: Shard) -> str:
        return storage.join(self._uri, shard.path)
