"""The verbs of storage, each on a local path or on an object store. What another room calls is here."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segpipe.errors import ConflictError, InputError, TooLargeError
from segpipe.storage import local, object_store, ranges
from segpipe.storage.budget import RetryBudget
from segpipe.storage.faults import explain_read, explain_write, failpoint
from segpipe.storage.uris import local_path

_CHUNK_BYTES = 8 << 20


def read_bytes(uri: str, *, limit: int | None = None) -> bytes:
    """The whole file. Raises InputError when it is missing or no regular file, TooLargeError above `limit` bytes.

    What has a limit is small in most cases: from a store it then comes in one request, which asks for a part.
    """
    path = local_path(uri)
    if path is None and limit is not None:
        asked = min(limit + 1, ranges.PIECE_BYTES)
        if len(data := ranges.beginning(uri, asked)) < asked:
            return data
    if limit is not None and (found := size(uri)) > limit:
        raise TooLargeError(f"{uri}: {found:,} bytes; at most {limit:,} are read here: is this the right file?")
    if path is None:
        return object_store.attempt(uri, lambda filesystem, name: bytes(filesystem.cat_file(name)))
    with local.open_regular(path, uri) as file:
        try:
            return file.read()  # of `limit` bytes it would take the memory at once
        except OSError as error:
            raise explain_read(error, uri) from error


def open_read(
    uri: str, *, size: int | None = None, budget: RetryBudget | None = None, buffer: int | None = None
) -> io.BufferedReader:
    """The file as a seekable stream of bytes. Raises as `read_bytes`.

    A store is not asked for the size where that is known; `budget` is shared with other reads; `buffer` is how many
    bytes a request asks for at the least (256 KiB if not said).
    """
    path = local_path(uri)
    if path is not None:
        return local.open_regular(path, uri)
    return ranges.open_read(uri, size=size, budget=budget, buffer=buffer)


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises UnreachableError when the store cannot tell."""
    path = local_path(uri)
    if path is None:
        return bool(object_store.attempt(uri, lambda filesystem, name: filesystem.exists(name)))
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise explain_read(error, uri) from error
    return True


def size(uri: str) -> int:
    """Bytes of a file. Raises InputError when it is missing."""
    path = local_path(uri)
    if path is None:
        return object_store.attempt(uri, lambda filesystem, name: int(filesystem.size(name)))
    try:
        return path.stat().st_size
    except OSError as error:
        raise explain_read(error, uri) from error


def fingerprint(uri: str) -> str:
    """Tells whether a file was touched since: size and times of change (of its bytes, and of its name, owner or
    permissions), or the store's ETag. Not a hash of its bytes."""
    path = local_path(uri)
    if path is None:
        return object_store.attempt(uri, object_store.stamp)
    try:
        found = path.stat()
    except OSError as error:
        raise explain_read(error, uri) from error
    return f"{found.st_size}/{found.st_mtime_ns}/{found.st_ctime_ns}"


def size_in(fingerprint: str) -> int:
    """The bytes of the file that a fingerprint speaks of."""
    return int(fingerprint.partition("/")[0])


def write_once(uri: str, data: bytes) -> bool:
    """The commit primitive: `uri` holds exactly `data` afterwards, durably, or an error says why not.

    True = created. False = the very same bytes were there already, or a lost reply hid that we created them. Raises
    ConflictError (taken by something else), StorageFullError, InputError (unwritable), UnreachableError.
    """
    path = local_path(uri)
    if path is not None:
        created = local.create(path, data, uri)
    else:
        failpoint("commit.staged")
        created = object_store.create(uri, data)
        failpoint("commit.created")
        if not created and read_bytes(uri) != data:
            raise local.conflict(uri, len(data), sha256_bytes(data))
    failpoint("commit.done")
    return created


def commit_file(source: str | Path, uri: str) -> bool:
    """As `write_once`, for a finished local file (a shard, weights). One made inside `scratch` is not copied."""
    source, path = Path(source), local_path(uri)
    if path is not None:
        created = local.create_from_file(source, path, uri)
    else:
        # Looked at first: uploading a large file again only to learn that it is there would cost as much as the first.
        failpoint("commit.staged")
        created = not exists(uri) and object_store.create_from_file(uri, source)
        failpoint("commit.created")
        if not created and sha256_file(uri) != (digest := sha256_file(str(source))):
            raise local.conflict(uri, source.stat().st_size, digest)
    failpoint("commit.done")
    return created


def replace(uri: str, data: bytes) -> None:
    """`uri` holds exactly `data` afterwards, whatever other file was there: one that is damaged, or made of what was
    changed since.

    For files that can be made again: whoever is killed meanwhile leaves none. Raises as `write_once`; ConflictError
    where somebody else writes other bytes at the same time.
    """
    try:
        write_once(uri, data)
    except ConflictError:
        delete(uri)
        write_once(uri, data)


def delete(uri: str) -> None:
    """Removes a file; nothing happens when it is absent."""
    path = local_path(uri)
    try:
        if path is None:
            object_store.attempt(uri, _remove_remote)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise explain_write(error, uri, 0) from error


def delete_tree(uri: str) -> None:
    """Removes a folder with all that is in it; nothing happens when it is absent. Refuses a root or a bucket."""
    path = local_path(uri)
    if path is None:
        object_store.attempt(uri, _remove_remote_tree)
        return
    if path.resolve() == path.resolve().parent:
        raise InputError(f"{uri}: is the root of a file system and is not deleted; name a folder below it")
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise explain_write(error, uri, 0) from error


def sweep(uri: str) -> list[str]:
    """Removes what killed writers left directly below a folder, and gives the names.

    Leftovers of this host go once their process is gone, those of other hosts after an hour without change. An object
    store keeps no temporary names, so nothing is to be done there. Raises InputError when the folder cannot be read.
    """
    path = local_path(uri)
    try:
        return [] if path is None else local.sweep(path)
    except OSError as error:
        raise explain_read(error, uri) from error


@contextmanager
def scratch(near: str | None = None) -> Iterator[Path]:
    """A private temporary folder, removed at the end.

    With `near` a local folder it lies in there, on the same file system, so that `commit_file` links and need not copy;
    a killed process's one is found by `sweep(near)`.
    """
    home = local_path(near) if near is not None else None
    folder = Path(tempfile.gettempdir()) if home is None else home
    path = local.make_scratch(folder, near or str(folder))
    try:
        yield path
    finally:
        # What cannot be removed is swept later; it must not hide how the block ended.
        shutil.rmtree(path, ignore_errors=True)


def sha256_bytes(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(uri: str, *, budget: RetryBudget | None = None) -> str:
    """SHA-256 of a file's bytes in hex, read in pieces. Raises as `open_read`."""
    digest = hashlib.sha256()
    with open_read(uri, budget=budget) as file:
        try:
            # One buffer for all pieces: as much time again would go into memory that is new to the process each time.
            buffer = memoryview(bytearray(_CHUNK_BYTES))
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
        except OSError as error:
            raise explain_read(error, uri) from error
    return digest.hexdigest()


def _remove_remote(filesystem: Any, name: str) -> None:
    try:
        filesystem.rm_file(name)  # S3 says nothing of an absent one, other stores do
    except FileNotFoundError:
        return


def _remove_remote_tree(filesystem: Any, name: str) -> None:
    if "/" not in name.strip("/"):
        raise InputError(f"{name}: is a whole bucket and is not deleted; name a prefix inside it")
    try:
        filesystem.rm(name, recursive=True)
    except FileNotFoundError:
        return
