"""Strides as dilation, by the atrous rule: finer maps from the same weights.

Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, Chen et al., 2014, arXiv:1412.7062;
multi-grid rates are of Rethinking Atrous Convolution for Semantic Image Segmentation, Chen et al., 2017,
arXiv:1706.05587, section 3.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from segpipe.errors import InputError
from segpipe.models.parts.backbones.covering import CoveringConv2d


def stride_to_dilation(stages: Mapping[str, nn.Module], output_stride: int, *, widened: bool = False) -> None:
    """Turns the strides beyond `output_stride` into dilation, in place, by the atrous rule.

    A convolution or pooling that loses its stride keeps its own dilation, since its input has not changed; every larger
    kernel behind it reaches twice as far. The result, read at every second cell, is that of the strided network exactly
    (but for squeeze-and-excitation, which averages over more cells). For Bottleneck this is torchvision's
    `replace_stride_with_dilation`; its BasicBlock refuses dilation.

    `widened`, the convolution that loses its stride reaches twice as far, too, so that a stage has one rate: so have it
    torchvision's dilated MobileNetV3 and the authors of DeepLabV3 and PSPNet. Weights of a strided network then see
    their inputs at another spacing. Patches stand before their stage, which has one rate without that.
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
            stride *= module.stride[0]
        else:
            module.stride = (1, 1)
            set_rate(module, dilation * 2 if strided and widened and not _is_of_patches(module) else dilation)
            dilation *= 2 if strided else 1


def set_rate(unit: nn.Module, rate: int) -> None:
    """Gives every kernel of the unit that is larger than 1 x 1 this dilation, in place; the maps keep their sizes."""
    for conv in unit.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size[0] > 1:
            conv.dilation = (rate, rate)
            if _is_of_patches(conv):
                continue  # it pads as it needs
            conv.padding = (rate * (conv.kernel_size[0] // 2), rate * (conv.kernel_size[1] // 2))


def _is_of_patches(module: nn.Module) -> bool:
    return isinstance(module, CoveringConv2d)


def set_multi_grid(units: Sequence[nn.Module], unit_rates: Sequence[int], base: int | None = None) -> None:
    """Gives the units of a stage the rate `base` times their unit rates, in place; None is the rate that they have.

    Units are as many as the first rates, so that (1, 2, 4) is (1, 2) of a stage of two. Raises InputError on fewer
    rates than units, and on rates that are no whole numbers of at least 1.
    """
    if len(unit_rates) < len(units) or not all(type(rate) is int and rate >= 1 for rate in unit_rates):
        raise InputError(
            f"multi_grid: {list(unit_rates)}; expected a whole number of at least 1 for each of the {len(units)} units "
            "of the stage, or none at all"
        )
    if base is None:
        base = max(m.dilation[0] for unit in units for m in unit.modules() if isinstance(m, nn.Conv2d))
    for unit, rate in zip(units, unit_rates, strict=False):
        set_rate(unit, base * rate)


def units_between(layers: Mapping[str, nn.Module], first_after: str, last: str) -> list[nn.Module]:
    """The residual units of the layers behind `first_after` up to `last` that have kernels larger than 1 x 1."""
    names = list(layers)
    stage = [layers[name] for name in names[names.index(first_after) + 1 : names.index(last) + 1]]
    # torchvision's ResNet puts a stage into one Sequential, its MobileNetV3 is a list of units.
    units = [unit for layer in stage for unit in (list(layer.children()) if type(layer) is nn.Sequential else [layer])]
    return [
        unit
        for unit in units
        if not _is_of_patches(unit)
        and any(isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1 for module in unit.modules())
    ]
