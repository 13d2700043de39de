"""Where a listing is cut into shards: sizes that suit an object store, and enough of them for parallel work.

Part of `ingest.py`. A pure function of the sorted listing and the sizes of its files, so the same files give the same
shards on any machine with any number of workers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from segpipe.types import SampleRef

# A small dataset makes eight shards of a split, so that eight cores can write and read it, but none of a few rows.
_SHARDS_A_SPLIT, _FEWEST_ROWS = 8, 32
# The lower end of what object stores like (64 to 256 MiB): a block of an epoch's order touches up to 32 shards, and all
# of them have to come before its last batch.
SHARD_BYTES = 64 << 20
_UNKNOWN_BYTES = 128 << 10  # of a sample that is made and not read from files


def cut(refs: Sequence[SampleRef], sizes: Mapping[str, int]) -> Iterator[tuple[SampleRef, ...]]:
    """Neighbours in (split, sample id) order share a shard of about 64 MiB; `refs` are in that order.

    `sizes` are the bytes of each file. A clip is never cut, however large; a group is: that one of frames whose ten
    conditions and two cameras are clips of their own may have 16 GB.
    """
    users = Counter(file for ref in refs for file in ref.files)

    def weigh(ref: SampleRef) -> float:
        # A file that many samples share (the annotations of all images) is not stored with each of them.
        return sum(sizes[file] / users[file] for file in ref.files) or _UNKNOWN_BYTES

    for split in sorted({ref.split for ref in refs}):
        mine = [ref for ref in refs if ref.split == split]
        rows = max(_FEWEST_ROWS, math.ceil(len(mine) / _SHARDS_A_SPLIT))
        part: list[SampleRef] = []
        filled = 0.0
        for ref in mine:
            full = len(part) >= rows or filled + weigh(ref) > SHARD_BYTES
            if part and full and (ref.clip is None or ref.clip != part[-1].clip):
                yield tuple(part)
                part, filled = [], 0.0
            part.append(ref)
            filled += weigh(ref)
        yield tuple(part)
