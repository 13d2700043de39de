"""Copies of remote files on this machine's disk, named by their content, up to a limit of bytes.

Used by `shards/`, whose files are immutable and known by their hash. `SEGPIPE_CACHE` names the folder (default: `cache`
in the home), `SEGPIPE_CACHE_GIB` its limit (default 32; 0 turns it off), which only what is just landing exceeds. All
processes of a machine share it without a server: a file lands under a temporary name, is checked against its hash and
renamed; the least recently opened go first; a file that somebody has open may lose its name and is readable to the end,
as POSIX has it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from segpipe.errors import CorruptError, InputError
from segpipe.storage import local, object_store, ranges
from segpipe.storage.budget import RetryBudget
from segpipe.storage.faults import FULL, explain_read, explain_write
from segpipe.storage.uris import is_temporary, local_path, temporary_name

_log = logging.getLogger(__name__)
DEFAULT_GIB = 32.0
# One process downloads a file, the others wait for it; a process that was stopped holds them up no longer than this.
LONGEST_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.02
_NAME = re.compile(r"[0-9a-f]{64}")
_LOCKS = 256


def cache_folder() -> Path:
    """`$SEGPIPE_CACHE`, or `cache` in `$SEGPIPE_HOME`, or `~/.cache/segpipe` where the home is no local folder.

    Raises InputError when `SEGPIPE_CACHE` is not a local path.
    """
    chosen = os.environ.get("SEGPIPE_CACHE")
    folder = local_path(chosen or os.environ.get("SEGPIPE_HOME") or ".segpipe")
    if chosen and folder is None:
        raise InputError(f"SEGPIPE_CACHE={chosen!r} is no local folder; name one on this machine's disk")
    if folder is None:  # not the working folder: each process of a cluster may have another
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "segpipe"
    return folder.expanduser().absolute() / ("" if chosen else "cache")


def cache_limit() -> int:
    """The most bytes that the cache may take; 0 when it is off. Raises InputError for no such number."""
    text = os.environ.get("SEGPIPE_CACHE_GIB") or str(DEFAULT_GIB)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise InputError(f"SEGPIPE_CACHE_GIB={text!r}: expected GiB from 0 (no cache) on, such as 32 or 0.5")
    return int(limit * 2**30)


def cached_bytes() -> int:
    """What the cache takes at present, with what is just landing. Raises InputError when it cannot be looked at."""
    folder = cache_folder()
    try:
        return sum(size for _, size, _ in _entries(folder))
    except OSError as error:
        raise explain_read(error, str(folder)) from error


def forget_cached(sha256: str) -> None:
    """Removes the copy of that name: it was found damaged."""
    (cache_folder() / sha256).unlink(missing_ok=True)


def fetch(uri: str, *, sha256: str, size: int, budget: RetryBudget | None = None) -> Path | None:
    """A local copy of a remote file with this content; None when the cache is off or has no room, which is said once.

    The copy was checked when it landed, not now, and may be gone when it is opened: then fetch again. Raises
    CorruptError when the file differs from its hash twice, InputError (missing; the folder cannot be written),
    UnreachableError.
    """
    limit = cache_limit()
    if not limit:
        return None
    path = cache_folder() / sha256
    if size > limit:
        _say_once(f"{path.parent}: the limit of {limit:,} bytes (SEGPIPE_CACHE_GIB) is less than one file of {size:,}")
        return None
    try:
        if _use(path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.exists():
                _make_room(path.parent, limit - size)
                _land(uri, path, sha256, size, budget)
                # Once more: others landed meanwhile, who had counted without this one.
                _make_room(path.parent, limit, landed=path.name)
    except OSError as error:
        if error.errno not in FULL:
            raise explain_write(error, str(path.parent), size) from error
        _say_once(f"{path.parent}: no room for {size:,} bytes ({error.strerror})")
        return None
    return path


def _use(path: Path) -> bool:
    """Whether the copy is there; what was used last goes last."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's copy: as good to read, but it does not grow younger
        return path.exists()
    return True


def _land(uri: str, path: Path, sha256: str, size: int, budget: RetryBudget | None) -> None:
    """Downloads to a temporary name, checks, renames. What arrived damaged is fetched once more."""
    found = object_store.attempt(uri, lambda filesystem, name: int(filesystem.size(name)), budget=budget)
    if found != size:
        raise CorruptError(f"{uri}: {found} bytes, the manifest says {size}; restore the file or ingest again")
    temporary = path.parent / temporary_name()
    try:
        for last in (False, True):
            digest = hashlib.sha256()
            # Not fsynced: after a power cut each process that opens the copy finds out by its hash.
            with open(temporary, "wb") as file:
                for piece in ranges.pieces(uri, size, budget=budget):
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() == sha256:
                os.replace(temporary, path)
                return
            if last:
                raise CorruptError(
                    f"{uri}: sha256 {digest.hexdigest()[:12]}, the manifest says {sha256[:12]}, fetched twice; restore "
                    "the file from a copy, or delete it and ingest again"
                )
            _log.warning("%s: arrived with sha256 %s, not %s; fetching it again", uri, digest.hexdigest(), sha256)
    finally:
        temporary.unlink(missing_ok=True)


def _make_room(folder: Path, target: int, *, landed: str = "") -> None:
    """Removes the files that were opened longest ago until `target` bytes are left, but not the one that just landed;
    first of all what killed processes left.

    Several processes may do so at once and then remove some too many, which costs a download.
    """
    local.sweep(folder)
    entries = sorted(_entries(folder))
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total <= target:
            return
        if path.name != landed and not is_temporary(path.name):
            path.unlink(missing_ok=True)
            total -= size


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of what lies in the cache; files that are not its own do not count."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process made room meanwhile
                ours = _NAME.fullmatch(entry.name) or is_temporary(entry.name)
                if ours and entry.is_file(follow_symlinks=False):
                    state = entry.stat(follow_symlinks=False)
                    found.append((state.st_mtime, state.st_size, Path(entry.path)))
    return found


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One thread or process at a time for a file, as long as all goes well; the kernel frees it when the holder dies.

    Two at once do no harm but for a download in vain, so a lock that cannot be had in time, or at all (some network
    file systems know none), is gone without. The lock files are few and stay: removing one would race.
    """
    locks = path.parent / "locks"
    locks.mkdir(exist_ok=True)
    slot = int(hashlib.sha256(path.name.encode()).hexdigest(), 16) % _LOCKS
    descriptor = os.open(locks / f"{slot:02x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        ends = time.monotonic() + LONGEST_WAIT_SECONDS
        while not _locked(descriptor) and time.monotonic() < ends and not path.exists():
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
    return True


@functools.cache
def _say_once(what: str) -> None:
    _log.warning("%s; reading from the store without it: make room, or set SEGPIPE_CACHE or SEGPIPE_CACHE_GIB", what)
