"""A model on its device, as training, evaluation and serving all have it: in channels-last memory, and on CPU with its
larger 1 x 1 convolutions given to oneDNN also where torch has one thread."""

from __future__ import annotations

import torch
from torch import nn

from segpipe.models.parts.memory_format import to_channels_last

# Of fewer weights a convolution is done before oneDNN has begun: half as fast with 5,000, 1.2 to 1.7 times with 20,000.
FEWEST_WEIGHTS = 2**14


def placed(
    model: nn.Module, device: torch.device | str, *, channels_last: bool = True, precision: str = "float32"
) -> nn.Module:
    """The model itself, moved to the device, its weights in channels-last memory (`memory_format.py`) unless told
    otherwise. `precision` is that of a training, "float32" or "bfloat16".

    Images should come in the same memory: then no convolution turns them around.

    In one thread, where evaluation always runs, torch gives float32 convolutions of one cell to a plain matrix product,
    unless they have a stride, dilation or 16 images ("faster when single-threaded", says its source). oneDNN is twice
    as fast on an AMD EPYC: a forward pass of FCN on ResNet-50 takes three quarters of its time, as does a step. How far
    apart the cells of a kernel of one cell lie changes nothing, and brings it there. Not on a GPU, whose libraries have
    kernels for convolutions without dilation alone. Files of weights do not know of it.
    """
    device = torch.device(device)
    if channels_last:
        to_channels_last(model, device, precision)
    if device.type == "cpu":
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and _gains(module):
                module.dilation = (2, 2)
    return model.to(device)


def _gains(module: nn.Conv2d) -> bool:
    is_plain = module.kernel_size == module.stride == module.dilation == (1, 1)
    return is_plain and module.weight.numel() >= FEWEST_WEIGHTS
