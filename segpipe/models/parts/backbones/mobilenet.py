"""MobileNetV2 and MobileNetV3, as torchvision has them.

MobileNetV2: Inverted Residuals and Linear Bottlenecks, Sandler, Howard, Zhu, Zhmoginov, Chen, 2018, arXiv:1801.04381;
Searching for MobileNetV3, Howard et al., 2019, arXiv:1905.02244.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from segpipe.models.parts.backbones.layout import NORM_LAYERS, Layout
from segpipe.models.parts.layers import BatchNorm2d

NORM_LAYERS_V3 = {
    "batch": partial(BatchNorm2d, eps=0.001, momentum=0.01),
    "frozen": partial(FrozenBatchNorm2d, eps=0.001),
}


def _layers(
    classifier: Callable[..., nn.Module], norm_layers: Mapping[str, Callable[..., nn.Module]], norm: str
) -> Mapping[str, nn.Module]:
    made = classifier(weights=None, norm_layer=norm_layers[norm])
    return dict(made.get_submodule("features").named_children())


LAYOUTS = {
    "mobilenet_v2": Layout(
        layers=partial(_layers, models.mobilenet_v2, NORM_LAYERS),
        taps=("1", "3", "6", "13", "18"),
        channels=(16, 24, 32, 96, 1280),
        stem="0.0",
    ),
    "mobilenet_v3_small": Layout(
        layers=partial(_layers, models.mobilenet_v3_small, NORM_LAYERS_V3),
        taps=("0", "1", "3", "8", "12"),
        channels=(16, 16, 24, 48, 576),
        stem="0.0",
    ),
    "mobilenet_v3_large": Layout(
        layers=partial(_layers, models.mobilenet_v3_large, NORM_LAYERS_V3),
        taps=("1", "3", "6", "12", "16"),
        channels=(16, 24, 40, 112, 960),
        stem="0.0",
    ),
}
