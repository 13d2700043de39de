"""What lies in a folder: names of one level or of all, or sizes and times too; whether files of it were touched.

One walk of a local disk, one listing of a store. Everywhere names are sorted, unfinished files hidden, what is no
regular file (such as a link that leads nowhere) left out, and nothing is in a folder that is absent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from segpipe.errors import InputError
from segpipe.storage import object_store
from segpipe.storage.faults import explain_read
from segpipe.storage.files import exists, fingerprint
from segpipe.storage.uris import is_temporary, join, local_path


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file: its path below the folder, with slashes; `changed` is in seconds since 1970, by the store's clock."""

    path: str
    bytes: int
    changed: float


def list_names(uri: str, *, suffix: str = "") -> list[str]:
    """Names of the files directly in a folder. Raises InputError when it cannot be read."""
    path = local_path(uri)
    if path is None:
        found = object_store.attempt(uri, lambda filesystem, name: _level(filesystem, name, "file"))
    else:
        found = [entry.name for entry in _scanned(os.fspath(path), uri) if _is_file(entry)]
    return sorted(name for name in found if name.endswith(suffix) and not is_temporary(name))


def list_folders(uri: str) -> list[str]:
    """Names of the folders directly in a folder, links to folders among them, that hold a file at any depth.

    So it is in a store, where nothing else is a folder; here a look at each ends with its first file. Raises InputError
    when one cannot be read.
    """
    path = local_path(uri)
    if path is None:
        found = object_store.attempt(uri, lambda filesystem, name: _level(filesystem, name, "directory"))
    else:
        folders = (entry for entry in _scanned(os.fspath(path), uri) if _is_folder(entry))
        found = [each.name for each in folders if any(_is_file(entry) for _, entry in _walk(each.path, uri))]
    return sorted(name for name in found if not is_temporary(name))


def list_tree(uri: str, *, suffix: str = "") -> list[str]:
    """Paths of all files below a folder, relative to it, with slashes.

    Linked folders are not entered. Raises InputError when the folder cannot be read.
    """
    path = local_path(uri)
    if path is None:
        found = list(_objects(uri))
    else:
        found = [inside for inside, entry in _walk(os.fspath(path), uri) if _is_file(entry)]
    return sorted(inside for inside in found if inside.endswith(suffix))


def inventory(uri: str) -> list[Entry]:
    """The files of `list_tree`, with sizes and times.

    One that goes away meanwhile is left out. Raises as `list_tree`, and SegpipeError for a link that cannot be followed
    to its end, unless nothing is there: who asks for this counts on knowing all of them.
    """
    path = local_path(uri)
    if path is None:
        found = [_of_object(inside, info) for inside, info in _objects(uri).items()]
    else:
        found = [each for inside, entry in _walk(os.fspath(path), uri) if (each := _of_file(inside, entry))]
    return sorted(found, key=lambda each: each.path)


def fingerprints(uri: str, files: Collection[str]) -> dict[str, str]:
    """`fingerprint` of each of these files below a folder, by their paths there; one that is gone is left out.

    A store tells them in one listing of the folder: asked for one by one, 100,000 would take an hour. A single file
    may have a million neighbours, and is asked for alone, as all are here.
    """
    listed = _objects(uri) if len(files) > 1 and local_path(uri) is None else {}
    found: dict[str, str] = {}
    for file in files:
        if (info := listed.get(file)) and info.get("ETag"):  # not every kind of store has it in its listing
            found[file] = object_store.stamp_in(info)
            continue
        try:
            found[file] = fingerprint(join(uri, file))
        except InputError:
            if exists(join(uri, file)):
                raise
    return found


def _walk(root: str, uri: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(path below `root`, entry) of whatever is finished and no folder: files, links, pipes.

    A folder that goes away meanwhile is passed over. `os.walk` would drop the entries, which know most files for files
    without being asked again.
    """
    folders = [(root, "")]
    while folders:
        folder, below = folders.pop()
        for entry in _scanned(folder, uri):
            if is_temporary(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, f"{below}{entry.name}/"))
            else:
                yield below + entry.name, entry


def _scanned(folder: str, uri: str) -> Iterator[os.DirEntry[str]]:
    """The entries of one folder, none where it is absent; errors are told of `uri`, which it lies in."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return
    except OSError as error:
        raise explain_read(error, uri) from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a regular file or leads to one."""
    try:
        return entry.is_file()
    except OSError:  # links in a circle, or to where this user may not look
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _of_file(inside: str, entry: os.DirEntry[str]) -> Entry | None:
    """None for what is no regular file, or is gone."""
    try:
        status = entry.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise explain_read(error, entry.path) from error
    if not stat.S_ISREG(status.st_mode):
        return None
    return Entry(path=inside, bytes=status.st_size, changed=status.st_mtime)


def _objects(uri: str) -> dict[str, dict[str, Any]]:
    """Path below the prefix -> what the store says of an object."""
    return object_store.attempt(uri, _found)


def _found(filesystem: Any, name: str) -> dict[str, dict[str, Any]]:
    prefix = name.rstrip("/") + "/"
    try:
        found = filesystem.find(name, detail=True)
    except FileNotFoundError:
        return {}
    below = {key.removeprefix(prefix): info for key, info in found.items() if key.startswith(prefix)}
    # Some consoles mark a "folder" by an empty object whose key ends in a slash.
    return {
        inside: info
        for inside, info in below.items()
        if inside and not inside.endswith("/") and not is_temporary(inside)
    }


def _level(filesystem: Any, name: str, kind: str) -> list[str]:
    """Names of one kind directly below a prefix."""
    prefix = name.rstrip("/") + "/"
    try:
        found = filesystem.ls(name, detail=True)
    except FileNotFoundError:
        return []
    keys = [str(each["name"]) for each in found if each["type"] == kind and each["name"].startswith(prefix)]
    return [inside for key in keys if (inside := key.removeprefix(prefix).rstrip("/"))]


def _of_object(inside: str, info: dict[str, Any]) -> Entry:
    """When an object was written, stores tell under names of their own."""
    changed = info.get("LastModified") or info.get("mtime") or info.get("created")
    seconds = changed.timestamp() if isinstance(changed, datetime) else float(changed or 0.0)
    return Entry(path=inside, bytes=int(info["size"]), changed=seconds)
