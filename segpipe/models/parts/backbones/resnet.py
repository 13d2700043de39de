"""ResNet-18 to -152 and ResNeXt, as torchvision has them.

Deep Residual Learning for Image Recognition, He, Zhang, Ren, Sun, 2015, arXiv:1512.03385; Aggregated Residual
Transformations for Deep Neural Networks, Xie, Girshick, Dollar, Tu, He, 2016, arXiv:1611.05431.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from segpipe.models.parts.backbones.layout import Layout
from segpipe.models.parts.layers import BatchNorm2d

NORM_LAYERS = {"batch": BatchNorm2d, "frozen": FrozenBatchNorm2d}


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


LAYOUTS = {
    "resnet18": _layout(models.resnet18, 1),
    "resnet34": _layout(models.resnet34, 1),
    "resnet50": _layout(models.resnet50, 4),
    "resnet101": _layout(models.resnet101, 4),
    "resnet152": _layout(models.resnet152, 4),
    "resnext50_32x4d": _layout(models.resnext50_32x4d, 4),
    "resnext101_32x8d": _layout(models.resnext101_32x8d, 4),
}
