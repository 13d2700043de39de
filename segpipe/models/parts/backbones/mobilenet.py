"""MobileNetV3-Large, as torchvision has it.

Searching for MobileNetV3, Howard et al., 2019, arXiv:1905.02244.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from segpipe.models.parts.backbones.layout import Layout
from segpipe.models.parts.layers import BatchNorm2d

NORM_LAYERS = {
    "batch": partial(BatchNorm2d, eps=0.001, momentum=0.01),
    "frozen": partial(FrozenBatchNorm2d, eps=0.001),
}


def _v3_large(norm: str) -> Mapping[str, nn.Module]:
    classifier = models.mobilenet_v3_large(weights=None, norm_layer=NORM_LAYERS[norm])
    return dict(classifier.get_submodule("features").named_children())


LAYOUTS = {
    "mobilenet_v3_large": Layout(
        layers=_v3_large, taps=("1", "3", "6", "12", "16"), channels=(16, 24, 40, 112, 960), stem="0.0"
    ),
}
