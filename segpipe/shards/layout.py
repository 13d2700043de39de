"""Where the rows of a split lie: in which row group of which shard. Part of `reader.py`."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from typing import Any

from segpipe.types import Shard, Split

Place = tuple[Shard, int]  # a shard, and the number of one of its row groups


@dataclass(frozen=True, slots=True)
class Layout:
    """The row groups of a split in the stored order, and the number of each one's first row; last, of all rows."""

    places: tuple[Place, ...]
    starts: tuple[int, ...]

    def number(self, row: int) -> int:
        """The number of the row group that holds a row."""
        return bisect.bisect_right(self.starts, row) - 1


def layout_of(split: Split) -> Layout:
    """Of the split as the manifest has it; nothing is opened."""
    places = tuple((shard, group) for shard in split.shards for group in range(len(shard.row_groups)))
    return Layout(places, tuple(itertools.accumulate((s.row_groups[group] for s, group in places), initial=0)))


def estimate(place: tuple[Shard, Any]) -> int:
    """About the bytes of a row group, or of a whole shard where the place names columns."""
    shard, what = place
    return shard.bytes * shard.row_groups[what] // shard.rows if isinstance(what, int) else shard.bytes
