"""What of a dataset nobody needs, and its removal in an order that a kill may interrupt anywhere.

Notes come first (`removed/<version>.json`: the log goes on naming the version, and a note tells a removal from a loss),
then receipts, then manifests, and shards last: a manifest that is there always has its shards. What an interrupted
removal leaves belongs to no manifest, and the next one takes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from segpipe import storage
from segpipe.errors import ConflictError, CorruptError
from segpipe.shards import open_dataset
from segpipe.shards.manifest import manifest_path
from segpipe.shards.versions import versions_logged, versions_there
from segpipe.stages import at_work
from segpipe.stages.gc.outcome import Going, Staying
from segpipe.stages.numbers import counted, file_size
from segpipe.storage import Claim, Entry
from segpipe.user import current_user

# The files that an ingest or a prediction writes; whatever else lies in a dataset's folder is not ours to remove.
_VERSIONED = re.compile(r"(manifests|fingerprints)/([0-9a-f]{64})\.json")
_OURS = re.compile(
    r"shards/[A-Za-z0-9_.-]+-[0-9a-f]{20}\.parquet|quarantine/[0-9a-f]{20}\.json|(receipts|predicted)/[^/]+\.json"
)
# Who needs whom: each kind only after all of the kinds before it.
_ORDER = ("receipts", "predicted", "manifests", "fingerprints", "quarantine", "shards")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What goes, in the order of removal; `versions` are those that end with it, `kept` those that stay."""

    going: tuple[Going, ...]
    staying: tuple[Staying, ...]
    versions: tuple[str, ...]
    kept: frozenset[str]


def require(uri: str) -> str | None:
    """The current version of the dataset at `uri`; None where its first ingest has published nothing, and left parts.

    Raises InputError where there is neither, CorruptError.
    """
    if storage.last_record(storage.join(uri, "log")) is None and any(_is_ours(e.path) for e in storage.inventory(uri)):
        return None
    return open_dataset(uri).version


def plan(
    uri: str,
    *,
    keep: int,
    min_age: float,
    named: Mapping[str, str],
    readers: Sequence[Claim],
    now: float,
) -> Plan:
    """What of the dataset at `uri` may go. `min_age` is in seconds until `now`, which is by the store's clock.

    Raises InputError where there is no dataset, CorruptError where a manifest that stays cannot be read: which shards
    it needs is not known then, and nothing may be removed.
    """
    current = require(uri)
    entries = storage.inventory(uri)
    latest = list(dict.fromkeys(reversed(versions_logged(uri))))
    there = {
        match[2]: each for each in entries if (match := _VERSIONED.fullmatch(each.path)) and match[1] == "manifests"
    }
    # By what there is: of versions that were removed before, none counts as one of the last.
    last = [version for version in latest if version in there][:keep]
    reasons = {
        version: _reason(version, current, last, named, readers, young=now - manifest.changed < min_age)
        for version, manifest in there.items()
    }
    kept = frozenset(version for version, reason in reasons.items() if reason)
    needed = {path for version in kept for path in _needed(uri, version)}
    loose = [each for each in entries if _is_ours(each.path) and not _is_kept(uri, each, kept, needed)]
    young = [each for each in loose if now - each.changed < min_age]
    old = [each for each in loose if now - each.changed >= min_age]
    going = [_going(each, there, published=current is not None) for each in old]
    order = [version for version in latest if version in kept] + sorted(kept - set(latest))
    staying = [Staying(kind="version", name=f"version {v[:12]}", why=reasons[v]) for v in order]
    if young:
        size = sum(each.bytes for each in young)
        why = f"changed less than {min_age / 3600:g} hours ago; an ingest may be about to name them"
        name = f"{counted(len(young), 'file')} of no version, {file_size(size)}"
        staying.append(Staying(kind="files", name=name, why=why))
    return Plan(
        going=tuple(sorted(going, key=lambda each: (_ORDER.index(each.path.split("/")[0]), each.path))),
        staying=tuple(staying),
        versions=tuple(sorted(there.keys() - kept)),
        kept=kept,
    )


def remove(uri: str, plan: Plan) -> Iterator[Going]:
    """Removes what a plan names, and gives each when it is gone; the caller holds the collector's claim. What is gone
    already is passed over.

    Raises ConflictError where a version was published meanwhile by somebody who does not claim the dataset.
    """
    for version in plan.versions:
        note = storage.join(uri, "removed", f"{version}.json")
        if not storage.exists(note):
            at = datetime.now(UTC).isoformat(timespec="seconds")
            storage.write_json_once(note, {"version": version, "at": at, "who": current_user()})
    storage.failpoint("gc.noted")
    for kind in _ORDER:
        mine = {storage.join(uri, each.path): each for each in plan.going if each.path.startswith(f"{kind}/")}
        if kind == "shards" and mine:
            _require_unchanged(uri, plan)
        for file in storage.delete_each(list(mine)):
            yield mine[file]
            storage.failpoint("gc.removed")
    for folder in (*_ORDER, "removed"):
        storage.sweep(storage.join(uri, folder))


def _require_unchanged(uri: str, plan: Plan) -> None:
    if new := set(versions_there(uri)) - plan.kept:
        raise ConflictError(
            f"{uri}: version {min(new)[:12]} was published while this ran; its shards may be among those to remove, "
            "and they were left. Run the same again"
        )


def _reason(
    version: str,
    current: str | None,
    last: Sequence[str],
    named: Mapping[str, str],
    readers: Sequence[Claim],
    *,
    young: bool,
) -> str:
    """Why a version stays; empty for one that may go."""

    def reasons() -> Iterator[str]:
        if version == current:
            yield "the current one"
        elif version in last:
            yield f"one of the last {len(last)}"
        if by := next((by for name, by in named.items() if version.startswith(name)), None):
            yield f"{by} names it"
        yield from (f"{at_work.told(reader)} reads it" for reader in readers if reader.about == version)
        if young:
            yield "too young"

    return "; ".join(reasons())


def _needed(uri: str, version: str) -> Iterator[str]:
    """The files that a version needs, besides those that are named by it."""
    manifest = open_dataset(uri, version=version).manifest
    yield manifest_path(version)
    yield from (shard.path for split in manifest.splits.values() for shard in split.shards)
    if manifest.quarantine_path is not None:
        yield manifest.quarantine_path


def _is_ours(path: str) -> bool:
    return bool(_VERSIONED.fullmatch(path) or _OURS.fullmatch(path))


def _is_kept(uri: str, entry: Entry, kept: frozenset[str], needed: set[str]) -> bool:
    if match := _VERSIONED.fullmatch(entry.path):
        return match[2] in kept
    if entry.path.startswith("receipts/"):
        return _noted(storage.join(uri, entry.path), "version") in kept
    if entry.path.startswith("predicted/"):
        return _noted(storage.join(uri, entry.path), "written", "result", "shard", "path") in needed
    return entry.path in needed


def _noted(uri: str, *keys: str) -> str | None:
    """The text that a receipt, or the record of a predicted part, has under these keys, one in the other; None of a
    damaged one: it only saves work, and such a one saves none."""
    try:
        found = storage.read_json(uri)
    except CorruptError:
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _going(entry: Entry, there: Mapping[str, Entry], *, published: bool) -> Going:
    match = _VERSIONED.fullmatch(entry.path)
    if match and match[2] in there:
        return Going(path=entry.path, bytes=entry.bytes, why=f"version {match[2][:12]} goes", version=match[2])
    why = "no version that stays needs it" if published else "left by an ingest that published nothing"
    return Going(path=entry.path, bytes=entry.bytes, why=why)
