"""Manifest <-> strict JSON. The SHA-256 of the canonical JSON is the dataset version.

Reading trusts nothing: a field too many, a wrong type, counts that do not add up or a path that is not the one of its
content is a CorruptError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from segpipe import storage
from segpipe.errors import CorruptError, InputError
from segpipe.shards.schema import SCHEMA_VERSION
from segpipe.types import IGNORE_8BIT, IGNORE_16BIT, Annotation, ClassInfo, Manifest, Shard, Split

_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MANIFEST = {
    "schema_version": int,
    "dataset": str,
    "source": str,
    "licence": str,
    "classes": list,
    "ignore_index": int,
    "annotations": list,
    "splits": dict,
    "quarantined": dict,
    "quarantine_path": (str, type(None)),
}
_CLASS = {"name": str, "colour": list, "is_thing": bool}
_SPLIT = {"samples": int, "shards": list, "class_pixels": list, "image_pixels": list, "ignored_pixels": int}
_SHARD = {"path": str, "rows": int, "bytes": int, "sha256": str, "row_groups": list}


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain data."""
    document = {name: getattr(manifest, name) for name in _MANIFEST}
    document["classes"] = [{**asdict(info), "colour": list(info.colour)} for info in manifest.classes]
    document["annotations"] = [str(annotation) for annotation in manifest.annotations]
    document["quarantined"] = dict(manifest.quarantined)
    document["splits"] = {name: _split_to_json(split) for name, split in manifest.splits.items()}
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
    fields = _fields(document, _MANIFEST, where)
    classes = tuple(_class(item, f"{where}: classes.{place}") for place, item in enumerate(fields["classes"]))
    names = [info.name for info in classes]
    _require(0 < len(classes) == len(set(names)), where, "classes", names, "at least one class, each name once")
    _require(
        fields["ignore_index"] in (IGNORE_8BIT, IGNORE_16BIT), where, "ignore_index", fields["ignore_index"], "255"
    )
    for name in ("dataset", "source"):
        _require(bool(fields[name]), where, name, fields[name], "a name")
    fields["classes"] = classes
    fields["annotations"] = _annotations(fields["annotations"], where)
    fields["splits"] = {
        name: _split(name, item, len(classes), f"{where}: splits.{name}") for name, item in fields["splits"].items()
    }
    for reason, count in fields["quarantined"].items():
        _require(_is_count(count), where, f"quarantined.{reason}", count, "a count")
    if fields["quarantine_path"] is not None:
        _inside(fields["quarantine_path"], where)
    return Manifest(**fields)


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


def log_record(version: str) -> dict[str, Any]:
    """What the dataset's log says about a newly published version."""
    return {"version": version}


def version_of(record: Any, where: str) -> str:
    """The version that a log record names. Raises CorruptError."""
    version: str = _fields(record, {"version": str}, where)["version"]
    _require(is_version(version), where, "version", version, "64 hex digits")
    return version


def is_version(text: str) -> bool:
    """Whether this is a whole version (not a prefix of one)."""
    return bool(_SHA256.fullmatch(text))


def _split_to_json(split: Split) -> dict[str, Any]:
    document = asdict(split)
    document["shards"] = [{**asdict(shard), "row_groups": list(shard.row_groups)} for shard in split.shards]
    return {**document, "class_pixels": list(split.class_pixels), "image_pixels": list(split.image_pixels)}


def _class(item: Any, where: str) -> ClassInfo:
    fields = _fields(item, _CLASS, where)
    colour = fields["colour"]
    _require(len(colour) == 3 and all(_is_count(c) and c < 256 for c in colour), where, "colour", colour, "3 bytes")
    return ClassInfo(name=fields["name"], colour=tuple(colour), is_thing=fields["is_thing"])


def _annotations(items: list[Any], where: str) -> tuple[Annotation, ...]:
    known = [str(annotation) for annotation in Annotation]
    for item in items:
        _require(item in known, where, "annotations", item, f"one of {', '.join(known)}")
    return tuple(Annotation(item) for item in items)


def _split(name: str, item: Any, num_classes: int, where: str) -> Split:
    _require(bool(_SPLIT_NAME.fullmatch(name)), where, "name", name, "letters, digits, '_', '-' or '.'")
    fields = _fields(item, _SPLIT, where)
    shards = tuple(_shard(name, shard, f"{where}.shards.{place}") for place, shard in enumerate(fields["shards"]))
    rows = sum(shard.rows for shard in shards)
    _require(fields["samples"] == rows, where, "samples", fields["samples"], f"the {rows} rows of its shards")
    paths = [shard.path for shard in shards]
    _require(len(set(paths)) == len(paths), where, "shards", paths[:3], "each shard once")
    for key in ("class_pixels", "image_pixels"):
        fits = len(fields[key]) == num_classes and all(_is_count(count) for count in fields[key])
        _require(fits, where, key, fields[key], f"{num_classes} counts")
        fields[key] = tuple(fields[key])
    _require(_is_count(fields["ignored_pixels"]), where, "ignored_pixels", fields["ignored_pixels"], "a count")
    return Split(**{**fields, "shards": shards})


def _shard(split: str, item: Any, where: str) -> Shard:
    fields = _fields(item, _SHARD, where)
    sha256, groups = fields["sha256"], fields["row_groups"]
    _require(bool(_SHA256.fullmatch(sha256)), where, "sha256", sha256, "64 hex digits")
    _require(fields["path"] == shard_path(split, sha256), where, "path", fields["path"], shard_path(split, sha256))
    _require(all(_is_count(rows) and rows > 0 for rows in groups), where, "row_groups", groups[:8], "positive counts")
    _require(0 < sum(groups) == fields["rows"], where, "rows", fields["rows"], f"the {sum(groups)} of its row groups")
    _require(fields["bytes"] > 0, where, "bytes", fields["bytes"], "a positive size")
    return Shard(**{**fields, "row_groups": tuple(groups)})


def _inside(path: str, where: str) -> None:
    try:
        storage.join("dataset", path)
    except InputError as error:
        raise CorruptError(f"{where}: quarantine_path leaves the dataset: {error}") from error


def _fields(document: Any, expected: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise CorruptError(f"{where}: expected an object, found {type(document).__name__}; restore or ingest again")
    if document.keys() != expected.keys():
        strange = sorted(document.keys() ^ expected.keys())
        raise CorruptError(f"{where}: unknown or missing fields {strange}; expected exactly {sorted(expected)}")
    for name, kind in expected.items():
        value = document[name]
        fits = isinstance(value, kind) and (kind is not int or not isinstance(value, bool))
        wanted = getattr(kind, "__name__", "str or null")
        _require(fits, where, name, value, wanted)
    return dict(document)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require(holds: bool, where: str, name: str, value: Any, expected: str) -> None:
    if not holds:
        text = repr(value)
        found = text if len(text) <= 120 else text[:117] + "..."
        raise CorruptError(f"{where}: {name} is {found}, expected {expected}; restore the file or ingest again")
