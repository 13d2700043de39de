"""Gradients in bfloat16 of maps smaller than a stride: those in float64, whatever lay in the memory before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from segpipe.train.margins import with_margins

CPU = torch.device("cpu")


def gradient(convolution: nn.Conv2d, maps_NCHW: Tensor, *, mixed: bool) -> Tensor:
    for size in (10**3, 10**4, 10**5):
        torch.full((size,), 1e30)  # what lies in memory that is free again
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        output = convolution(maps_NCHW)
    return torch.autograd.grad(output.double().square().sum(), convolution.weight)[0].double()


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (1, 5), (4, 3)])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (7, 1), (3, 2)])
def test_gradients_are_right(stride: int, size: tuple[int, int], kernel: int, dilation: int) -> None:
    torch.manual_seed(0)
    padding = dilation * (kernel // 2)
    plain = nn.Conv2d(16, 16, kernel, stride=stride, padding=padding, dilation=dilation)
    wide = with_margins(copy.deepcopy(plain), CPU, "bfloat16")
    maps_NCHW = torch.randn(2, 16, *size)
    assert torch.equal(wide(maps_NCHW), plain(maps_NCHW)) or max(size) < stride  # other sizes are left as they are
    torch.testing.assert_close(wide(maps_NCHW), plain(maps_NCHW))
    expected = gradient(copy.deepcopy(plain).double(), maps_NCHW.double(), mixed=False)
    for _ in range(5):
        found = gradient(wide, maps_NCHW, mixed=True)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.03 * float(expected.abs().max()))


def test_convolutions_that_would_gain_a_cell_and_other_precisions_are_left_alone() -> None:
    kept = [nn.Conv2d(2, 2, 3, stride=2), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1, stride=2)]
    kept += [nn.Conv2d(2, 2, 2, stride=2), nn.Conv2d(2, 2, 3, stride=2, padding=1, padding_mode="reflect")]
    kept += [nn.Conv2d(2, 2, 3, stride=2, padding="valid")]
    for convolution in kept:
        assert not with_margins(convolution, CPU, "bfloat16")._forward_pre_hooks
    strided = nn.Conv2d(2, 2, 3, stride=2, padding=1)
    assert not with_margins(strided, CPU, "float32")._forward_pre_hooks
    assert not with_margins(strided, torch.device("cuda"), "bfloat16")._forward_pre_hooks
    assert with_margins(strided, CPU, "bfloat16")._forward_pre_hooks
