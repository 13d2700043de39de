"""Where a training loop runs: which rank it is, on which device, and how ranks agree. Two implementations.

`LocalRuntime` here needs torch alone; `RayRuntime` in `on_ray/` is the same thing inside a Ray Train worker. The loop
sees only the `Runtime` protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segpipe.types import TrainProgress

MetricSink = Callable[[Mapping[str, float], int], None]
OnProgress = Callable[[TrainProgress], None]


def num_gpus() -> int:
    """How many GPUs of this machine a training may have."""
    return torch.cuda.device_count()


class Runtime(Protocol):
    """What the training loop may ask of its surroundings."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as the forward pass should call it: on the device, and averaging gradients over ranks."""

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum of `values` over all ranks, on every rank."""

    def gather(self, value: Any) -> list[Any]:
        """What every rank gave, in the order of ranks, on every rank; pickled on the way."""

    def barrier(self) -> None:
        """Returns once every rank has come here."""

    def report(self, progress: TrainProgress) -> None:
        """Hands measured values to whoever watches; never blocks on a server. Called by rank 0 alone."""


class Ranks:
    """What every runtime shares: the ranks of torch.distributed's process group, or one rank without one."""

    def __init__(self, *, rank: int, world_size: int, device: torch.device) -> None:
        self.rank, self.world_size, self.device = rank, world_size, device

    def wrap(self, model: nn.Module) -> nn.Module:
        model = model.to(self.device)
        if self.world_size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def sum(self, values: Tensor) -> Tensor:
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, value)
        return found

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


class LocalRuntime(Ranks):
    """A plain process, or one of several that share an initialised torch.distributed process group."""

    def __init__(
        self,
        device: torch.device | None = None,
        sink: MetricSink | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        super().__init__(
            rank=dist.get_rank() if distributed else 0,
            world_size=dist.get_world_size() if distributed else 1,
            device=device or torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        )
        self._sink, self._on_progress = sink, on_progress

    def report(self, progress: TrainProgress) -> None:
        if self._sink is not None:
            self._sink(progress.metrics, progress.step)
        if self._on_progress is not None:
            self._on_progress(progress)
