"""A dense network as a function of one tensor, and its trace by `torch.export`. Part of `portable`.

Legend: N images, K classes, H W size in pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segpipe.errors import InputError

AXES = {"batch": 0, "height": 2, "width": 3}
# What is tried one after the other. Height and width go together: what fixes one (a pyramid whose maps must fit) fixes
# the other.
_FREE = (("batch", "height", "width"), ("batch",), ())
_LEAST_SIDE = 33  # of a probe: one pixel beyond the usual stride


class Logits(nn.Module):
    """A dense model whose answer is one tensor: images_N3HW, float32 and normalised -> logits_NKHW."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_N3HW: Tensor) -> Tensor:
        logits_NKHW: Tensor = self.model(images_N3HW).logits_NKHW
        return logits_NKHW


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Traced:
    """A network's graph. `free` are the axes of its input that may have any size, `size` is (H, W) where these are not
    among them, and `why_fixed` says what came of trying; batches are of one image where they are fixed."""

    program: ExportedProgram
    free: tuple[str, ...]
    size: tuple[int, int]
    why_fixed: str


def trace(model: nn.Module, size: tuple[int, int], *, epsilon: float, dynamic: bool = True) -> Traced:
    """Traces a dense model in evaluation for images of `size` (H, W), with as many free axes as it allows.

    An axis counts as free only where the graph was asked with two other sizes and said what the model says, within
    `epsilon`: a graph that was specialised quietly would answer wrongly. Raises InputError where none can be traced.
    """
    network = Logits(model).eval()
    reasons: list[str] = []
    for free in _FREE if dynamic else _FREE[-1:]:
        try:
            program = _export(network, size, free)
            unlike = next(_unlike(network, program, size, free, epsilon), None)
        except Exception as error:  # noqa: BLE001 - torch raises all kinds at what it cannot follow
            unlike = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if unlike is None:
            return Traced(program=program, free=free, size=size, why_fixed="; ".join(reasons))
        reasons.append(f"{' and '.join(free) or 'nothing'} free: {unlike}")
    raise InputError(f"torch.export cannot follow this network: {'; '.join(reasons)}")


def largest_difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference of two tensors of one shape, as a share of the largest size of an expected number.

    NaN where either holds one, and infinite where the shapes differ: both are above every epsilon by `not (x <= e)`.
    """
    if expected.shape != found.shape:
        return float("inf")
    scale = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((expected - found).abs().max() / scale)


def _export(network: nn.Module, size: tuple[int, int], free: tuple[str, ...]) -> ExportedProgram:
    # Of two images where batches are free: of one, torch takes the 1 for a constant.
    images_N3HW = torch.zeros(2 if free else 1, 3, *size)
    shapes = ({AXES[name]: Dim.DYNAMIC for name in free},) if free else None
    with torch.no_grad(), _quiet():
        return torch.export.export(network, (images_N3HW,), dynamic_shapes=shapes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracebacks that torch logs of sizes it cannot solve for (ENet's): what came of trying is told."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _unlike(
    network: nn.Module, program: ExportedProgram, size: tuple[int, int], free: tuple[str, ...], epsilon: float
) -> Iterator[str]:
    """What the graph says otherwise than the network, on noise of the traced size and of two others."""
    asked, (height, width) = program.module(), size
    probes: list[tuple[int, int, int]] = [(1, height, width)]
    if "batch" in free:
        probes.append((3, height, width))
    if "height" in free:
        probes += [
            (1, height + 13, width + 29),
            (2, max(_LEAST_SIDE, height // 2 + 1), max(_LEAST_SIDE, width // 2 + 1)),
        ]
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for number, *sides in probes:
            images_N3HW = torch.randn(number, 3, *sides, generator=noise)
            difference = largest_difference(network(images_N3HW), asked(images_N3HW))
            if not difference <= epsilon:
                asked_of = f"{number} of {sides[0]}x{sides[1]}"
                yield f"on a batch of {asked_of} its logits differ by {difference:.2g} of the largest"
