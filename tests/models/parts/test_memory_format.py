"""Gradients in bfloat16 and channels-last memory, as a training on a CPU has them, against those in float64."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from segpipe.models.parts.aspp import ASPP
from segpipe.models.parts.memory_format import to_channels_last
from segpipe.models.parts.scanning import scanned

CPU = torch.device("cpu")
PRECISION = 0.03  # of bfloat16, whose numbers have eight bits, of the largest gradient


class Scanned(nn.Module):
    """A convolution whose holes are said by who calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(25, 50, 3))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return scanned(self.layers, images_NCHW, spacing=2)[0]


def with_holes(in_channels: int, out_channels: int, dilation: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, groups=groups)


CASES: dict[str, tuple[nn.Module, int]] = {
    "without holes": (nn.Conv2d(25, 50, 3), 25),
    "odd channels": (with_holes(24, 64, 2), 24),
    "wide holes": (with_holes(40, 64, 4), 40),
    "depthwise": (with_holes(64, 64, 2, groups=64), 64),
    "in groups": (with_holes(64, 64, 2, groups=8), 64),
    "scanned": (Scanned(), 25),
}


STRIDED = """
import torch
from torch import nn
from segpipe.models.parts.memory_format import to_channels_last

for precision in ("float32", "bfloat16"):
    model = to_channels_last(nn.Conv2d(8, 16, 1, stride=2), torch.device("cpu"), precision)
    images = torch.randn(4, 8, 128, 128).contiguous(memory_format=torch.channels_last)
    for _ in range(20):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            output = model(images)
        output.sum().backward()
        expected = images[:, :, ::2, ::2].sum(dim=(0, 2, 3)).expand(16, 8)
        torch.testing.assert_close(model.weight.grad[:, :, 0, 0], expected, rtol=0.05, atol=5)
        model.weight.grad = None
"""


def test_a_projection_with_strides_stays_in_its_memory() -> None:
    """In a process of its own: one that does not is ended by its allocator."""
    done = subprocess.run([sys.executable, "-c", STRIDED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def gradients(model: nn.Module, images_NCHW: Tensor, *, mixed: bool) -> dict[str, Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        output = model(images_NCHW)
    generator = torch.Generator().manual_seed(1)
    output.backward(torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype))
    return {name: parameter.grad.double() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_right_in_channels_last_memory(name: str) -> None:
    model, channels = CASES[name]
    images_NCHW = torch.randn(2, channels, 40, 50, generator=torch.Generator().manual_seed(0))
    expected = gradients(copy.deepcopy(model).double(), images_NCHW.double(), mixed=False)
    ready = to_channels_last(copy.deepcopy(model), CPU, "bfloat16")
    found = gradients(ready, images_NCHW.contiguous(memory_format=torch.channels_last), mixed=True)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=PRECISION * float(expected[key].abs().max()))


def test_only_what_needs_it_stays_contiguous() -> None:
    model = ASPP(32, 16, [2], separable=False)
    with_hole = [module for module in model.modules() if isinstance(module, nn.Conv2d) and max(module.dilation) > 1]
    others = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module not in with_hole]
    to_channels_last(model, CPU, "bfloat16")
    assert with_hole
    assert all(module.weight.is_contiguous() for module in with_hole)
    assert all(module.weight.is_contiguous(memory_format=torch.channels_last) for module in others)
    to_channels_last(model, CPU, "float32")
    assert all(module.weight.is_contiguous(memory_format=torch.channels_last) for module in with_hole)
