"""What there is to compute on: this machine's cores, and the Ray that the environment names."""

from __future__ import annotations

import os


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
