"""How samples of a user's folder come into splits by lists. Below __init__.py."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading import SPLITS, read_lines
from segpipe.types import QuarantineEntry

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_SPLIT_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,31}")


def find_lists(root: str, folder: str) -> dict[str, str]:
    """Split -> its list, relative to the root: folder/*.txt, else train.txt, val.txt, test.txt; {} if there is none."""
    if names := storage.list_names(storage.join(root, folder), suffix=".txt"):
        return {name.removesuffix(".txt"): f"{folder}/{name}" for name in names}
    return {split: file for split in SPLITS if storage.exists(storage.join(root, file := f"{split}.txt"))}


def read_lists(
    root: str, lists: Mapping[str, str], keys: Collection[str], suffix: str
) -> tuple[dict[str, str], list[QuarantineEntry]]:
    """Sample id -> split as the lists say, and what they name wrongly or twice. `keys` are the ids that have an image.

    Raises InputError on a split's name or a list that is not text.
    """
    by_name: dict[str, list[str]] = {}
    for key in keys:
        by_name.setdefault(key.rpartition("/")[2], []).append(key)
    order = [split for split in SPLITS if split in lists] + sorted(lists.keys() - set(SPLITS))
    chosen: dict[str, str] = {}
    refused: list[QuarantineEntry] = []
    for split in order:
        file = lists[split]
        if not _SPLIT_NAME.fullmatch(split):
            raise InputError(f"{file}: the split name {split!r} is not lower-case letters, digits and _: rename it")
        for number, line in enumerate(read_lines(root, file), start=1):
            if not line.strip():
                continue
            found = next((key for key in _candidates(line, by_name, suffix) if key in keys), None)
            if found is not None and found not in chosen:
                chosen[found] = split
            elif found is None:
                reason, detail = "missing_image", f"{line.strip()[:120]!r} names no image: mend the line or add it"
                refused.append(QuarantineEntry(file=file, item=f"line {number}", reason=reason, detail=detail))
            else:
                reason, detail = "duplicate_id", f"{found!r} is already in split {chosen[found]}: keep one of the lines"
                refused.append(QuarantineEntry(file=file, item=f"line {number}", reason=reason, detail=detail))
    return chosen, refused


def _candidates(line: str, by_name: Mapping[str, list[str]], suffix: str) -> Iterator[str]:
    """What a line may mean: a stem or a path, with or without folder, suffix and extension; then a bare name."""
    for text in dict.fromkeys((line.strip(), line.split()[0])):
        stem, dot, extension = text.replace("\\", "/").rpartition(".")
        path = stem if dot + extension.lower() in PICTURES else text.replace("\\", "/")
        parts = path.split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            yield from dict.fromkeys((tail, tail.removesuffix(suffix)))
        yield text  # a stem that ends as a file would: of photo.jpg.png
        for name in dict.fromkeys((parts[-1], parts[-1].removesuffix(suffix))):
            if len(same := by_name.get(name, [])) == 1:
                yield same[0]
