"""A classifier of patches asked about every pixel at once: what the networks before FCN were, and how fast they can be.

Fast Image Scanning with Deep Max-Pooling Convolutional Neural Networks, Giusti, Ciresan, Masci, Gambardella,
Schmidhuber, 2013, arXiv:1302.1700; here by holes instead of the paper's fragments, which is the same sums.

Letter legend: N batch, C channels, H W size in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F


def scanned(layers: Iterable[nn.Module], maps_NCHW: Tensor, *, spacing: int = 1) -> tuple[Tensor, int]:
    """What the layers of a patch classifier, without padding, say of each of the windows, and the spacing after them.

    Cell (i, j) of the result is what they say of the window whose upper left pixel is (i, j): each pooling keeps its
    resolution, and what follows looks `spacing` cells apart instead of side by side, as many as all pooling so far has
    strides. `spacing` is that of the maps given.
    """
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight
            if spacing > 1 and maps_NCHW.device.type == "cpu":
                # In bfloat16, gradients of convolutions with holes are wrong in other memory: memory_format.py.
                maps_NCHW, weight = maps_NCHW.contiguous(), weight.contiguous()
            maps_NCHW = F.conv2d(maps_NCHW, weight, layer.bias, dilation=spacing)
        elif isinstance(layer, nn.MaxPool2d):
            assert isinstance(layer.kernel_size, int)
            assert isinstance(layer.stride, int)
            maps_NCHW = F.max_pool2d(maps_NCHW, layer.kernel_size, stride=1, dilation=spacing)
            spacing *= layer.stride
        else:
            maps_NCHW = layer(maps_NCHW)
    return maps_NCHW, spacing


def window_of(layers: Iterable[nn.Module]) -> int:
    """Side of the window, in pixels, of which the layers make one cell."""
    window, spacing = 1, 1
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            window += spacing * (layer.kernel_size[0] - 1)
        elif isinstance(layer, nn.MaxPool2d):
            assert isinstance(layer.kernel_size, int)
            assert isinstance(layer.stride, int)
            window += spacing * (layer.kernel_size - 1)
            spacing *= layer.stride
    return window
