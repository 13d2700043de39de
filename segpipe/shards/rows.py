"""The rows of a row group in memory, and one of them that waits to be unpacked. Part of `row_groups.py`, `reader.py`.

What is small becomes Python values once, for all rows at a time; images, maps and objects stay Arrow's until their row
is asked for. Asking Arrow value by value for the small columns as well took four times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from segpipe.shards.schema import row_to_sample
from segpipe.types import Sample

_LARGE = ("image", "label_map", "segment_map", "segments", "keypoints", "extras")
_UNREAD = ("image_sha256",)  # no part of a sample


class Rows:
    """The rows of one row group, which may have been read without extras. May be read from several threads."""

    def __init__(self, table: pa.Table) -> None:
        self._large = {name: table[name] for name in _LARGE if name in table.column_names and _fills(table[name])}
        small = [name for name in table.column_names if name not in self._large and name not in _UNREAD]
        self._small: list[dict[str, Any]] = table.select(small).to_pylist()
        self.nbytes: int = table.nbytes

    def __len__(self) -> int:
        return len(self._small)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def pixels(self, number: int) -> int:
        """Height times width of the image of one row."""
        pixels: int = self._small[number]["height"] * self._small[number]["width"]
        return pixels

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One row as plain Python, for `row_to_sample`."""
        large = {name: column[number].as_py() for name, column in self._large.items()}
        return {"extras": [], **self._small[number], **large}


class StoredRow(NamedTuple):
    """A row that was read and not yet unpacked: whoever needs the sample does that, in a thread of its own."""

    rows: Rows
    number: int

    @property
    def pixels(self) -> int:
        """Height times width of its image."""
        return self.rows.pixels(self.number)

    def sample(self, *, labels: bool = True) -> Sample:
        """Without its label map where nobody wants the `labels`. Raises CorruptError, naming the sample, when a map
        does not unpack to its size."""
        row = self.rows[self.number]
        return row_to_sample(row if labels else {**row, "label_map": None, "label_map_width": None})


def _fills(column: pa.ChunkedArray) -> bool:
    """Whether any row has something there: of a column that none fills the constant is small."""
    if pa.types.is_list(column.type):
        return bool(pc.any(pc.greater(pc.list_value_length(column), 0)).as_py())
    return bool(column.null_count < len(column))
