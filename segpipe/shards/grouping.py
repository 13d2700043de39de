"""Rows -> row groups: sized for a request to an object store, and never cut inside a clip. Part of `writer.py`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from segpipe.errors import InputError

# A request that a store answers at full speed; 32 of these groups, which an epoch mixes at a time, are 256 MiB.
GROUP_BYTES = 8 << 20
GROUP_ROWS = 256  # where images are tiny
CLIP_BYTES = 1 << 30  # a clip is one row group, and each of its columns less than 2 GiB


def grouped(rows: Iterable[dict[str, Any]], most_bytes: int, most_rows: int) -> Iterator[list[dict[str, Any]]]:
    """Cuts rows into row groups, never inside a clip."""
    group: list[dict[str, Any]] = []
    filled = 0
    for unit in _units(rows):
        size = sum(_row_bytes(row) for row in unit)
        if group and (filled + size > most_bytes or len(group) + len(unit) > most_rows):
            yield group
            group, filled = [], 0
        group += unit
        filled += size
    if group:
        yield group


def _units(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """What stays together: a whole clip, or one still. Raises InputError for a clip in pieces or without end."""
    seen: set[str] = set()
    for clip, frames in itertools.groupby(rows, key=lambda row: row["clip_id"]):
        if clip is None:
            yield from ([frame] for frame in frames)
            continue
        if clip in seen:
            raise InputError(f"clip {clip!r}: other samples stand between its frames; its source must give it whole")
        seen.add(clip)
        unit, size = [], 0
        for frame in frames:
            unit.append(frame)
            size += _row_bytes(frame)
            if size > CLIP_BYTES:
                raise InputError(
                    f"clip {clip!r}: more than {CLIP_BYTES >> 20} MiB in {len(unit)} frames, and a clip is read at "
                    "once; cut it into shorter clips"
                )
        yield unit


def _row_bytes(row: Mapping[str, Any]) -> int:
    inside = sum(len(value) for value in row.values() if isinstance(value, bytes))
    inside += sum(len(extra["data"]) for extra in row["extras"])
    return inside + sum(len(segment["rle"] or b"") for segment in row["segments"])
