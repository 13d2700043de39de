"""ResNet-18 to -152 and ResNeXt, as torchvision has them; "_deep" with a stem of three 3x3 convolutions.

Deep Residual Learning for Image Recognition, He, Zhang, Ren, Sun, 2015, arXiv:1512.03385; Aggregated Residual
Transformations for Deep Neural Networks, Xie, Girshick, Dollar, Tu, He, 2016, arXiv:1611.05431. The deep stem is that
of the authors of PSPNet (github.com/hszhao/semseg, model/resnet.py), whose ImageNet files have these keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torchvision import models

from segpipe.models.parts.backbones.layout import NORM_LAYERS, Layout

DEEP_STEM = (64, 64, 128)


def _layout(classifier: Callable[..., nn.Module], expansion: int) -> Layout:
    def layers(norm: str) -> Mapping[str, nn.Module]:
        children = classifier(weights=None, norm_layer=NORM_LAYERS[norm]).named_children()
        return {name: child for name, child in children if name not in ("avgpool", "fc")}

    return Layout(
        layers=layers,
        taps=("relu", "layer1", "layer2", "layer3", "layer4"),
        channels=(64, 64 * expansion, 128 * expansion, 256 * expansion, 512 * expansion),
        stem="conv1",
    )


def _deep_layout(classifier: Callable[..., nn.Module]) -> Layout:
    shallow = _layout(classifier, 4)

    def layers(norm: str) -> Mapping[str, nn.Module]:
        stem: dict[str, nn.Module] = {}
        for number, (before, after) in enumerate(zip((3, 64, 64), DEEP_STEM, strict=True), start=1):
            stem[f"conv{number}"] = _conv(before, after, 3, stride=2 if number == 1 else 1, padding=1)
            stem[f"bn{number}"] = NORM_LAYERS[norm](after)
            stem["relu" if number == len(DEEP_STEM) else f"relu{number}"] = nn.ReLU(inplace=True)
        others = {name: child for name, child in shallow.layers(norm).items() if name not in ("conv1", "bn1", "relu")}
        first = others["layer1"].get_submodule("0")
        for name, width in (("conv1", 64), ("downsample.0", 256)):
            first.set_submodule(name, _conv(DEEP_STEM[-1], width, 1))
        return {**stem, **others}

    return Layout(layers=layers, taps=shallow.taps, channels=(DEEP_STEM[-1], *shallow.channels[1:]), stem=shallow.stem)


def _conv(in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> nn.Conv2d:
    """As torchvision starts them."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False, **options)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


LAYOUTS = {
    "resnet18": _layout(models.resnet18, 1),
    "resnet34": _layout(models.resnet34, 1),
    "resnet50": _layout(models.resnet50, 4),
    "resnet101": _layout(models.resnet101, 4),
    "resnet152": _layout(models.resnet152, 4),
    "resnet50_deep": _deep_layout(models.resnet50),
    "resnet101_deep": _deep_layout(models.resnet101),
    "resnext50_32x4d": _layout(models.resnext50_32x4d, 4),
    "resnext101_32x8d": _layout(models.resnext101_32x8d, 4),
}
