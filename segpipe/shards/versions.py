"""Versions of a dataset: publishing one, and finding the current one or the one that somebody names.

A version is there when its manifest is (`manifests/<version>.json`); the log (`log/000001.json ...`) says which was
published when, and its last record which is current. `removed/` holds a note of each that `segpipe data gc` took away.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from segpipe import storage
from segpipe.errors import CorruptError, InputError
from segpipe.shards.manifest import manifest_from_json, manifest_path, manifest_to_json, require
from segpipe.types import Manifest

MIN_PREFIX = 8
_VERSION = re.compile(r"[0-9a-f]{64}")


def publish(uri: str, manifest: Manifest) -> tuple[str, Literal["published", "already_published"]]:
    """Makes `manifest` the current version of the dataset at `uri`; gives the version and whether that was news.

    The manifest is written first, the log record that makes it current last: a reader never sees half a version. Raises
    ConflictError when another version was published meanwhile (run again to publish on top of it), InputError when a
    shard is missing or the manifest is not consistent.
    """
    document = manifest_to_json(manifest)
    try:
        manifest_from_json(document, where="manifest")
    except CorruptError as error:
        raise InputError(f"{uri}: this manifest cannot be published: {error}") from error
    _require_shards(uri, manifest)
    log = _log(uri)
    for folder in (uri, storage.join(uri, "shards"), storage.join(uri, "manifests"), log):
        storage.sweep(folder)
    data = storage.canonical_json(document)
    version = storage.sha256_bytes(data)
    head = storage.last_record(log)
    number = head[0] if head else 0
    storage.failpoint("publish.begin")
    # Also of a version that is current already: its manifest may have been lost.
    storage.write_once(storage.join(uri, manifest_path(version)), data)
    storage.failpoint("publish.manifest")
    if head and _named_by(head[1], storage.record_uri(log, number)) == version:
        return version, "already_published"
    # `append_record`, with its answer to "was it us?".
    created = storage.write_json_once(storage.record_uri(log, number + 1), {"version": version})
    storage.failpoint("publish.logged")
    return version, "published" if created else "already_published"


def find_version(uri: str, version: str | None) -> tuple[str, Manifest]:
    """The current version, or the one that begins with `version`, and its manifest, checked.

    Raises InputError when there is no such dataset or version, CorruptError when the manifest differs from its hash.
    """
    found = _current(uri) if version is None else _find(uri, version)
    where = storage.join(uri, manifest_path(found))
    data = storage.read_bytes(where)
    if storage.sha256_bytes(data) != found:
        raise CorruptError(f"{where}: its content differs from its name; restore it from a copy or ingest again")
    return found, manifest_from_json(storage.parse_json(data, where=where), where=where)


def versions_there(uri: str) -> list[str]:
    """The versions whose manifests are there, sorted; they need not be intact."""
    names = storage.list_names(storage.join(uri, "manifests"), suffix=".json")
    return [name.removesuffix(".json") for name in names]


def versions_logged(uri: str) -> list[str]:
    """The version of each record of the log, the current one last; some may be gone. Raises CorruptError."""
    log = _log(uri)
    return [_named_by(record, storage.record_uri(log, number)) for number, record in storage.records(log)]


def removal(uri: str, version: str) -> str | None:
    """How a version (or the one that begins so) was removed on purpose; None for one that never was.

    Raises CorruptError for a note that is none.
    """
    folder = storage.join(uri, "removed")
    for name in storage.list_names(folder, suffix=".json"):
        if name.startswith(version):
            note = storage.join(folder, name)
            told = storage.read_json(note)
            known = isinstance(told, dict) and {"at", "who"} <= told.keys()
            require(known, note, "a note of removal", told, "at, who")
            return f"was removed on {told['at']} by `segpipe data gc` of {told['who']}"
    return None


def _current(uri: str) -> str:
    log = _log(uri)
    head = storage.last_record(log)
    if head is None:
        raise InputError(f"{uri}: no dataset here (its log is empty); make one with `segpipe ingest ... --to {uri}`")
    where = storage.record_uri(log, head[0])
    version = _named_by(head[1], where)
    if not storage.exists(storage.join(uri, manifest_path(version))):
        raise CorruptError(
            f"{where}: names version {version[:12]}, whose manifest is missing; restore it or ingest again"
        )
    return version


def _find(uri: str, version: str) -> str:
    if not _is_version(version) and (len(version) < MIN_PREFIX or not _is_version(version.ljust(64, "0"))):
        raise InputError(f"version {version!r}: expected {MIN_PREFIX} to 64 hex digits in lower case")
    if _is_version(version) and storage.exists(storage.join(uri, manifest_path(version))):
        return version  # without a listing, which a web server may not give
    known = versions_there(uri)
    matches = [name for name in known if name.startswith(version)]
    if len(matches) != 1:
        absent = removal(uri, version) or "is not here"
        state = f"fits {len(matches)} versions, give more digits" if matches else absent
        raise InputError(
            f"{uri}: version {version} {state}; there are: {', '.join(n[:12] for n in known[:10]) or 'none'}"
        )
    return matches[0]


def _named_by(record: Any, where: str) -> str:
    """The version that a log record names. Raises CorruptError."""
    version = record.get("version") if isinstance(record, dict) and len(record) == 1 else None
    require(isinstance(version, str) and _is_version(version), where, "version", record, "64 hex digits")
    return str(version)


def _is_version(text: str) -> bool:
    """Whether this is a whole version (not a prefix of one)."""
    return bool(_VERSION.fullmatch(text))


def _log(uri: str) -> str:
    return storage.join(uri, "log")


def _require_shards(uri: str, manifest: Manifest) -> None:
    for split in manifest.splits.values():
        for shard in split.shards:
            found = storage.size(storage.join(uri, shard.path))
            if found != shard.bytes:
                raise InputError(f"{uri}/{shard.path}: {found} bytes, the manifest says {shard.bytes}; write it again")
