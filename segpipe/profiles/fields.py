"""What a model's maps can depend on: the receptive field of its backbone, and the field of view of its answer.

Above `receptive.py`, which follows one cell back to the image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.models.spec import RegionOutput
from segpipe.profiles.receptive import Trace

# An image so large that no kernel of any network reaches from its middle to an edge; nothing is computed on it.
TRACED_SIDE = 2**15
# A pixel's field depends on where it lies between the cells of the coarsest map.
PHASES = 32
Extent = tuple[int, int] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """`receptive_field` are the rows and columns of pixels that a cell of the backbone's last map can depend on,
    `field_of_view` those of a pixel's logits (the most of any place); None is the whole image, however large.

    `not_followed` are operations for which the whole of their input was taken. Both are None with a reason in
    `not_followed` where a model has no such maps.
    """

    receptive_field: Extent
    field_of_view: Extent
    not_followed: tuple[str, ...]


def fields_of(name: str, num_classes: int, options: Mapping[str, Any]) -> Fields:
    """The fields of an architecture, by a pass without numbers. Raises InputError as `models.create`."""
    if models.spec(name).learns_by != "descent":
        return Fields(receptive_field=None, field_of_view=None, not_followed=("it is no network",))
    output = models.spec(name).output
    side, unread = TRACED_SIDE, set[str]()
    ends: list[tuple[int | None, torch.Size]] = []
    with torch.device("meta"):
        model = models.create(name, num_classes, **options).eval()
        images = torch.empty(1, 3, side, side)
    backbone = getattr(model, "backbone", None)  # an ensemble has none
    with torch.no_grad(), Trace(images) as trace:

        def keep(module: nn.Module, given: object, result: object) -> None:
            maps = [tensor for tensor in tensors_in(result) if tensor.dim() == 4]
            ends.extend((trace.number(tensor), tensor.shape) for tensor in maps[-1:])

        if backbone is not None:
            backbone.register_forward_hook(keep)
        answer = backbone(images) if output is RegionOutput and backbone is not None else model(images)
        seen = [(trace.number(tensor), tensor.shape) for tensor in tensors_in(answer) if tensor.dim() == 4]

    def widest(end: tuple[int | None, torch.Size], phases: int) -> Extent:
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
    return Fields(
        receptive_field=receptive_field, field_of_view=field_of_view, not_followed=(*sorted(unread), *reasons)
    )


def tensors_in(output: object) -> list[Tensor]:
    """All tensors of an output of `models/spec.py`, or of a tuple of maps, in order."""
    if dataclasses.is_dataclass(output):
        return [tensor for each in dataclasses.fields(output) for tensor in tensors_in(getattr(output, each.name))]
    if isinstance(output, Mapping):
        return [tensor for each in output.values() for tensor in tensors_in(each)]
    if isinstance(output, tuple | list):
        return [tensor for each in output for tensor in tensors_in(each)]
    return [output] if isinstance(output, Tensor) else []
