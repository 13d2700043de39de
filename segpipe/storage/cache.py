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
import functools
import hashlib
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from segpipe.errors import CorruptError, InputError
from segpipe.storage import local, object_store, ranges
from segpipe.storage.budget import RetryBudget
from segpipe.storage.faults import FULL, NOT_OURS, explain_read, explain_write
from segpipe.storage.turns import turn
from segpipe.storage.uris import is_temporary, local_path, temporary_name

_log = logging.getLogger(__name__)
DEFAULT_GIB = 32.0
FULL_SECONDS = 60.0  # for how long a disk that was full is taken to be so
_NAME = re.compile(r"[0-9a-f]{64}")
_full: dict[Path, tuple[float, int]] = {}  # folder: until when there is no room, and for how many bytes
_spoilt: set[Path] = set()  # damaged copies that this user may not remove


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
    """Removes the copy of that name: it was found damaged. Where that is another user's right, it is not used again."""
    path = cache_folder() / sha256
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise explain_write(error, str(path), 0) from error
        _spoilt.add(path)


def find_cached(sha256: str) -> Path | None:
    """The copy of that name if there is one, as `fetch` gives it; nothing is downloaded."""
    path = cache_folder() / sha256
    try:
        return path if cache_limit() and path not in _spoilt and _use(path) else None
    except OSError as error:
        raise explain_read(error, str(path)) from error


def fetch(
    uri: str,
    *,
    sha256: str,
    size: int,
    budget: RetryBudget | None = None,
    on_landing: Callable[[], None] = lambda: None,
) -> Path | None:
    """A local copy of a remote file with this content; None when the cache is off or has no room, which is said once.

    The copy was checked when it landed, not now, and may be gone when it is opened: then fetch again. `on_landing` is
    called where it landed in this call. Raises CorruptError when the file differs from its hash twice, InputError
    (missing; the folder cannot be written), UnreachableError.
    """
    limit = cache_limit()
    path = cache_folder() / sha256
    if not limit or path in _spoilt:
        return None
    if size > limit:
        _say_once(f"{path.parent}: the limit of {limit:,} bytes (SEGPIPE_CACHE_GIB) is less than one file of {size:,}")
        return None
    try:
        if _use(path):
            return path
        if _known_full(path.parent, size):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        with turn(path, path.parent / "locks") as working:  # one downloads a file, the others wait for it
            if not path.exists():
                _make_room(path.parent, limit - size)
                # Looked at first: else each row group of an epoch would download its file to find the disk full.
                if shutil.disk_usage(path.parent).free < size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                _land(uri, path, sha256, size, budget, working)
                on_landing()
                # Once more: others landed meanwhile, who had counted without this one.
                _make_room(path.parent, limit, landed=path.name)
    except OSError as error:
        if error.errno not in FULL:
            raise explain_write(error, str(path.parent), size) from error
        if path.parent not in _full:
            _say(f"{path.parent}: no room for {size:,} bytes ({error.strerror})")
        _full[path.parent] = (time.monotonic() + FULL_SECONDS, size)
        return None
    return path


def _known_full(folder: Path, size: int) -> bool:
    until, needed = _full.get(folder, (0.0, 0))
    return size >= needed and time.monotonic() < until


def _use(path: Path) -> bool:
    """Whether the copy is there; what was used last goes last."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        return path.exists()  # as good to read, but it does not grow younger
    return True


def _land(
    uri: str, path: Path, sha256: str, size: int, budget: RetryBudget | None, working: Callable[[], None]
) -> None:
    """Downloads to a temporary name, checks, renames. What arrived damaged is fetched once more.

    `working` is called after each piece.
    """
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
                    working()
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
            with contextlib.suppress(PermissionError):  # another user's, in a folder that lets each remove its own
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


@functools.cache
def _say_once(what: str) -> None:
    _say(what)


def _say(what: str) -> None:
    _log.warning("%s; reading from the store without it: make room, or set SEGPIPE_CACHE or SEGPIPE_CACHE_GIB", what)
