"""One worker at a time: a lease on a folder, between processes and hosts that share nothing but the store.

    <folder>/000001.json      who took it or gave it back: numbered records, so that of two takers one wins
    <folder>/beats/           while it is held: one empty file, replaced by another every 15 s

An owner on this host whose process is gone lost its lease at once: a killed night goes on without a wait. One elsewhere
is watched, and lost it when its beat stands still. No clock is read for that: clocks of two hosts may differ.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from segpipe.errors import ConflictError, CorruptError, SegpipeError
from segpipe.storage.documents import append_record, last_record
from segpipe.storage.files import delete, write_once
from segpipe.storage.inventory import list_names
from segpipe.storage.process import Signed, host_tag, is_running, now, signature
from segpipe.storage.uris import join

_log = logging.getLogger(__name__)

BEAT_SECONDS = 15.0
ABANDONED_SECONDS = 90.0
LOOK_SECONDS = 3.0
HELD, RELEASED = "held", "released"
# The leases of this process. One that stands in the store under our process id and is not here was never given back,
# because the store was down then, or is that of an earlier process with our id.
_ours: set[str] = set()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Owner(Signed):
    """One record."""

    state: str


@contextmanager
def lease(folder_uri: str, *, what: str, who: str) -> Iterator[None]:
    """Holds the lease of `folder_uri` while the block runs. `what` it is on and `who` we are is for people to read.

    Raises ConflictError, which names the owner, when somebody else holds it: at once for one on this host, for another
    after up to 90 s, in which its beat is watched. Also CorruptError, and what storage raises. Should this process be
    stopped for so long that another one takes the lease, the log says so when it goes on; the block is not stopped.
    """
    mine = _Owner(state=HELD, **signature(who))
    _ours.add(mine.token)
    try:
        number = _take(folder_uri, what, mine)
        ended = threading.Event()
        heart = threading.Thread(
            target=_beat, args=(folder_uri, what, number, ended), name="segpipe-lease", daemon=True
        )
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join(LOOK_SECONDS)
            _release(folder_uri, what, number, mine)
    finally:
        _ours.discard(mine.token)


def _take(folder: str, what: str, mine: _Owner) -> int:
    """The number of our record. Whoever writes the next number has the lease; the loser looks again."""
    while True:
        number, owner = _last(folder, what)
        if owner is not None and owner.state == HELD:
            if _is_at_work(folder, what, owner):
                if _last(folder, what)[0] != number:
                    continue  # given back while we watched
                raise ConflictError(
                    f"{what}: process {owner.pid} on {owner.host} (user {owner.who}) has worked on it since "
                    f"{owner.at}, and two at once would spoil each other's work. Wait until that process has ended, or "
                    "end it, then run the same command again: it goes on from what is there"
                )
            _log.warning(
                "%s: process %d on %s, which worked on it since %s, is gone; going on from what it left",
                what,
                owner.pid,
                owner.host,
                owner.at,
            )
        try:
            number = append_record(folder, asdict(mine), after=number)
        except ConflictError:
            continue
        _remove_beats(folder)
        return number


def _last(folder: str, what: str) -> tuple[int, _Owner | None]:
    try:
        last = last_record(folder)
        return (0, None) if last is None else (last[0], _owner(last[1]))
    except CorruptError as error:
        raise CorruptError(
            f"{error}. The files of {folder} only say who works on {what}: make sure that nobody does, delete that "
            "folder and run the same command again"
        ) from error


def _owner(document: dict[str, Any]) -> _Owner:
    try:
        return _Owner(**document)
    except TypeError as error:
        raise CorruptError(f"the last record is not one of a lease ({error})") from None


def _is_at_work(folder: str, what: str, owner: _Owner) -> bool:
    """Whether the owner of a held lease is there: known at once on this host, seen by its beat elsewhere."""
    if owner.place == host_tag():
        return owner.token in _ours if owner.pid == os.getpid() else is_running(owner)
    _log.warning("%s: process %d on %s holds it; watching whether it is alive", what, owner.pid, owner.host)
    before, until = _beats(folder), time.monotonic() + ABANDONED_SECONDS
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        if _beats(folder) != before:
            return True
    return False


def _beat(folder: str, what: str, number: int, ended: threading.Event) -> None:
    """Shows that we are alive until `ended`. A store that is away is tried again; a lease that was taken is let go."""
    count = 0
    while not ended.wait(BEAT_SECONDS):
        count += 1
        try:
            if _last(folder, what)[0] != number:
                _log.error(
                    "%s: another process took the work over, since this one did not answer for %.0f s; end this one",
                    what,
                    ABANDONED_SECONDS,
                )
                return
            old = _beats(folder)
            write_once(join(folder, "beats", f"{number:06d}-{count:06d}"), b"")
            for uri in old:
                delete(uri)
        except SegpipeError as error:
            _log.warning("%s: could not show that this process works on it, trying again: %s", what, error)


def _release(folder: str, what: str, number: int, mine: _Owner) -> None:
    """Gives the lease back. What the block did stands, whether or not this succeeds."""
    try:
        append_record(folder, asdict(replace(mine, state=RELEASED, at=now())), after=number)
        _remove_beats(folder)
    except SegpipeError as error:
        _log.warning("%s: its lease was not given back; it ends with this process: %s", what, error)


def _beats(folder: str) -> list[str]:
    beats = join(folder, "beats")
    return [join(beats, name) for name in list_names(beats)]


def _remove_beats(folder: str) -> None:
    for uri in _beats(folder):
        delete(uri)
