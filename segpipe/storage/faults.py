"""Failpoints for the crash tests, and operating system errors turned into segpipe's own with what to do about them."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segpipe.errors import InputError, SegpipeError, StorageFullError, UnreachableError
from segpipe.storage.uris import local_path

# EFBIG is a quota too: the file size limit of the process (ulimit -f).
NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS}  # another user's, or a disk that nobody may write
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MISSING = {errno.ENOENT}
_REFUSED = NOT_OURS | {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
_AWAY = {errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN}

_visits: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kills the process as SIGKILL would, when `SEGPIPE_FAILPOINT=name:n` and this is visit `n` (from 1) of `name`.

    The name `*` counts the visits of all failpoints, so that a test can die at every step without knowing them.
    """
    wanted = os.environ.get("SEGPIPE_FAILPOINT")
    if not wanted:
        return
    target, separator, visit = wanted.rpartition(":")
    if not separator or not visit.isdigit():
        raise InputError(f"SEGPIPE_FAILPOINT={wanted!r}: expected NAME:N, for example publish.manifest:1")
    if target in (name, "*"):
        _visits[target] += 1
        if _visits[target] == int(visit):
            os._exit(137)


def explain_read(error: OSError, uri: str) -> SegpipeError:
    """The error to raise when reading `uri` failed with `error`."""
    if error.errno in _MISSING or error.errno == errno.ENOTDIR:
        return InputError(f"{uri}: no such file or folder; check the path")
    if error.errno in _AWAY:
        return UnreachableError(f"{uri}: the file system did not answer: {error.strerror}; check the mount")
    if error.errno in _REFUSED:
        return InputError(f"{uri}: cannot be read: {error.strerror}; give user id {os.geteuid()} the right to read it")
    return SegpipeError(f"{uri}: reading failed: {error.strerror or error}; check the disk")


def explain_write(error: OSError, uri: str, needed: int) -> SegpipeError:
    """The error to raise when writing about `needed` bytes to `uri` failed with `error`."""
    if error.errno in FULL:
        return StorageFullError(
            f"{uri}: no room ({error.strerror}): {needed:,} bytes are needed{_free(uri)}; "
            "make room or choose another destination, then run again. Nothing that was there before is touched"
        )
    if error.errno in _AWAY:
        return UnreachableError(f"{uri}: the file system did not answer: {error.strerror}; check the mount")
    if error.errno in _REFUSED or error.errno in _MISSING:
        # "File exists" would puzzle: mkdir says so when a plain file stands in the middle of the path.
        reason = "a file stands where a folder is needed" if error.errno == errno.EEXIST else error.strerror
        return InputError(
            f"{uri}: cannot be written: {reason} ({error.filename or uri}); "
            f"choose a folder in which user id {os.geteuid()} may write"
        )
    return SegpipeError(f"{uri}: writing failed: {error.strerror or error}; check the disk")


@contextmanager
def writing(uri: str, needed: Callable[[], int]) -> Iterator[None]:
    """Turns an OSError of the block into ours. For files that a library writes; `needed()` gives the bytes."""
    try:
        yield
    except OSError as error:
        raise explain_write(error, uri, needed()) from error


def _free(uri: str) -> str:
    folder = local_path(uri)
    while folder is not None and folder != folder.parent and not folder.is_dir():
        folder = folder.parent
    return "" if folder is None else f", {_free_bytes(folder):,} are free in {folder}"


def _free_bytes(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize
