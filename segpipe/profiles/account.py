"""What a training and its model cost wherever they run: what is put on record beside a training's parameters.

Above `cost.py` and `fields.py`. Nothing is computed, so that it costs seconds and no memory, unless it is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch

from segpipe import models
from segpipe.models.spec import ModelSpec, RegionOutput
from segpipe.profiles.cost import inference_cost, summed_outputs, training_cost
from segpipe.profiles.fields import Fields, fields_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Of one architecture with its options, in float32; None is what was not counted, and `uncounted` says why.

    `multiply_adds` and `pass_bytes` are of one pass of an image of `size` (H, W), `prediction_multiply_adds` of all
    passes that a prediction takes, `crop_multiply_adds` of one crop's way forward in a training, and `step_bytes` of a
    step on a batch of these, forward and backward, without an optimiser's state. `fields` are None of a method that has
    none.
    """

    size: tuple[int, int]
    parameters: int
    trainable_parameters: int
    multiply_adds: int | None = None
    pass_bytes: int | None = None
    prediction_multiply_adds: int | None = None
    crop_multiply_adds: int | None = None
    step_bytes: int | None = None
    fields: Fields | None = None
    uncounted: str = ""


def account(
    name: str,
    num_classes: int,
    options: Mapping[str, Any],
    *,
    passes: Mapping[tuple[int, int], int],
    crops: tuple[int, int, int] | None,
    in_earnest: bool = False,
) -> Account:
    """Counts an architecture for predictions of `passes`, how many of each size (H, W), of which the largest is told by
    itself, and for batches of `crops` (N, H, W); None of what has no training.

    A detector looks at what it found, and is counted `in_earnest` alone: it is then run, with the time and memory that
    this takes. Raises InputError on an unknown architecture or option.
    """
    options_text = json.dumps(options, sort_keys=True)
    counted = _of_passes(name, num_classes, options_text, tuple(sorted(passes.items())), in_earnest)
    if crops is None or counted.uncounted:
        return counted
    spec, (number, *sides) = models.spec(name), crops
    with torch.device(_device(spec, in_earnest)):
        model, images_N3HW = models.create(name, num_classes, **options), torch.zeros(number, 3, *sides)
        step_multiply_adds, step_bytes = training_cost(model, images_N3HW, partial(summed_outputs, spec.output))
    return replace(counted, crop_multiply_adds=step_multiply_adds // number, step_bytes=step_bytes)


@lru_cache(maxsize=64)  # of a night's models: its cards and the record of its runs ask for the same
def _of_passes(
    name: str, num_classes: int, options_text: str, passes: tuple[tuple[tuple[int, int], int], ...], in_earnest: bool
) -> Account:
    """All that `account` tells but for training. Seconds of a core for a large network."""
    options, spec, size = json.loads(options_text), models.spec(name), max((size for size, _ in passes), key=math.prod)
    with torch.device(_device(spec, in_earnest)):
        model = models.create(name, num_classes, **options)
        made = Account(
            size=size,
            parameters=sum(p.numel() for p in model.parameters()),
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        )
        if spec.learns_by != "descent":
            return replace(made, uncounted="it is no network")
        made = replace(made, fields=fields_of(name, num_classes, options))
        if spec.output is RegionOutput and not in_earnest:
            return replace(made, uncounted="a detector's depend on what it finds")
        each = {size: inference_cost(model, torch.zeros(1, 3, *size)) for size, _ in passes}
    multiply_adds, pass_bytes = each[size]
    return replace(
        made,
        multiply_adds=multiply_adds,
        pass_bytes=pass_bytes,
        prediction_multiply_adds=sum(each[size][0] * times for size, times in passes),
    )


def _device(spec: ModelSpec, in_earnest: bool) -> str:
    """Without numbers, but for a detector in earnest."""
    return "cpu" if in_earnest and spec.output is RegionOutput else "meta"
