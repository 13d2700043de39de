"""Channels-last memory, in which convolutions are fastest, but where torch computes wrongly in it.

Two kinds of convolutions go wrong backwards on a CPU, by oneDNN 3.13 (torch 2.15, AVX-512), and are right in contiguous
memory. Those with holes, in bfloat16: the weights' gradients have errors as large as themselves, or NaN, or the process
ends, wherever the input channels of a group are not a multiple of the kernel's block, as those of every depthwise one
are. Those of one cell with strides and few channels (8 to 16 at 128 x 128): they write beyond their memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def to_channels_last(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """The model, in place, with its weights in channels-last memory; those of convolutions that torch would have wrong,
    and what they are given, stay contiguous."""
    model.to(memory_format=torch.channels_last)
    if device.type == "cpu":
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and _goes_wrong(module, precision):
                module.to(memory_format=torch.contiguous_format)
                module.register_forward_pre_hook(_contiguous)
    return model


def _goes_wrong(module: nn.Conv2d, precision: str) -> bool:
    if max(module.kernel_size) == 1:  # it has no holes, however far apart they are said to be (models/parts/placed.py)
        return max(module.stride) > 1
    return max(module.dilation) > 1 and precision == "bfloat16"


def _contiguous(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0].contiguous(), *given[1:])
