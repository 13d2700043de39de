"""Numbers as a person reads them: counts with their noun, sizes of files. For messages of the stages and the doors."""

from __future__ import annotations


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
