"""What an architecture costs and sees: parameters, multiply-adds, memory, seconds, receptive field, and its drawing.

Above `models/`, beside `tasks/`. `segpipe models show` prints it.

    receptive.py  which pixels a cell of a map can depend on
    cost.py       multiply-adds, bytes held at once, seconds
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.spec import ModelSpec, RegionOutput, RegionTarget, check_counts
from segpipe.profiles.cost import inference_cost, latency, training_bytes
from segpipe.profiles.receptive import Trace

__all__ = ["Profile", "drawing", "profile"]

# An image so large that no kernel of any network reaches from its middle to an edge; nothing is computed on it.
TRACED_SIDE = 2**15
# A pixel's field depends on where it lies between the cells of the coarsest map.
PHASES = 32
SMALLEST_SIDE, LARGEST_SIDE = 32, 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Of one architecture with its options, for one image of `size` (H, W) in float32.

    `multiply_adds` of convolutions and matrix products in one pass; `flops` is twice that. `inference_bytes` and
    `training_bytes` are the most bytes of tensors held at once, weights included: of a pass without gradients, and of
    a step forward and backward (without an optimiser's state). Those of a detector also depend on how many regions its
    random weights find. `latency_seconds` is the median of `latency_runs` passes with `threads` threads of this
    machine's CPU, None where none was run.

    `receptive_field` are the rows and columns of pixels that a cell of the backbone's last map can depend on, and
    `field_of_view` those of a pixel's logits (the most of any place); None is the whole image, however large.
    `not_followed` are operations for which the whole of their input was taken. Both are None with a reason in
    `not_followed` where a model has no such maps.
    """

    name: str
    num_classes: int
    size: tuple[int, int]
    options: Mapping[str, Any]
    parameters: int
    trainable_parameters: int
    multiply_adds: int
    flops: int
    inference_bytes: int
    training_bytes: int
    latency_seconds: float | None
    latency_runs: int
    threads: int
    receptive_field: tuple[int, int] | None
    field_of_view: tuple[int, int] | None
    not_followed: tuple[str, ...] = ()
    drawing: str = field(default="", repr=False)


def profile(
    name: str, num_classes: int, *, size: tuple[int, int] = (512, 512), runs: int = 5, **options: Any
) -> Profile:
    """Counts and measures an architecture with random weights.

    `runs` passes are timed; 0 measures no time, and all else is then counted without computing (but for detectors).
    Raises InputError on an unknown architecture or option, fewer than one class, sides outside 32..8192, and negative
    runs.
    """
    check_counts(num_classes=num_classes)
    if len(size) != 2 or not all(type(n) is int and SMALLEST_SIDE <= n <= LARGEST_SIDE for n in size):
        raise InputError(
            f"size: {size}; expected (height, width), each a whole number of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels"
        )
    if type(runs) is not int or runs < 0:
        raise InputError(f"runs: {runs!r}; expected 0 or a whole number of passes to time")
    spec = models.spec(name)
    in_earnest = spec.output is RegionOutput
    with torch.device("cpu" if in_earnest else "meta"):
        model = models.create(name, num_classes, **options)
        images_13HW = torch.zeros(1, 3, *size)
        multiply_adds, inference_bytes = inference_cost(model, images_13HW)
        step_bytes = training_bytes(model, images_13HW, partial(_summed, spec.output))
    receptive_field, field_of_view, not_followed = _fields(name, num_classes, options)
    seconds = None
    if runs:
        images_13HW = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
        seconds = latency(models.create(name, num_classes, **options), images_13HW, runs=runs)
    return Profile(
        name=name,
        num_classes=num_classes,
        size=size,
        options=models.complete(name, options),
        parameters=sum(p.numel() for p in model.parameters()),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        multiply_adds=multiply_adds,
        flops=2 * multiply_adds,
        inference_bytes=inference_bytes,
        training_bytes=step_bytes,
        latency_seconds=seconds,
        latency_runs=runs,
        threads=torch.get_num_threads(),
        receptive_field=receptive_field,
        field_of_view=field_of_view,
        not_followed=not_followed,
        drawing=drawing(spec),
    )


def drawing(spec: ModelSpec) -> str:
    """The figure at the head of the architecture's file; "" where that has none."""
    build = spec.build.func if isinstance(spec.build, partial) else spec.build
    told = importlib.import_module(build.__module__).__doc__ or ""
    lines = [line for line in told.splitlines() if line.startswith("    ") or not line.strip()]
    return re.sub(r"\n{3,}", "\n\n", textwrap.dedent("\n".join(lines)).strip("\n"))


def _summed(output: type, model: nn.Module, images_NCHW: Tensor) -> Tensor:
    """A number that every output has a part in, as a loss: its backward pass is as large as that of one."""
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
    return torch.stack([tensor.float().mean() for tensor in _tensors(given) if tensor.requires_grad]).sum()


def _tensors(output: object) -> list[Tensor]:
    """All tensors of an output of `models/spec.py`, or of a tuple of maps, in order."""
    if dataclasses.is_dataclass(output):
        return [tensor for each in dataclasses.fields(output) for tensor in _tensors(getattr(output, each.name))]
    if isinstance(output, Mapping):
        return [tensor for each in output.values() for tensor in _tensors(each)]
    if isinstance(output, tuple | list):
        return [tensor for each in output for tensor in _tensors(each)]
    return [output] if isinstance(output, Tensor) else []


def _fields(
    name: str, num_classes: int, options: Mapping[str, Any]
) -> tuple[tuple[int, int] | None, tuple[int, int] | None, tuple[str, ...]]:
    """`receptive_field`, `field_of_view` and `not_followed` of a Profile."""
    output = models.spec(name).output
    side, unread = TRACED_SIDE, set[str]()
    ends: list[tuple[int | None, torch.Size]] = []
    with torch.device("meta"):
        model = models.create(name, num_classes, **options).eval()
        images = torch.empty(1, 3, side, side)
    with torch.no_grad(), Trace(images) as trace:

        def keep(module: nn.Module, given: object, result: object) -> None:
            maps = [tensor for tensor in _tensors(result) if tensor.dim() == 4]
            ends.extend((trace.number(tensor), tensor.shape) for tensor in maps[-1:])

        model.get_submodule("backbone").register_forward_hook(keep)
        answer = model.get_submodule("backbone")(images) if output is RegionOutput else model(images)
        seen = [(trace.number(tensor), tensor.shape) for tensor in _tensors(answer) if tensor.dim() == 4]

    def widest(end: tuple[int | None, torch.Size], phases: int) -> tuple[int, int] | None:
        number, shape = end
        extents = []
        for phase in range(min(phases, *(n - n // 2 for n in shape[-2:]))):
            box, missed = trace.needed(number, (shape[-2] // 2 + phase, shape[-1] // 2 + phase))
            unread.update(missed)
            extents.append([(last - first + 1) for first, last in box] if box else [0, 0])
        rows, columns = (max(extent) for extent in zip(*extents, strict=True))
        return None if side in (rows, columns) else (rows, columns)

    # Of a network that looks at several sizes of the image, the last one is the image itself.
    receptive_field = widest(ends[-1], 1) if ends else None
    field_of_view = widest(seen[0], PHASES) if seen and output is not RegionOutput else None
    reasons = [] if ends else ["the backbone gives no maps"]
    reasons += [] if seen and output is not RegionOutput else ["the answer is no map"]
    return receptive_field, field_of_view, (*sorted(unread), *reasons)
