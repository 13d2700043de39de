"""What a URI is: a local path, or `scheme://...` for fsspec. Pure string work, plus the rule for temporary names.

A temporary name says who made it, so that `sweep` can tell a leftover from a file that is being written:
`.segpipe-tmp.<host>.<pid>.<random>`.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from segpipe.errors import InputError
from segpipe.storage.process import host_tag

_TEMPORARY = re.compile(r"\.segpipe-tmp\.([0-9a-f]{8})\.([0-9]+)\.[0-9a-f]{16}")


class Owner(NamedTuple):
    """Who made a temporary name: a tag of host and process-id namespace, and the process id there."""

    host: str
    pid: int


def join(uri: str, *parts: str) -> str:
    """`uri/part/...` with plain slashes. A part may hold slashes but can never leave `uri`.

    Raises InputError for a part that is empty, absolute, holds `.`, `..`, a backslash or NUL: such a name came from
    data or from a forged manifest.
    """
    if not uri:
        raise InputError("a storage URI is empty; expected a folder such as ./data or s3://bucket/prefix")
    for part in parts:
        pieces = part.split("/")
        if "\\" in part or "\0" in part or any(piece in ("", ".", "..") for piece in pieces):
            raise InputError(
                f"{uri}: {part!r} is not a relative path inside this folder; "
                "expected names joined by single slashes, without '.', '..', backslash or NUL"
            )
    base = uri.rstrip("/") if uri.strip("/") else ""
    return "/".join((base, *parts)) if parts else uri


def scheme_of(uri: str) -> str:
    """`"s3"` of `s3://bucket/key`; `""` of a local path."""
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def local_path(uri: str) -> Path | None:
    """The path of a local URI (`./a`, `/a`, `file:///a`), for memory maps and subprocesses; None when it is remote."""
    if not uri or "\0" in uri:
        raise InputError(f"{uri!r} is not a storage URI; expected a path or scheme://..., not empty and without NUL")
    scheme = scheme_of(uri)
    if scheme == "file":
        return Path(uri.partition("://")[2])
    return None if scheme else Path(uri)


def temporary_name() -> str:
    """A fresh name of this process for a file or folder that is not finished."""
    return f".segpipe-tmp.{host_tag()}.{os.getpid()}.{secrets.token_hex(8)}"


def temporary_owner(name: str) -> Owner | None:
    """Who made this temporary name; None when it is not one of ours."""
    match = _TEMPORARY.fullmatch(name)
    return Owner(match[1], int(match[2])) if match else None


def is_temporary(path: str) -> bool:
    """Whether any piece of a slash-separated path is a temporary name."""
    return any(temporary_owner(piece) for piece in path.split("/"))
