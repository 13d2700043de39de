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
from segpipe.models.parts.borders import Mirrored, mirrored_places
from segpipe.models.parts.upsampling import MaxUnpool
from segpipe.models.spec import DenseOutput, RegionOutput
from segpipe.profiles.receptive import Interval, Operation, Rule, Trace, sizes_of

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """A map, by its number in the trace of the pass that made it."""

    trace: Trace
    number: int | None
    shape: torch.Size


def fields_of(name: str, num_classes: int, options: Mapping[str, Any]) -> Fields:
    """The fields of an architecture, by a pass without numbers. Raises InputError as `models.create`."""
    if models.spec(name).learns_by != "descent":
        return Fields(receptive_field=None, field_of_view=None, not_followed=("it is no network",))
    with torch.device("meta"):
        model = models.create(name, num_classes, **options).eval()
    backbone = getattr(model, "backbone", None)  # an ensemble has none
    of_regions = models.spec(name).output is RegionOutput
    seen, ends = ([], []) if of_regions else _traced(model, 3, watched=backbone)
    if backbone is not None and not ends:
        # The answer of a model of regions is no map; others call the layers of their backbone one by one.
        ends, _ = _traced(backbone, backbone.get_submodule(backbone.stem).in_channels)
    unread = set[str]()

    def widest(end: Traced, phases: int) -> Extent:
        extents = []
        for phase in range(min(phases, *(n - n // 2 for n in end.shape[-2:]))):
            box, missed = end.trace.needed(end.number, (end.shape[-2] // 2 + phase, end.shape[-1] // 2 + phase))
            unread.update(missed)
            extents.append([(last - first + 1) for first, last in box] if box else [0, 0])
        rows, columns = (max(extent) for extent in zip(*extents, strict=True))
        return None if TRACED_SIDE in (rows, columns) else (rows, columns)

    # Of a network that looks at several sizes of the image, the last one is the image itself.
    receptive_field = widest(ends[-1], 1) if ends else None
    field_of_view = widest(seen[0], PHASES) if seen else None
    reasons = [] if ends else ["the backbone gives no maps"]
    reasons += [] if seen else ["the answer is no map"]
    return Fields(
        receptive_field=receptive_field, field_of_view=field_of_view, not_followed=(*sorted(unread), *reasons)
    )


def _traced(
    network: nn.Module, channels: int, *, watched: nn.Module | None = None
) -> tuple[list[Traced], list[Traced]]:
    """The maps that a network gives of images with so many channels, and those that a part of it gave meanwhile."""
    images = torch.empty(1, channels, TRACED_SIDE, TRACED_SIDE, device="meta")
    meanwhile: list[Traced] = []
    with torch.no_grad(), Trace(images) as trace:

        def maps_in(result: object) -> list[Traced]:
            maps = [tensor for tensor in tensors_in(result) if tensor.dim() == 4]
            return [Traced(trace=trace, number=trace.number(tensor), shape=tensor.shape) for tensor in maps]

        for module in network.modules():
            if type(module) in MOVING:
                trace.as_one(module, MOVING[type(module)])
        if watched is not None:
            watched.register_forward_hook(lambda module, given, result: meanwhile.extend(maps_in(result)))
        return maps_in(network(images)), meanwhile


def _unpooled(operation: Operation, interval: Interval, axis: int) -> Interval:
    """A cell is that of the coarse map in whose window it lies, or zero: the switches of that window say which."""
    return interval[0] // 2, interval[1] // 2


def _mirrored(operation: Operation, interval: Interval, axis: int) -> Interval:
    (size, _), (before, _) = sizes_of(operation, axis), operation.arguments["columns" if axis else "rows"]
    places = mirrored_places(size, interval[0] - before, interval[1] - before + 1)
    return min(places), max(places)


# Modules that move cells by numbers which a pass without any does not have.
MOVING: Mapping[type[nn.Module], Rule] = {MaxUnpool: _unpooled, Mirrored: _mirrored}


def tensors_in(output: object) -> list[Tensor]:
    """All tensors of an output of `models/spec.py`, or of a tuple of maps, in order; scores of pixels at image size."""
    if isinstance(output, DenseOutput):
        return [output.logits_NKHW, *output.aux.values()]
    if dataclasses.is_dataclass(output):
        return [tensor for each in dataclasses.fields(output) for tensor in tensors_in(getattr(output, each.name))]
    if isinstance(output, Mapping):
        return [tensor for each in output.values() for tensor in tensors_in(each)]
    if isinstance(output, tuple | list):
        return [tensor for each in output for tensor in tensors_in(each)]
    return [output] if isinstance(output, Tensor) else []
