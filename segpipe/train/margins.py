"""Margins around maps that are smaller than a stride, whose gradients torch computes wrongly in bfloat16 on a CPU.

Where a convolution with strides is given such a map (one cell at stride 2), oneDNN 3.13 (torch 2.15, AVX-512) never
writes the gradients of the weights beside its middle, which are zero: they are what lay in that memory, up to 1e36.
A crop of 64 pixels is that small at stride 64, where RetinaNet makes its coarsest map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def with_margins(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """The model, whose convolutions with strides get maps of a stride's size at least: zeros, which they would see
    there anyway, so that nothing else changes."""
    if device.type == "cpu" and precision == "bfloat16":
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and _gains_no_cell(module):
                module.register_forward_pre_hook(_widened)
    return model


def _gains_no_cell(module: nn.Conv2d) -> bool:
    """Whether a map of one cell and one of the stride's size both give one cell."""
    if isinstance(module.padding, str) or module.padding_mode != "zeros" or min(module.stride) == 1:
        return False
    sides = zip(module.kernel_size, module.padding, module.dilation, strict=True)
    return all(kernel > 1 and 2 * padding == dilation * (kernel - 1) for kernel, padding, dilation in sides)


def _widened(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    assert isinstance(module, nn.Conv2d)
    maps_NCHW = given[0]
    rows, columns = (max(0, s - have) for s, have in zip(module.stride, maps_NCHW.shape[-2:], strict=True))
    return (F.pad(maps_NCHW, (0, columns, 0, rows)), *given[1:]) if rows or columns else given
