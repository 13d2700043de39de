"""The commit primitive on a local file system, and reading that cannot hang.

Create-if-absent is `os.link` of a finished, fsynced temporary file in the same folder: the kernel refuses it when the
name exists. fsspec's own "create" mode is not atomic (it looks, then writes). The folder is fsynced after the link, or
a power cut could forget the name.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
import time
from pathlib import Path

from segpipe.errors import ConflictError, InputError
from segpipe.storage.faults import explain_read, explain_write, failpoint
from segpipe.storage.process import host_tag, is_alive
from segpipe.storage.uris import is_temporary, temporary_name, temporary_owner

LEFTOVER_SECONDS = 3600.0
_BLOCK_BYTES = 4096  # what a folder takes on most file systems
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def open_regular(path: Path, uri: str) -> io.BufferedReader:
    """Opens a regular file to read. Without O_NONBLOCK a FIFO of that name would hang an unattended night."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise explain_read(error, uri) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise InputError(f"{uri}: is not a regular file but a folder or device; give the path of a file")


def create(path: Path, data: bytes, uri: str) -> bool:
    """Puts `data` under `path` if nothing is there. True = created, False = the very same bytes are there."""
    if os.path.lexists(path):
        return _same(path, uri, data)
    temporary = _stage_bytes(path, data, uri)
    try:
        return _link(temporary, path, uri) or _same(path, uri, data)
    finally:
        temporary.unlink()


def create_from_file(source: Path, path: Path, uri: str) -> bool:
    """As `create` for a finished local file. One in a temporary folder of ours beside `path` is linked, else copied.

    A link shares its bytes with `source`: safe for a temporary that vanishes, not for a file that its owner may edit.
    """
    if os.path.lexists(path):
        return _same_file(path, uri, source)
    if is_temporary(source.as_posix()) and _made(path.parent, uri).resolve() in source.resolve().parents:
        _fsync(source, uri, source.stat().st_size)
        failpoint("commit.staged")
        return _link(source, path, uri) or _same_file(path, uri, source)
    temporary = _stage_copy(path, source, uri)
    try:
        return _link(temporary, path, uri) or _same_file(path, uri, source)
    finally:
        temporary.unlink()


def make_scratch(folder: Path, uri: str) -> Path:
    """A fresh private folder below `folder`, under a temporary name."""
    path = _made(folder, uri) / temporary_name()
    try:
        path.mkdir(mode=0o700)
    except OSError as error:
        raise explain_write(error, uri, _BLOCK_BYTES) from error
    return path


def sweep(folder: Path, *, now: float | None = None) -> list[str]:
    """Removes leftovers directly below `folder`; gives their names.

    Those of this host go when their process is gone; those of others when untouched for an hour (their process ids
    mean nothing here). Others may sweep the same folder: what is gone already, and what is not ours to remove, is
    passed over.
    """
    removed = []
    clock = time.time() if now is None else now
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        owner = temporary_owner(entry.name)
        if owner is None:
            continue
        age = clock - _touched(entry)
        abandoned = not is_alive(owner.pid) if owner.host == host_tag() else age > LEFTOVER_SECONDS
        if abandoned and _remove(entry):
            removed.append(entry.name)
    return removed


def _stage_bytes(path: Path, data: bytes, uri: str) -> Path:
    temporary = _made(path.parent, uri) / temporary_name()
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise explain_write(error, uri, len(data)) from error
    failpoint("commit.staged")
    return temporary


def _stage_copy(path: Path, source: Path, uri: str) -> Path:
    temporary = _made(path.parent, uri) / temporary_name()
    with open_regular(source, str(source)) as original:
        needed = os.fstat(original.fileno()).st_size
        try:
            with open(temporary, "xb") as file:
                shutil.copyfileobj(original, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise explain_write(error, uri, needed) from error
    failpoint("commit.staged")
    return temporary


def _link(temporary: Path, path: Path, uri: str) -> bool:
    """True when `path` is now our file; False when the name was taken."""
    try:
        os.link(temporary, path)
        created = True
    except FileExistsError:
        # NFS may carry out a link and lose the reply; its retry then finds our own file.
        created = os.path.samestat(temporary.stat(), path.lstat())
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise InputError(
                f"{uri}: the file system of {path.parent} refuses hard links ({error.strerror}), which an atomic "
                "commit needs; choose a folder on a local disk or on NFS, or an s3:// URI"
            ) from error
        raise explain_write(error, uri, temporary.stat().st_size) from error
    failpoint("commit.created")
    _fsync(path.parent, uri, _BLOCK_BYTES)
    return created


def _same(path: Path, uri: str, data: bytes) -> bool:
    with open_regular(path, uri) as file:
        there = file.read(len(data) + 1)
    if there != data:
        raise conflict(uri, len(data), hashlib.sha256(data).hexdigest())
    return False


def _same_file(path: Path, uri: str, source: Path) -> bool:
    with open_regular(source, str(source)) as ours, open_regular(path, uri) as theirs:
        digest = hashlib.file_digest(ours, "sha256").hexdigest()
        if hashlib.file_digest(theirs, "sha256").hexdigest() != digest:
            raise conflict(uri, source.stat().st_size, digest)
    return False


def conflict(uri: str, size: int, digest: str) -> ConflictError:
    """The error for "the name is taken by something else"; `size` and `digest` are those of what we brought."""
    return ConflictError(
        f"{uri}: another writer committed something different under this name; what it wrote stands. "
        f"Ours ({size:,} bytes, sha256 {digest[:12]}) was not stored: read what is there, then decide again"
    )


def _made(folder: Path, uri: str) -> Path:
    """Creates `folder` with its parents, each name made durable."""
    missing, present = [], folder
    try:
        while not present.is_dir() and present != present.parent:
            missing.append(present)
            present = present.parent
        for name in reversed(missing):
            name.mkdir(exist_ok=True)
            _fsync(name.parent, uri, _BLOCK_BYTES)
    except OSError as error:
        raise explain_write(error, uri, _BLOCK_BYTES) from error
    return folder


def _fsync(path: Path, uri: str, needed: int) -> None:
    """Makes `path` durable. Some disks say only now that they are full, or gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise explain_write(error, uri, needed) from error


def _touched(entry: Path) -> float:
    """When something in `entry` last changed; now, if somebody removes it while we look, or it is not ours to see."""
    try:
        inside = list(entry.iterdir()) if entry.is_dir() and not entry.is_symlink() else []
        return max(path.lstat().st_mtime for path in [entry, *inside])
    except OSError:
        return time.time()


def _remove(entry: Path) -> bool:
    """Whether `entry` was there and is gone now."""
    try:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    except OSError:
        return False
    return True
