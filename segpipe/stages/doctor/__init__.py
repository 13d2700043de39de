"""Is this machine fit for a night's work? Each check says what it found, what it expected and how to mend it.

Behind `segpipe doctor`. `machine.py` looks at this machine, `services.py` at what answers over a network; versions come
from package metadata, and services are asked through the rooms that own them. Nothing is changed: an embedded Ray is
started as a run would start it, and an empty file is written to the home and removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from segpipe.errors import SegpipeError, UnreachableError
from segpipe.stages.doctor import machine, services
from segpipe.stages.doctor.finding import Check

__all__ = ["CHECKS", "Check", "examine", "exit_status"]

CHECKS: dict[str, Callable[[], Iterator[Check]]] = {
    "python": machine.check_python,
    "packages": machine.check_packages,
    "home": machine.check_home,
    "disk": machine.check_disk,
    "cache": machine.check_cache,
    "shared memory": machine.check_shared_memory,
    "memory": machine.check_memory,
    "gpu": machine.check_gpu,
    "ray": services.check_ray,
    "mlflow": services.check_mlflow,
    "prefect": services.check_prefect,
    "clock": services.check_clock,
}


def examine(on_check: Callable[[str], None] = lambda name: None) -> list[Check]:
    """Makes every check, in order; `on_check` hears the name of each before it starts. Never raises for a finding."""
    checks: list[Check] = []
    for name, check in CHECKS.items():
        on_check(name)
        checks.extend(check())
    return checks


def exit_status(checks: Sequence[Check]) -> int:
    """0 when nothing failed, 3 when a service did, 1 when something else did."""
    failed = [check for check in checks if check.status == "fail"]
    if any(check.is_service for check in failed):
        return UnreachableError.exit_status
    return SegpipeError.exit_status if failed else 0
