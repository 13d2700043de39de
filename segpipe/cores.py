"""What there is to compute on: this machine's cores and memory, and the Ray that the environment names."""

from __future__ import annotations

import ctypes
import os

# Parameters of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MIB = 2**20


def usable_cores() -> int:
    """The cores that this process may run on, at least 1: fewer than the machine has under `taskset` or a cpuset.

    macOS cannot tell and gets all of the machine's. (`os.process_cpu_count` says the same from Python 3.13 on.)
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ray_address() -> str:
    """`$RAY_ADDRESS`, or "local" for a Ray of this machine's own; an empty variable counts as none."""
    return os.environ.get("RAY_ADDRESS") or "local"


def keep_freed_memory() -> None:
    """Lets glibc keep what tensors free, for the next step to take, instead of giving it back to the kernel.

    A step of training on CPU frees and asks for the same buffers of some MiB again, and each return costs page faults:
    40 000 a step of a U-Net and a tenth of its time, with this none. Of no effect with another allocator.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return
    for parameter, value in ((_M_MMAP_THRESHOLD, 32 * _MIB), (_M_TRIM_THRESHOLD, 2047 * _MIB), (_M_TOP_PAD, 64 * _MIB)):
        mallopt(parameter, value)
