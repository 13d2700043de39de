"""How samples of a user's folder come into splits: by lists, or by a stable hash of their group. Below __init__.py."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping

from segpipe import storage
from segpipe.errors import InputError
from segpipe.types import QuarantineEntry

SPLITS = ("train", "val", "test")
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_SPLIT_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,31}")


def find_lists(root: str, folder: str) -> dict[str, str]:
    """Split -> its list, relative to the root: folder/*.txt, else train.txt, val.txt, test.txt; {} if there is none."""
    if uris := storage.list_files(storage.join(root, folder), suffix=".txt"):
        return {(file := uri.rpartition("/")[2])[:-4]: f"{folder}/{file}" for uri in uris}
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
        for number, line in enumerate(_lines(root, file), start=1):
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
        for name in dict.fromkeys((parts[-1], parts[-1].removesuffix(suffix))):
            if len(same := by_name.get(name, [])) == 1:
                yield same[0]


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


def _lines(root: str, path: str) -> list[str]:
    try:
        return storage.read_bytes(storage.join(root, path)).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} in {root}: {error}; expected UTF-8 text: save the list as UTF-8") from error
