"""Strides as dilation, by the atrous rule: finer maps from the same weights.

Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, Chen et al., 2014, arXiv:1412.7062.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def stride_to_dilation(stages: Mapping[str, nn.Module], output_stride: int) -> None:
    """Turns the strides beyond `output_stride` into dilation, in place, by the atrous rule.

    A convolution or pooling that loses its stride keeps its own dilation, since its input has not changed; every larger
    kernel behind it reaches twice as far. The result, read at every second cell, is that of the strided network exactly
    (but for squeeze-and-excitation, which averages over more cells). For Bottleneck this is torchvision's
    `replace_stride_with_dilation`; its BasicBlock refuses dilation, and its dilated MobileNetV3 also widens the
    convolution that loses the stride, so that ImageNet weights would see their inputs at another spacing.
    """
    stride, dilation = 1, 1
    for module in (m for stage in stages.values() for m in stage.modules()):
        if isinstance(module, nn.MaxPool2d) and stride < output_stride:
            stride *= 2
        elif isinstance(module, nn.MaxPool2d):
            module.stride, module.dilation = 1, dilation
            dilation *= 2
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
            module.dilation = (dilation, dilation)
            module.padding = (dilation * (kernel // 2), dilation * (kernel // 2))
            dilation *= 2 if strided else 1
