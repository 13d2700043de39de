"""Who is at work: what tells one process from every other, on this host and on another, now and after it has ended.

Temporary names carry a part of it (`uris.py`), leases and claims the whole, as they are written down.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """What a process writes down while it is at work, by fields of one JSON object.

    `place` is the `host_tag`, `life` the `life_of` its process id, `token` is new each time that it signs; `who` and
    `host` are for people to read, as is `at`, the time of its own clock.
    """

    who: str
    host: str
    place: str
    pid: int
    life: str
    at: str
    token: str


def signature(who: str) -> dict[str, Any]:
    """The fields of `Signed` of this process, which works for `who`."""
    return {
        "who": who,
        "host": socket.gethostname(),
        "place": host_tag(),
        "pid": os.getpid(),
        "life": life_of(os.getpid()),
        "at": now(),
        "token": secrets.token_hex(8),
    }


def now() -> str:
    """The time of `Signed.at`, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def host_tag() -> str:
    """Eight hex digits for "process ids mean the same here": the host's name and the process-id namespace.

    Two containers may share a host name and a volume; without the namespace one would take the other's live files for
    those of a dead process.
    """
    namespace = Path("/proc/self/ns/pid")
    inside = os.readlink(namespace) if namespace.exists() else ""
    return hashlib.sha256(f"{socket.gethostname()}|{inside}".encode()).hexdigest()[:8]


def is_running(signed: Signed) -> bool:
    """Whether the very process of this host (`place`) that signed has not ended."""
    return is_alive(signed.pid) and life_of(signed.pid) in ("", signed.life)


def is_alive(pid: int) -> bool:
    """Whether there is a process of this id, whoever's it is, that has not ended.

    In a container whose first process waits for nobody, one that was killed stays in the table for ever (a "zombie").
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _has_ended(_state(pid))


def life_of(pid: int) -> str:
    """Tells this life of a process id from the next one with that number; "" where the system does not say."""
    state = _state(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    if not state:
        return ""
    # The 22nd number of all is the time of its start.
    return "ended" if _has_ended(state) else f"{boot}/{state[19]}"


def _state(pid: int) -> list[str]:
    """What the system says of a process, from its state on; nothing where it has no such files, or the process goes
    this moment."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _has_ended(state: list[str]) -> bool:
    """True for a zombie too: its parent has not asked for the status yet."""
    return state[:1] in (["Z"], ["X"])
