"""What a training and its model cost wherever they run: what is put on record beside a training's parameters.

Above `cost.py` and `fields.py`. Nothing is computed, so that it costs seconds and no memory, unless it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from segpipe import models
from segpipe.models.spec import RegionOutput
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
    spec, size = models.spec(name), max(passes, key=math.prod)
    finds = spec.output is RegionOutput
    with torch.device("cpu" if finds and in_earnest else "meta"):
        model = models.create(name, num_classes, **options)
        made = partial(
            Account,
            size=size,
            parameters=sum(p.numel() for p in model.parameters()),
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        )
        if spec.learns_by != "descent":
            return made(uncounted="it is no network")
        made = partial(made, fields=fields_of(name, num_classes, options))
        if finds and not in_earnest:
            return made(uncounted="a detector's depend on what it finds")
        each = {size: inference_cost(model, torch.zeros(1, 3, *size)) for size in passes}
        multiply_adds, pass_bytes = each[size]
        made = partial(
            made,
            multiply_adds=multiply_adds,
            pass_bytes=pass_bytes,
            prediction_multiply_adds=sum(each[size][0] * times for size, times in passes.items()),
        )
        if crops is None:
            return made()
        number, *sides = crops
        images_N3HW = torch.zeros(number, 3, *sides)
        step_multiply_adds, step_bytes = training_cost(model, images_N3HW, partial(summed_outputs, spec.output))
    return made(crop_multiply_adds=step_multiply_adds // number, step_bytes=step_bytes)
