"""Parquet files that others wrote -> rows, a few at a time. For sources; `reader.py` reads our own.

Nothing is assumed of such a file: not its columns, nor how large its row groups are. Hugging Face's hold a hundred rows
or more, and hundreds of megabytes, so they are streamed in batches and never loaded whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segpipe import storage
from segpipe.errors import InputError

BATCH_ROWS = 8
_BUFFER_BYTES = 1 << 20
# What a row may take on average: a small file can unpack to any size, and its footer says to which.
_MAX_ROW_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TableInfo:
    """What a Parquet file's footer says: its rows, its columns with their Arrow types, and its writer's notes."""

    rows: int
    columns: Mapping[str, str]
    notes: Mapping[str, bytes]


def describe_table(uri: str) -> TableInfo:
    """Reads the footer alone. Raises InputError where there is no such file, or it is no Parquet."""
    with _explained(uri), _open(uri) as file:
        schema = file.schema_arrow
        notes = {key.decode("utf-8", "replace"): value for key, value in (schema.metadata or {}).items()}
        return TableInfo(
            rows=file.metadata.num_rows,
            columns={column.name: str(column.type) for column in schema},
            notes=notes,
        )


class TableRows:
    """Single rows of several files. Reading on from the last row is cheap, going back starts the row group again.

    Cheap to make and to pickle: the file in use is opened when it is first read.
    """

    def __init__(self) -> None:
        self._open: tuple[str, tuple[str, ...]] | None = None
        self._rows: Iterator[tuple[int, dict[str, Any]]] = iter(())
        self._next = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return TableRows, ()

    def row(self, uri: str, number: int, columns: Sequence[str]) -> dict[str, Any]:
        """Row `number` (from 0) as plain Python. Raises InputError where it cannot be read."""
        with _explained(uri):
            if self._open != (uri, tuple(columns)) or number < self._next:
                self._rows = _rows_from(uri, number, tuple(columns))
                self._open = (uri, tuple(columns))
            for place, row in self._rows:
                if place == number:
                    self._next = number + 1
                    return row
        self._open = None
        raise InputError(f"{uri}: has no row {number}; was it changed meanwhile? run the same again")


def _rows_from(uri: str, number: int, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Row numbers and rows, from the beginning of the row group that holds `number` to the end of the file."""
    with _open(uri) as file:
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first + rows > number:
                _require_small(uri, file.metadata.row_group(group))
                place = first
                batches = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False)
                for batch in batches:
                    for offset in range(batch.num_rows):
                        # One by one: of the batch in which it begins, only the row itself is turned into Python.
                        if place + offset >= number:
                            yield place + offset, batch.slice(offset, 1).to_pylist()[0]
                    place += batch.num_rows
            first += rows


def _require_small(uri: str, group: pq.RowGroupMetaData) -> None:
    # Of all columns together: to ask for one column's size aborts the process where its statistics are damaged.
    unpacked, rows = group.total_byte_size, group.num_rows
    if unpacked > _MAX_ROW_BYTES * rows:
        raise InputError(
            f"{uri}: {unpacked:,} bytes in {rows} rows; allowed are {_MAX_ROW_BYTES:,} a row: store images as encoded "
            "files"
        )


@contextmanager
def _open(uri: str) -> Iterator[pq.ParquetFile]:
    path = storage.local_path(uri)
    with closing(storage.open_read(uri) if path is None else pa.memory_map(str(path))) as source:
        yield pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turns what pyarrow raises on a damaged or missing file into InputError."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:
        told = " ".join(str(error).split())  # Thrift's end with a line break
        raise InputError(f"{uri}: {told}; expected a Parquet file: fetch it again") from error
