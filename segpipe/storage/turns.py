"""One thread or process of a machine at a time for a piece of work on a file, where two at once would be work in vain.

Below `cache.py`. Not a lease (`leases.py`): nothing breaks when two do it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from segpipe.storage.faults import NOT_OURS

# A holder that gets nothing done, such as a process that was stopped, holds the others up no longer than this.
LONGEST_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.02
_LOCKS = 256
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)  # the last is NFS's answer where a user may only read


@contextlib.contextmanager
def turn(path: Path, locks: Path) -> Iterator[Callable[[], None]]:
    """Waits until nobody else works on `path`, or it is there; the kernel ends a turn when its holder dies.

    Gives what the holder calls as its work goes on, which touches the lock: the others wait on while they see that. A
    lock that cannot be had in time, or at all (another user's, some network file systems know none), is gone without.
    The files in the folder `locks` are few and stay: removing one would race. Raises OSError.
    """
    locks.mkdir(exist_ok=True)
    slot = int(hashlib.sha256(path.name.encode()).hexdigest(), 16) % _LOCKS
    descriptor = _opened(locks / f"{slot:02x}")
    if descriptor is None:
        yield lambda: None
        return
    try:
        touched, ends = os.fstat(descriptor).st_mtime_ns, time.monotonic() + LONGEST_WAIT_SECONDS
        while not _locked(descriptor) and time.monotonic() < ends and not path.exists():
            time.sleep(_POLL_SECONDS)
            if (last := os.fstat(descriptor).st_mtime_ns) != touched:
                touched, ends = last, time.monotonic() + LONGEST_WAIT_SECONDS
        yield functools.partial(_touch, descriptor)
    finally:
        os.close(descriptor)


def _opened(lock: Path) -> int | None:
    """A lock file, which all users may touch where it is new; None where this one has no right to it."""
    for flags in (os.O_RDWR, os.O_RDONLY, os.O_RDONLY | os.O_CREAT):
        try:
            descriptor = os.open(lock, flags | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in NOT_OURS:
                raise
            continue
        if flags & os.O_CREAT:
            with contextlib.suppress(PermissionError):  # another user made it this moment
                os.fchmod(descriptor, 0o666)  # whatever the umask took away
        return descriptor
    return None


def _touch(descriptor: int) -> None:
    with contextlib.suppress(PermissionError):
        os.utime(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
