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


class LocalRuntime:
    """A plain process, or one of several that share an initialised torch.distributed process group."""

    def __init__(
        self,
        device: torch.device | None = None,
        sink: MetricSink | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if distributed else 0
        self.world_size = dist.get_world_size() if distributed else 1
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._sink, self._on_progress = sink, on_progress

    def wrap(self, model: nn.Module) -> nn.Module:
        return wrap(model, self.device, self.world_size)

    def sum(self, values: Tensor) -> Tensor:
        return all_reduce_sum(values, self.world_size)

    def gather(self, value: Any) -> list[Any]:
        return all_gather(value, self.world_size)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def report(self, progress: TrainProgress) -> None:
        if self._sink is not None:
            self._sink(progress.metrics, progress.step)
        if self._on_progress is not None:
            self._on_progress(progress)


def wrap(model: nn.Module, device: torch.device, world_size: int) -> nn.Module:
    """The model on its device, inside DistributedDataParallel when there is more than one rank."""
    model = model.to(device)
    if world_size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def all_reduce_sum(values: Tensor, world_size: int) -> Tensor:
    """The sum over ranks; with one rank the values themselves."""
    if world_size > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def all_gather(value: Any, world_size: int) -> list[Any]:
    """What every rank gave, in the order of ranks."""
    if world_size == 1:
        return [value]
    found: list[Any] = [None] * world_size
    dist.all_gather_object(found, value)
    return found
