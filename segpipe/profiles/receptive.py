"""The theoretical receptive field: which pixels of the image one cell of a map can depend on.

Every operation of a forward pass is recorded, on tensors without memory; then the rows and columns that a cell needs
are followed backwards through kernels, strides, dilations and resizing to the image. Exact for what is recorded,
branches and all: of two ways the wider one counts. What looks at all cells at once (image pooling, attention) needs the
whole image; what a norm says of a map's mean and variance is left out, as is usual. An interval is filled: the holes of
a dilated kernel count as seen, and at an edge of the image one of them may be its end.

Computing Receptive Fields of Convolutional Neural Networks, Araujo, Norris, Sim, Distill 2019,
doi:10.23915/distill.00021, whose formula is that of a chain.

Letter legend: H W size of a map; an interval is (first, last) of the rows or columns of a map, both counted.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Interval = tuple[int, int]
Box = tuple[Interval, Interval]
# Of one axis (0 rows, 1 columns): operation, what its result needs -> what its input must give.
Rule = Callable[["Operation", Interval, int], Interval]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Operation:
    """One call: its name, its arguments by name, and what of the images went in and came out, by number and shape."""

    name: str
    pointwise: bool
    arguments: Mapping[str, Any]
    inputs: tuple[tuple[int, torch.Size], ...]
    outputs: tuple[tuple[int, torch.Size], ...]
    rule: Rule | None


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own are not typed
    """Records every operation on `images` inside of `with`; `needed` then says what of them a cell needs."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[Operation] = []
        self._numbers: dict[int, int] = {}  # of what depends on the images, by the id of its tensor
        self._count = 0
        self._kept: list[Tensor] = []  # as long as they live, no other tensor gets their id
        self._within = 0  # calls of `as_one` that have not come back
        self._images = self._numbered(images)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self._within:
            return func(*args, **(kwargs or {}))
        named = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)} | dict(kwargs or {})
        inputs = self._known((args, kwargs))
        result = func(*args, **(kwargs or {}))
        name, pointwise = func.overloadpacket.__name__, torch.Tag.pointwise in func.tags
        outputs = self._made(result) if inputs and name not in MADE else ()
        if outputs:
            rule = RULES.get(name) or _in_place(name, pointwise, inputs[0][1], outputs[0][1])
            self._operations.append(
                Operation(name=name, pointwise=pointwise, arguments=named, inputs=inputs, outputs=outputs, rule=rule)
            )
        return result

    def as_one(self, module: nn.Module, rule: Rule) -> None:
        """Records every call of `module` as one operation of this rule, in the place of those that it is made of.

        For what moves cells by numbers, which a pass without numbers does not tell.
        """

        def enter(module: nn.Module, given: tuple[Any, ...]) -> None:
            self._within += 1

        def leave(module: nn.Module, given: tuple[Any, ...], result: object) -> None:
            self._within -= 1
            self._operations.append(
                Operation(
                    name=type(module).__name__,
                    pointwise=False,
                    arguments=inspect.signature(module.forward).bind(*given).arguments,
                    inputs=self._known(given),
                    outputs=self._made(result),
                    rule=rule,
                )
            )

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)

    def number(self, tensor: Tensor) -> int | None:
        """Which value a tensor holds now, for one that is changed in place holds another; None of no image's."""
        return self._numbers.get(id(tensor))

    def _known(self, given: object) -> tuple[tuple[int, torch.Size], ...]:
        """Of the tensors in there, those that depend on the images."""
        tensors = [tensor for tensor in tree_leaves(given) if isinstance(tensor, Tensor)]
        return tuple((self._numbers[id(t)], t.shape) for t in tensors if id(t) in self._numbers)

    def _made(self, result: object) -> tuple[tuple[int, torch.Size], ...]:
        tensors = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        return tuple((self._numbered(tensor), tensor.shape) for tensor in tensors)

    def _numbered(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        self._count += 1
        self._numbers[id(tensor)] = self._count
        return self._count

    def needed(self, wanted: int | None, cell: tuple[int, int]) -> tuple[Box | None, set[str]]:
        """The rows and columns of the images that a cell of the value `wanted` needs, None if it needs none.

        The set names the operations that could not be followed, for which the whole of their inputs was taken.
        """
        if wanted is None:
            return None, set()
        needs: dict[int, Box] = {wanted: ((cell[0], cell[0]), (cell[1], cell[1]))}
        unread: set[str] = set()
        for operation in reversed(self._operations):
            found = [(needs[number], shape) for number, shape in operation.outputs if number in needs]
            if found and operation.rule is None:
                unread.add(operation.name)
            for (box, shape), (number, given) in itertools.product(found, operation.inputs):
                if len(given) < 2:
                    continue
                rows, columns = (
                    _clipped(_followed(operation, box[axis], axis, given, shape), given[axis - 2]) for axis in (0, 1)
                )
                before = needs.get(number, (rows, columns))
                needs[number] = (_hull(before[0], rows), _hull(before[1], columns))
        return needs.get(self._images), unread


def _followed(operation: Operation, interval: Interval, axis: int, given: torch.Size, shape: torch.Size) -> Interval:
    """What one input must give; one that is spread over the axis gives its only cell."""
    if operation.pointwise and given[axis - 2] == 1 != shape[axis - 2]:
        return (0, 0)
    return (0, given[axis - 2] - 1) if operation.rule is None else operation.rule(operation, interval, axis)


def _in_place(name: str, pointwise: bool, given: torch.Size, shape: torch.Size) -> Rule | None:
    """That of operations which leave every cell where it is; None for all others."""
    same = given[-2:] == shape[-2:] and (name in SAME_CELLS or "norm" in name)
    return (lambda operation, interval, axis: interval) if pointwise or same else None


def _hull(one: Interval, other: Interval) -> Interval:
    return min(one[0], other[0]), max(one[1], other[1])


def _clipped(interval: Interval, size: int) -> Interval:
    """What lies beyond the edge is padding, and no pixel."""
    return min(max(interval[0], 0), size - 1), min(max(interval[1], 0), size - 1)


def _of_axis(values: Any, axis: int, otherwise: int) -> int:
    """Of a setting that is one number for all axes, one for each, of which these are the last two, or left out."""
    if values is None or (isinstance(values, Sequence) and not len(values)):
        return otherwise
    return int(values[axis - 2] if isinstance(values, Sequence) and len(values) > 1 else tree_leaves(values)[0])


def sizes_of(operation: Operation, axis: int) -> tuple[int, int]:
    """Of the input and of the result, along an axis."""
    return operation.inputs[0][1][axis - 2], operation.outputs[0][1][axis - 2]


def _window(interval: Interval, *, kernel: int, stride: int, padding: int, dilation: int) -> Interval:
    first, last = interval
    return first * stride - padding, last * stride - padding + dilation * (kernel - 1)


def _convolution(operation: Operation, interval: Interval, axis: int) -> Interval:
    settings = operation.arguments
    kernel = settings["weight"].shape[axis - 2]
    stride, padding, dilation = (_of_axis(settings[name], axis, 1) for name in ("stride", "padding", "dilation"))
    if not settings["transposed"]:
        return _window(interval, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    # Cell i is written to cells i * stride - padding + dilation * j, for j below the size of the kernel.
    first, last = interval
    return math.ceil((first + padding - dilation * (kernel - 1)) / stride), (last + padding) // stride


def _pooling(operation: Operation, interval: Interval, axis: int) -> Interval:
    settings = operation.arguments
    kernel = _of_axis(settings["kernel_size"], axis, 1)
    return _window(
        interval,
        kernel=kernel,
        stride=_of_axis(settings.get("stride"), axis, kernel),
        padding=_of_axis(settings.get("padding"), axis, 0),
        dilation=_of_axis(settings.get("dilation"), axis, 1),
    )


def _adaptive(operation: Operation, interval: Interval, axis: int) -> Interval:
    size, cells = sizes_of(operation, axis)
    return interval[0] * size // cells, -(-(interval[1] + 1) * size // cells) - 1


def _bilinear(operation: Operation, interval: Interval, axis: int) -> Interval:
    size, cells = sizes_of(operation, axis)
    aligned = bool(operation.arguments["align_corners"])
    given = operation.arguments.get("scales_w" if axis else "scales_h")

    def place(cell: int) -> float:
        if aligned:
            return cell * (size - 1) / max(1, cells - 1)
        return max(0.0, (cell + 0.5) * (1 / given if given else size / cells) - 0.5)

    return math.floor(place(interval[0])), math.ceil(place(interval[1]))


def _nearest(operation: Operation, interval: Interval, axis: int) -> Interval:
    size, cells = sizes_of(operation, axis)
    given = operation.arguments.get("scales_w" if axis else "scales_h")
    scale = 1 / given if given else size / cells
    return math.floor(interval[0] * scale), math.floor(interval[1] * scale)


def _padding(operation: Operation, interval: Interval, axis: int) -> Interval:
    """Zeros, or the cells at the edge once more, from which nothing more is seen: `_clipped` leads back to them."""
    pad = operation.arguments.get("pad") or operation.arguments["padding"]
    before = pad[2 * (1 - axis)] if len(pad) > 2 * (1 - axis) else 0
    return interval[0] - before, interval[1] - before


def _slice(operation: Operation, interval: Interval, axis: int) -> Interval:
    settings, shape = operation.arguments, operation.inputs[0][1]
    if settings.get("dim", 0) % len(shape) != len(shape) - 2 + axis:
        return interval
    start, step = settings.get("start") or 0, settings.get("step", 1)
    start += shape[axis - 2] if start < 0 else 0
    return interval[0] * step + start, interval[1] * step + start


def _cat(operation: Operation, interval: Interval, axis: int) -> Interval:
    """Side by side in channels; end to end along an axis, all of it is taken."""
    dimensions = len(operation.outputs[0][1])
    along = operation.arguments.get("dim", 0) % dimensions == dimensions - 2 + axis
    return (0, operation.outputs[0][1][axis - 2]) if along else interval


def _mean(operation: Operation, interval: Interval, axis: int) -> Interval:
    shape, dimensions = operation.inputs[0][1], operation.arguments.get("dim")
    over = range(len(shape)) if dimensions is None else [d % len(shape) for d in dimensions]
    return (0, shape[axis - 2] - 1) if len(shape) - 2 + axis in over else interval


def _spread(operation: Operation, interval: Interval, axis: int) -> Interval:
    size, cells = sizes_of(operation, axis)
    return interval if size == cells else (0, size - 1)


# What they give has the shape of a tensor, and nothing else of it.
MADE = {"zeros_like", "ones_like", "empty_like", "full_like", "new_empty", "new_zeros", "new_ones", "new_full"}
# Operations that keep every cell at its place where they keep the size of the map.
SAME_CELLS = {"clone", "detach", "alias", "_to_copy", "copy_", "view", "_unsafe_view", "select", "stack", "sum"}
SAME_CELLS |= {"split", "chunk", "unsqueeze", "squeeze", "native_dropout", "split_with_sizes"}
SAME_CELLS |= {"hardswish", "hardswish_", "_prelu_kernel"}  # activations that torch has not marked as pointwise
RULES: Mapping[str, Rule] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pooling,
    "avg_pool2d": _pooling,
    "avg_pool3d": _pooling,  # of the channels, by the norm of local responses
    "_adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "upsample_bilinear2d": _bilinear,
    "upsample_nearest2d": _nearest,
    "constant_pad_nd": _padding,
    "replication_pad2d": _padding,
    "slice": _slice,
    "cat": _cat,
    "mean": _mean,
    "expand": _spread,
}
