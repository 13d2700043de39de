"""The order of an epoch: a pure function of seed, epoch and dataset version, and near in memory.

With the two draws that every such pure function is made of (`data/clips.py`, `data/episodes.py`).
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# One block is mixed at a time, so it is what a reader has to keep: whichever of the two is reached first.
GROUPS_PER_BLOCK = 32
BLOCK_BYTES = 256 << 20
LEAST_GROUPS = 4  # of a block, whatever they take: rows of one long clip after the other would be no shuffle


def epoch_order(
    row_groups: Sequence[int], *, seed: int, epoch: int, version: str, group_bytes: Sequence[int] | None = None
) -> list[int]:
    """The order of an epoch: every row of a split once, as indices for `Dataset.read`. A pure function.

    `row_groups` are the rows of each row group of the split, `group_bytes` what each takes. All groups are permuted,
    then rows are shuffled inside blocks of 32 groups, or of as many as make 256 MiB, but of four at the least: a reader
    needs one block in memory and not the whole split. That is 256 MiB, or four groups where these are larger (long
    clips, which may be 1 GiB each).
    """
    draw = generator(f"segpipe epoch order|{version}|{seed}|{epoch}")
    starts = list(itertools.accumulate(row_groups, initial=0))
    groups = shuffled(range(len(row_groups)), draw)
    order: list[int] = []
    for block in _blocks(groups, group_bytes or [0] * len(groups)):
        rows = [row for group in block for row in range(starts[group], starts[group + 1])]
        order += shuffled(rows, draw)
    return order


def _blocks(groups: Sequence[int], group_bytes: Sequence[int]) -> Iterator[list[int]]:
    block: list[int] = []
    filled = 0
    for group in groups:
        too_large = len(block) >= LEAST_GROUPS and filled + group_bytes[group] > BLOCK_BYTES
        if len(block) == GROUPS_PER_BLOCK or too_large:
            yield block
            block, filled = [], 0
        block.append(group)
        filled += group_bytes[group]
    if block:
        yield block


def generator(key: str) -> random.Random:
    """Draws that depend on the words of a key alone: what is drawn for, dataset version, seed, epoch."""
    return random.Random(int.from_bytes(hashlib.sha256(key.encode()).digest()))  # noqa: S311 - no secret


def shuffled(items: Iterable[T], draw: random.Random) -> list[T]:
    """Sorted by a random draw: Python promises the sequence of `random()` over its versions, not that of `shuffle`."""
    return [item for _, item in sorted(((draw.random(), item) for item in items), key=lambda pair: pair[0])]
