"""Splits, by a folder of lists or, where there are none, by a stable hash of the group. Part of `reading`.

The hash is stable so that nothing changes sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading.files import read_lines
from segpipe.types import SampleRef

SPLITS = ("train", "val", "test")
EMPTY = "no sample is in "  # how the note of `empty_splits` begins


def parse_shares(text: str) -> tuple[float, ...]:
    """The shares of train, val and test, as in "0.8,0.1,0.1". Raises InputError."""
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != len(SPLITS) or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise InputError(
            f"option shares={text!r}; expected three shares for train, val, test that add up to 1: 0.8,0.1,0.1"
        )
    return shares


def hashed_split(group: str, shares: tuple[float, ...]) -> str:
    """The same for a group on every machine and however many others there are."""
    place = int.from_bytes(hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48
    for split, share in zip(SPLITS, shares, strict=True):
        if place < share:
            return split
        place -= share
    return next(split for split, share in reversed(list(zip(SPLITS, shares, strict=True))) if share > 0)


def empty_splits(refs: Collection[SampleRef], shares: tuple[float, ...], remedy: str) -> list[str]:
    """The note of an `Index` on splits that `hashed_split` left empty, although they have a share."""
    wanted = [split for split, share in zip(SPLITS, shares, strict=True) if share > 0]
    missing = [split for split in wanted if split not in {ref.split for ref in refs}]
    if not missing or len(refs) < len(wanted):
        return []
    groups = sorted({ref.group for ref in refs})
    if len(groups) == len(refs):
        return [
            f"{EMPTY}{' and '.join(missing)}: a hash deals the {len(refs)} samples one by one, and by chance "
            f"none fell there; change the option shares, or {remedy}"
        ]
    shown = ", ".join(map(repr, groups[:3])) + (f" and {len(groups) - 3} more" if len(groups) > 3 else "")
    return [
        f"{EMPTY}{' and '.join(missing)}: a hash deals whole groups, and the {len(refs)} samples are of "
        f"{len(groups)} group{'s' if len(groups) > 1 else ''}, {shown}; change the option shares, or {remedy}"
    ]


def listed_stems(root: str, folder: str, *, only: Collection[str] = ()) -> list[tuple[str, str, str]]:
    """(split, first word of a line, path of the list) of every `folder/<split>.txt`, of `only` those that it names.

    `trainval` beside others is left out, being their union. Empty where there is no list.
    """
    found = storage.list_names(storage.join(root, folder), suffix=".txt")
    lists = {name.removesuffix(".txt"): f"{folder}/{name}" for name in found}
    if len(lists) > 1:
        lists.pop("trainval", None)
    return [
        (split, line.split()[0], path)
        for split, path in sorted(lists.items())
        if not only or split in only
        for line in read_lines(root, path)
        if line.strip()
    ]
