"""Numbers and splits as a person reads them: counts with nouns, sizes of files. For messages of stages and doors."""

from __future__ import annotations

from collections.abc import Iterable

_USUAL = ("train", "val", "test")


def split_order(names: Iterable[str]) -> list[str]:
    """Splits as one thinks of them: train, val, test, then any other."""
    return sorted(names, key=lambda name: (_USUAL.index(name) if name in _USUAL else len(_USUAL), name))


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 image`, `2 images`; `plural` where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def file_size(num_bytes: int) -> str:
    """`900 bytes`, `12.3 kB`, `4.56 MB`, `7.89 GB`."""
    if num_bytes < 1_000:
        return counted(num_bytes, "byte")
    if num_bytes < 1_000_000:
        return f"{num_bytes / 1e3:.1f} kB"
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.2f} MB"
