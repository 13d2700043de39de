"""What a forward pass and a training step cost: multiply-adds, bytes held at once, and seconds on this machine.

Operations and bytes are counted on tensors without memory ("meta") wherever a model allows it: the same everywhere, and
at no cost. A detector looks at what it found, so that it must be run in earnest.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from segpipe.models.spec import RegionOutput, RegionTarget
from segpipe.profiles.fields import tensors_in


class HeldBytes(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own are not typed
    """Counts the bytes of all tensors that are alive inside of `with`, and the most there ever were.

    Storages count once, however many views they have; what a kernel needs for itself and what an allocator keeps
    behind are not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def hold(self, tensors: object) -> None:
        """Counts the tensors in there, until nobody holds them any more."""
        for tensor in tree_leaves(tensors):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known:
                continue
            self._known.add(key)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._drop, key, storage.nbytes())
        self.peak = max(self.peak, self.now)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.hold(result)
        return result


class CountedOperations(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own are not typed
    """Adds up `flops`, by torch's own formulas, of every operation inside of `with` that it has one for.

    Those are convolutions and matrix products, attention among them. (FlopCounterMode does the same, and follows
    modules besides, by hooks that not every model allows.)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


def inference_cost(model: nn.Module, images_NCHW: Tensor) -> tuple[int, int]:
    """(multiply-adds, most bytes held) of one pass in evaluation without gradients; weights and images included.

    Multiply-adds are those of convolutions and matrix products, half of torch's FLOPs. Norms, activations, poolings and
    resizing are none.
    """
    model.eval()
    held = HeldBytes()
    held.hold((list(model.parameters()), list(model.buffers()), images_NCHW))
    with torch.no_grad(), CountedOperations() as counter, held:
        tensors_in(model(images_NCHW))
    return counter.flops // 2, held.peak


def training_cost(
    model: nn.Module, images_NCHW: Tensor, loss: Callable[[nn.Module, Tensor], Tensor]
) -> tuple[int, int]:
    """(multiply-adds of the forward pass, most bytes held) of one step, forward and backward, in float32.

    Bytes are of weights, gradients and what backward needs, without an optimiser's state, which is one more copy of the
    weights with momentum and two with AdamW. In training some networks have another stride, more heads or a second
    pass, so that the multiply-adds are not those of `inference_cost`.
    """
    model.train()
    held = HeldBytes()
    held.hold((list(model.parameters()), list(model.buffers()), images_NCHW))
    with held:
        with CountedOperations() as counter:
            value = loss(model, images_NCHW)
        value.backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
    return counter.flops // 2, held.peak


def latency(model: nn.Module, images_NCHW: Tensor, *, runs: int) -> float:
    """Seconds of a forward pass in evaluation: the median of `runs` after one that is not counted."""
    model.eval()
    seconds = []
    with torch.inference_mode():
        for _ in range(runs + 1):
            started = time.perf_counter()
            tensors_in(model(images_NCHW))
            if images_NCHW.is_cuda:
                torch.cuda.synchronize(images_NCHW.device)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def summed_outputs(output: type, model: nn.Module, images_NCHW: Tensor) -> Tensor:
    """A number that every output has a part in, as a loss: its backward pass is as large as that of one.

    `output` is the model's kind of them; one that finds regions is told to find the whole image.
    """
    if output is not RegionOutput:
        given = model(images_NCHW)
    else:
        height, width = images_NCHW.shape[-2:]
        whole = RegionTarget(
            boxes_M4=torch.tensor([[0.0, 0.0, width, height]]),
            class_ids_M=torch.tensor([0]),
            masks_MHW=torch.ones((1, height, width), dtype=torch.bool),
        )
        given = model(images_NCHW, [whole] * len(images_NCHW))
    return torch.stack([tensor.float().mean() for tensor in tensors_in(given) if tensor.requires_grad]).sum()
