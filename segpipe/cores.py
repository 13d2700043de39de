"""How many processor cores this process may use. Asked by whoever starts processes: ingest, and the embedded Ray."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The cores that this process may run on, at least 1: fewer than the machine has under `taskset` or a cpuset.

    macOS cannot tell and gets all of the machine's. (`os.process_cpu_count` says the same from Python 3.13 on.)
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
