"""Splits where there are none: by a stable hash of the group, so that nothing changes sides. Part of `reading`."""

from __future__ import annotations

import hashlib

from segpipe.errors import InputError

SPLITS = ("train", "val", "test")


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
