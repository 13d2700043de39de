"""What an architecture costs and sees: parameters, multiply-adds, memory, seconds, receptive field, and its drawing.

Above `models/`, beside `tasks/`. `segpipe models show` prints it.

    receptive.py  which pixels a cell of a map can depend on
    fields.py     the same for a whole model
    cost.py       multiply-adds, bytes held at once, seconds
    account.py    all of it that no machine decides, for the record of a training
"""

from __future__ import annotations

import importlib
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.placed import placed
from segpipe.models.spec import ModelSpec, check_counts
from segpipe.profiles.account import Account, account
from segpipe.profiles.cost import latency
from segpipe.profiles.fields import Extent, fields_of

__all__ = ["Account", "Profile", "account", "drawing", "profile"]

SMALLEST_SIDE, LARGEST_SIDE = 32, 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Of one architecture with its options, for one image of `size` (H, W) in float32.

    `multiply_adds` of convolutions and matrix products in one pass; `flops` is twice that. `inference_bytes` and
    `training_bytes` are the most bytes of tensors held at once, weights included: of a pass without gradients, and of
    a step forward and backward (without an optimiser's state). Those of a detector also depend on how many regions its
    random weights find, and those of a method that is no network are None. `latency_seconds` is the median of
    `latency_runs` passes with `threads` threads of this machine's CPU, where the model is placed as for an evaluation,
    and None where none was run.

    `receptive_field`, `field_of_view` and `not_followed` as in `fields.Fields`.
    """

    name: str
    num_classes: int
    size: tuple[int, int]
    options: Mapping[str, Any]
    parameters: int
    trainable_parameters: int
    multiply_adds: int | None
    flops: int | None
    inference_bytes: int | None
    training_bytes: int | None
    latency_seconds: float | None
    latency_runs: int
    threads: int
    receptive_field: Extent
    field_of_view: Extent
    not_followed: tuple[str, ...] = ()
    drawing: str = field(default="", repr=False)


def profile(
    name: str, num_classes: int, *, size: tuple[int, int] = (512, 512), runs: int = 5, **options: Any
) -> Profile:
    """An architecture's account, of one image for all, with the seconds of a pass and the drawing beside it.

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
    counted = account(name, num_classes, options, passes={size: 1}, crops=(1, *size), in_earnest=True)
    fields, seconds = counted.fields or fields_of(name, num_classes, options), None
    if runs:
        images_13HW = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
        images_13HW = images_13HW.contiguous(memory_format=torch.channels_last)
        seconds = latency(placed(models.create(name, num_classes, **options), "cpu"), images_13HW, runs=runs)
    return Profile(
        name=name,
        num_classes=num_classes,
        size=size,
        options=models.complete(name, options),
        parameters=counted.parameters,
        trainable_parameters=counted.trainable_parameters,
        multiply_adds=counted.multiply_adds,
        flops=None if counted.multiply_adds is None else 2 * counted.multiply_adds,
        inference_bytes=counted.pass_bytes,
        training_bytes=counted.step_bytes,
        latency_seconds=seconds,
        latency_runs=runs,
        threads=torch.get_num_threads(),
        receptive_field=fields.receptive_field,
        field_of_view=fields.field_of_view,
        not_followed=fields.not_followed,
        drawing=drawing(models.spec(name)),
    )


def drawing(spec: ModelSpec) -> str:
    """The figure at the head of the architecture's file; "" where that has none."""
    build = spec.build.func if isinstance(spec.build, partial) else spec.build
    told = importlib.import_module(build.__module__).__doc__ or ""
    lines = [line for line in told.splitlines() if line.startswith("    ") or not line.strip()]
    return re.sub(r"\n{3,}", "\n\n", textwrap.dedent("\n".join(lines)).strip("\n"))
