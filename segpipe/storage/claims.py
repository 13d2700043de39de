"""Who uses a folder, any number at once: small files that are renewed while the work goes on and expire by themselves.

    <folder>/<token>-<count>.json      one claim; the next count every minute, the one before it is removed

A `lease` is for one worker at a time. Claims are for many, of several kinds, and for one that must know of them all:
each writes its own before it reads those of the others, so that of two that come at once at least one sees the other.
Time is told by the store alone: the age of a claim is the difference to one that was written just now. A killed
process's claim ends at once on its own host, elsewhere ten minutes after its last renewal.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from segpipe.errors import CorruptError, InputError, SegpipeError
from segpipe.storage.documents import canonical_json, read_json
from segpipe.storage.files import delete, sweep, write_once
from segpipe.storage.inventory import Entry, inventory
from segpipe.storage.process import Signed, host_tag, is_running, signature
from segpipe.storage.uris import join

_log = logging.getLogger(__name__)

RENEW_SECONDS = 60.0
EXPIRED_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim(Signed):
    """One use of a folder. `kind` and `about` are the caller's words."""

    kind: str
    about: str


@contextmanager
def claim(folder_uri: str, *, kind: str, about: str, who: str) -> Iterator[Claim]:
    """Keeps a claim in `folder_uri` while the block runs, and removes those of processes that are gone.

    Raises InputError (the folder cannot be written), StorageFullError, UnreachableError.
    """
    sweep(folder_uri)
    mine = Claim(kind=kind, about=about, **signature(who))
    first = _write(folder_uri, mine, 0)
    ended = threading.Event()
    heart = threading.Thread(target=_renew, args=(folder_uri, mine, first, ended), name="segpipe-claim", daemon=True)
    heart.start()
    try:
        yield mine
    finally:
        ended.set()
        heart.join(RENEW_SECONDS)
        _withdraw(folder_uri, mine)


def claimants(folder_uri: str, *, beside: Claim | None = None) -> list[Claim]:
    """The claims of others that are alive, oldest first. `beside` is ours, which also tells the store's time.

    With it, the files of claims that have ended are removed; without, nothing is, and this host's clock is read.
    Raises CorruptError for a file that is no claim.
    """
    files = _files(folder_uri)
    now = _written(files.pop(beside.token, [])) if beside else time.time()
    found = []
    for entries in files.values():
        known = _read(join(folder_uri, entries[-1].path))
        if known is None:
            continue
        if now - entries[-1].changed < EXPIRED_SECONDS and _may_be_alive(known):
            found.append(known)
        elif beside is not None:
            for entry in entries:
                delete(join(folder_uri, entry.path))
    return sorted(found, key=lambda each: (each.at, each.token))


def claim_time(folder_uri: str, mine: Claim) -> float:
    """When our claim was written last, in seconds since 1970 by the store's clock: at most a minute ago."""
    return _written(_files(folder_uri).get(mine.token, []))


def _written(files: list[Entry]) -> float:
    """Of the newest; this host's time where somebody has removed them all."""
    return files[-1].changed if files else time.time()


def _files(folder: str) -> dict[str, list[Entry]]:
    """The files of each claim, by its token; the newest is the last."""
    found: dict[str, list[Entry]] = {}
    for entry in sorted(inventory(folder), key=lambda each: (each.changed, each.path)):
        found.setdefault(entry.path.partition("-")[0], []).append(entry)
    return found


def _may_be_alive(known: Claim) -> bool:
    """False for a process of this host that is gone; elsewhere only time tells."""
    return known.place != host_tag() or is_running(known)


def _read(uri: str) -> Claim | None:
    """A claim; None when it was withdrawn meanwhile."""
    try:
        document: Any = read_json(uri)
        return Claim(**document)
    except InputError:
        return None
    except (CorruptError, TypeError) as error:
        raise CorruptError(
            f"{uri}: is no claim ({error}). Files there only say who is at work: make sure that nobody is, and delete "
            "this one"
        ) from error


def _write(folder: str, mine: Claim, count: int) -> str:
    uri = join(folder, f"{mine.token}-{count:06d}.json")
    write_once(uri, canonical_json(asdict(mine)))
    return uri


def _renew(folder: str, mine: Claim, current: str, ended: threading.Event) -> None:
    """A claim that is there throughout: a listing that is under way may miss a file that is just made, so the one
    before it goes a minute later."""
    count, previous = 0, ""
    while not ended.wait(RENEW_SECONDS):
        count += 1
        try:
            latest = _write(folder, mine, count)
            if previous:
                delete(previous)
            previous, current = current, latest
        except SegpipeError as error:
            _log.warning("%s: could not show that this process is at work there, trying again: %s", folder, error)


def _withdraw(folder: str, mine: Claim) -> None:
    """Removes our files. What the block did stands, whether or not this succeeds."""
    try:
        for entry in _files(folder).get(mine.token, ()):
            delete(join(folder, entry.path))
    except SegpipeError as error:
        _log.warning("%s: a claim of this process was not withdrawn; it expires by itself: %s", folder, error)
