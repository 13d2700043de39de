"""What lies below a folder, with sizes and times: one listing, on a local disk or on an object store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from segpipe.storage import object_store
from segpipe.storage.faults import explain_read
from segpipe.storage.uris import is_temporary, local_path


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file: its path below the folder, with slashes; `changed` is in seconds since 1970, by the store's clock."""

    path: str
    bytes: int
    changed: float


def inventory(uri: str) -> list[Entry]:
    """Every finished file below a folder, sorted by path; `[]` without folder. Linked folders are not entered.

    A file that goes away meanwhile is left out. Raises InputError when the folder cannot be read, UnreachableError.
    """
    path = local_path(uri)
    found = object_store.attempt(uri, _remote) if path is None else _local(path, uri)
    return sorted((entry for entry in found if not is_temporary(entry.path)), key=lambda entry: entry.path)


def _local(root: Path, uri: str) -> list[Entry]:
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise explain_read(error, uri) from error

    found = []
    for folder, _, names in os.walk(root, onerror=refuse):
        for name in names:
            file = Path(folder) / name
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise explain_read(error, str(file)) from error
            inside = file.relative_to(root).as_posix()
            found.append(Entry(path=inside, bytes=status.st_size, changed=status.st_mtime))
    return found


def _remote(filesystem: Any, name: str) -> list[Entry]:
    prefix = name.rstrip("/") + "/"
    try:
        found = filesystem.find(name, detail=True)
    except FileNotFoundError:
        return []
    entries = []
    for key, info in found.items():
        # Some consoles mark a "folder" by an empty object whose key ends in a slash.
        if key.startswith(prefix) and key != prefix and not key.endswith("/"):
            inside = key.removeprefix(prefix)
            entries.append(Entry(path=inside, bytes=int(info["size"]), changed=_seconds(info)))
    return entries


def _seconds(info: dict[str, Any]) -> float:
    """When an object was written; stores name the field in their own ways."""
    changed = info.get("LastModified") or info.get("mtime") or info.get("created")
    return changed.timestamp() if isinstance(changed, datetime) else float(changed or 0.0)
