"""A model on its device; on CPU its larger 1 x 1 convolutions go to oneDNN also where torch has one thread."""

from __future__ import annotations

import torch
from torch import nn

# Of fewer weights a convolution is done before oneDNN has begun: half as fast with 5,000, 1.2 to 1.7 times with 20,000.
FEWEST_WEIGHTS = 2**14


def placed(model: nn.Module, device: torch.device | str) -> nn.Module:
    """The model itself, moved to the device.

    In one thread, where evaluation always runs, torch gives float32 convolutions of one cell to a plain matrix product,
    unless they have a stride, dilation or 16 images ("faster when single-threaded", says its source). oneDNN is twice
    as fast on an AMD EPYC: a forward pass of FCN on ResNet-50 takes three quarters of its time, as does a step. How far
    apart the cells of a kernel of one cell lie changes nothing, and brings it there. Not on a GPU, whose libraries have
    kernels for convolutions without dilation alone. Files of weights do not know of it.
    """
    if torch.device(device).type == "cpu":
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and _gains(module):
                module.dilation = (2, 2)
    return model.to(device)


def _gains(module: nn.Conv2d) -> bool:
    is_plain = module.kernel_size == module.stride == module.dilation == (1, 1)
    return is_plain and module.weight.numel() >= FEWEST_WEIGHTS
