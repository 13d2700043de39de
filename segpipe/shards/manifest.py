"""Manifest <-> strict JSON. The SHA-256 of the canonical JSON is the dataset version.

Reading trusts nothing: a field too many, a wrong type, counts that do not add up or a path that is not the one of its
content is a CorruptError.
"""

from __future__ import annotations

import re
from typing import Any

from segpipe import storage
from segpipe.errors import CorruptError, InputError
from segpipe.reports import from_plain, to_plain
from segpipe.shards.schema import SCHEMA_VERSION
from segpipe.types import IGNORE_8BIT, IGNORE_16BIT, Manifest, Shard, Split

_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain data."""
    document: dict[str, Any] = to_plain(manifest)
    return document


def manifest_version(manifest: Manifest) -> str:
    """64 hex digits: the SHA-256 of the manifest's canonical JSON."""
    return storage.sha256_bytes(storage.canonical_json(manifest_to_json(manifest)))


def manifest_from_json(document: Any, *, where: str) -> Manifest:
    """The manifest of parsed JSON; `where` names it in errors.

    Raises CorruptError on anything unexpected, InputError when another version of segpipe's schema wrote it.
    """
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise InputError(
            f"{where}: written with schema version {version}, this segpipe reads {SCHEMA_VERSION}; "
            "ingest the dataset again, or use the segpipe that wrote it"
        )
    manifest = from_plain(Manifest, document, origin=where)
    names = [info.name for info in manifest.classes]
    require(0 < len(names) == len(set(names)), where, "classes", names, "at least one class, each name once")
    for info in manifest.classes:
        require(all(0 <= c < 256 for c in info.colour), where, f"colour of {info.name}", info.colour, "3 bytes")
    ignored = manifest.ignore_index
    require(ignored in (IGNORE_8BIT, IGNORE_16BIT), where, "ignore_index", ignored, f"{IGNORE_8BIT} or {IGNORE_16BIT}")
    raw = [value for value, _ in manifest.coding.values]
    known = {ignored, *range(len(names))}
    fits = len(set(raw)) == len(raw) and all(value >= 0 and mapped in known for value, mapped in manifest.coding.values)
    require(fits, where, "coding", manifest.coding.values[:8], f"each raw value once, for a class id or {ignored}")
    for name in ("dataset", "source"):
        require(bool(getattr(manifest, name)), where, name, getattr(manifest, name), "a name")
    for name, split in manifest.splits.items():
        _check_split(name, split, len(names), f"{where}: splits.{name}")
    for reason, count in manifest.quarantined.items():
        require(count >= 0, where, f"quarantined.{reason}", count, "a count")
    if manifest.quarantine_path is not None:
        _inside(manifest.quarantine_path, where)
    return manifest


def check_split_name(name: str) -> str:
    """The name, which becomes part of file names. Raises InputError."""
    if not _SPLIT_NAME.fullmatch(name):
        raise InputError(f"split {name!r}: expected 1 to 63 letters, digits, '_', '-' or '.', such as 'train'")
    return name


def shard_path(split: str, sha256: str) -> str:
    """Where a shard lies in its dataset: the name says the content."""
    return f"shards/{check_split_name(split)}-{sha256[:20]}.parquet"


def manifest_path(version: str) -> str:
    """Where the manifest of a version lies in its dataset."""
    return f"manifests/{version}.json"


def _check_split(name: str, split: Split, num_classes: int, where: str) -> None:
    require(bool(_SPLIT_NAME.fullmatch(name)), where, "name", name, "letters, digits, '_', '-' or '.'")
    for place, shard in enumerate(split.shards):
        _check_shard(name, shard, f"{where}.shards.{place}")
    rows = sum(shard.rows for shard in split.shards)
    require(split.samples == rows, where, "samples", split.samples, f"the {rows} rows of its shards")
    paths = [shard.path for shard in split.shards]
    require(len(set(paths)) == len(paths), where, "shards", paths[:3], "each shard once")
    for key, counts in (("class_pixels", split.class_pixels), ("image_pixels", split.image_pixels)):
        fits = len(counts) == num_classes and all(count >= 0 for count in counts)
        require(fits, where, key, counts, f"{num_classes} counts")
    require(split.ignored_pixels >= 0, where, "ignored_pixels", split.ignored_pixels, "a count")


def _check_shard(split: str, shard: Shard, where: str) -> None:
    require(bool(_SHA256.fullmatch(shard.sha256)), where, "sha256", shard.sha256, "64 hex digits")
    path, groups = shard_path(split, shard.sha256), shard.row_groups
    require(shard.path == path, where, "path", shard.path, path)
    require(all(rows > 0 for rows in groups), where, "row_groups", groups[:8], "positive counts")
    require(0 < sum(groups) == shard.rows, where, "rows", shard.rows, f"the {sum(groups)} of its row groups")
    require(shard.bytes > 0, where, "bytes", shard.bytes, "a positive size")


def _inside(path: str, where: str) -> None:
    try:
        storage.join("dataset", path)
    except InputError as error:
        raise CorruptError(f"{where}: quarantine_path leaves the dataset: {error}") from error


def require(holds: bool, where: str, name: str, value: Any, expected: str) -> None:
    """Raises CorruptError, which names the file and the value that was found, unless it `holds`."""
    if not holds:
        text = repr(value)
        found = text if len(text) <= 120 else text[:117] + "..."
        raise CorruptError(f"{where}: {name} is {found}, expected {expected}; restore the file or ingest again")
