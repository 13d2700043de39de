"""Strides as dilation, by the atrous rule: finer maps from the same weights.

Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, Chen et al., 2014, arXiv:1412.7062.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def stride_to_dilation(stages: Mapping[str, nn.Module], output_stride: int, *, widened: bool = False) -> None:
    """Turns the strides beyond `output_stride` into dilation, in place, by the atrous rule.

    A convolution that loses its stride keeps its own dilation, since its input has not changed; every larger kernel
    behind it reaches twice as far. The result, read at every second cell, is that of the strided network exactly (but
    for squeeze-and-excitation, which averages over more cells). For Bottleneck this is torchvision's
    `replace_stride_with_dilation`; its BasicBlock refuses dilation.

    `widened`, the convolution that loses its stride reaches twice as far, too, so that a stage has one rate: so have it
    torchvision's dilated MobileNetV3 and the authors of DeepLabV3 and PSPNet. Weights of a strided network then see
    their inputs at another spacing.
    """
    stride, dilation = 1, 1
    for module in (m for stage in stages.values() for m in stage.modules()):
        if isinstance(module, nn.MaxPool2d):
            stride *= 2
        if not isinstance(module, nn.Conv2d):
            continue
        strided, kernel = module.stride[0] > 1, module.kernel_size[0]
        if kernel == 1:
            # A strided shortcut stands behind the convolution of its block, so `dilation` already tells its stage.
            module.stride = (1, 1) if dilation > 1 else module.stride
        elif strided and stride < output_stride:
            stride *= 2
        else:
            module.stride = (1, 1)
            rate = dilation * 2 if strided and widened else dilation
            module.dilation = (rate, rate)
            module.padding = (rate * (kernel // 2), rate * (kernel // 2))
            dilation *= 2 if strided else 1
