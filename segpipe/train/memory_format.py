"""Channels-last memory, in which convolutions are fastest, but where torch computes wrongly in it.

Of a convolution with holes, in bfloat16 on a CPU, oneDNN 3.13 (torch 2.15, AVX-512) gives wrong gradients of the
weights in channels-last memory: errors as large as the gradients, NaN, or a crash, wherever the input channels of a
group are not a multiple of its block; every depthwise convolution is. Contiguous memory is right, and so is float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def to_channels_last(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """The model, in place, with its weights in channels-last memory; those of convolutions with holes, and what they
    are given, stay contiguous where torch is wrong otherwise."""
    model.to(memory_format=torch.channels_last)
    if device.type == "cpu" and precision == "bfloat16":
        for module in model.modules():
            # One cell has no holes, however far apart they are said to be (models/parts/placed.py).
            if isinstance(module, nn.Conv2d) and max(module.dilation) > 1 and max(module.kernel_size) > 1:
                module.to(memory_format=torch.contiguous_format)
                module.register_forward_pre_hook(_contiguous)
    return model


def _contiguous(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0].contiguous(), *given[1:])
