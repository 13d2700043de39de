"""Which files are there, below a source's root. Part of `reading`."""

from __future__ import annotations

from segpipe import storage

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def shown(root: str, folder: str) -> list[str]:
    """Paths below `folder` ("" is the root), relative to it, sorted, without hidden ones."""
    found = storage.list_tree(storage.join(root, folder) if folder else root)
    return [path for path in found if not any(part.startswith(".") for part in path.split("/"))]


def files_by_stem(root: str, folder: str, suffix: str) -> dict[str, str]:
    """Path below `folder` ("" is the root) without `suffix` -> path below `root`, sorted; hidden files passed over."""
    return {path.removesuffix(suffix): below(folder, path) for path in shown(root, folder) if path.endswith(suffix)}


def files_below(root: str, folder: str) -> frozenset[str]:
    """Every file below `folder` ("" is the root), as paths below `root`."""
    return frozenset(below(folder, path) for path in storage.list_tree(storage.join(root, folder) if folder else root))


def below(folder: str, path: str) -> str:
    """`folder/path`, or `path` where `folder` is the root, ""."""
    return f"{folder}/{path}" if folder else path
