"""What a pass costs by each way to run a network on this CPU. Part of `portable`.

Processor time of this process in one thread, not the clock's: on a machine that does other things too, it is the
smaller of two and says the same again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

COMPILED = "compiled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Processor seconds of a pass: the median of `runs`; `seconds` is None where it cannot be run, and `note` says
    why."""

    way: str
    seconds: float | None
    runs: int
    note: str = ""


def latencies(network: nn.Module, ways: Mapping[str, nn.Module], images_N3HW: Tensor, *, runs: int) -> list[Latency]:
    """Of the network itself ("eager"), compiled by torch.compile ("compiled"), and by `ways`, opened files.

    Each is asked once before it is timed, for what it does only once. The caller sees to it that there is one thread.
    Of 0 `runs` there are none.
    """
    if not runs:
        return []
    found = []
    all_ways: dict[str, Callable[[Tensor], object]] = {"eager": network, COMPILED: torch.compile(network), **ways}
    for way, asked in all_ways.items():
        try:
            found.append(Latency(way=way, seconds=_median(asked, images_N3HW, runs), runs=runs))
        except Exception as error:  # noqa: BLE001 - a machine without a C++ compiler cannot compile, and all else stands
            found.append(Latency(way=way, seconds=None, runs=0, note=f"{type(error).__name__}: {str(error)[:200]}"))
    return found


def _median(asked: Callable[[Tensor], object], images_N3HW: Tensor, runs: int) -> float:
    seconds = []
    with torch.no_grad():
        for _ in range(runs + 1):
            started = time.process_time()
            asked(images_N3HW)
            seconds.append(time.process_time() - started)
    return statistics.median(seconds[1:])
