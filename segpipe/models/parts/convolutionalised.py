"""A classifier's fully connected layers as convolutions, so that it runs over images of any size.

Fully Convolutional Networks for Semantic Segmentation, Long, Shelhamer, Darrell, 2015, arXiv:1411.4038, section 3.1: a
layer that sees all of a C x k x k map is a k x k convolution, and what follows it one of 1 x 1.

Letter legend: O outputs, C channels, k size of the map that the layer saw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor, nn

from segpipe.errors import InputError


def convolution_kernel(weight_OI: Tensor, channels: int) -> Tensor:
    """kernel_OCkk of a fully connected layer whose I = C * k * k inputs are a map, flattened as torch does."""
    size = math.isqrt(weight_OI.shape[1] // channels)
    return weight_OI.reshape(weight_OI.shape[0], channels, size, size)


def fc_convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A fully connected layer as a convolution without padding, with the random weights of VGG's."""
    made = nn.Conv2d(in_channels, out_channels, kernel_size)
    nn.init.normal_(made.weight, 0, 0.01)
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return made


def fc_layers(
    in_channels: int, channels: int, kernel_size: int, *, dilation: int = 1, padding: int = 0
) -> dict[str, nn.Module]:
    """VGG's and AlexNet's two hidden layers, `fc6` with that kernel and `fc7`, each with ReLU and dropout."""
    fc6 = fc_convolution(in_channels, channels, kernel_size)
    fc6.dilation, fc6.padding = (dilation, dilation), (padding, padding)
    return {
        "fc6": fc6,
        "relu6": nn.ReLU(inplace=True),
        "drop6": nn.Dropout(),
        "fc7": fc_convolution(channels, channels, 1),
        "relu7": nn.ReLU(inplace=True),
        "drop7": nn.Dropout(),
    }


def adapt_classifier(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's VGG or AlexNet as a backbone that ends in the convolutions `fc6` and `fc7`.

    The third fully connected layer, of ImageNet's classes, is left out. What has no `features` is given back as it is.
    Raises InputError where a layer is there by name alone, as in torchvision's IMAGENET1K_FEATURES: it is all nan.
    """
    features = {key: value for key, value in state_dict.items() if key.startswith("features.")}
    if not features:
        return dict(state_dict)
    adapted = {key.replace("features.", "backbone.", 1): value for key, value in features.items()}
    channels = [len(value) for key, value in features.items() if key.endswith(".weight") and value.ndim == 4][-1]
    found = (re.fullmatch(r"classifier\.(\d+)\.weight", key) for key in state_dict)
    places = sorted(int(match[1]) for match in found if match)
    for name, place, inputs in zip(("fc6", "fc7"), places, (channels, None), strict=False):
        weight = state_dict[f"classifier.{place}.weight"]
        if not bool(weight.isfinite().all()):
            raise InputError(
                f"pretrained: classifier.{place}.weight, which {name} is made of, holds what is no number (so does "
                "torchvision's IMAGENET1K_FEATURES, which is for encoders alone); expected a whole classifier, as "
                "IMAGENET1K_V1 is"
            )
        adapted[f"backbone.{name}.weight"] = convolution_kernel(weight, inputs or weight.shape[1])
        adapted[f"backbone.{name}.bias"] = state_dict[f"classifier.{place}.bias"]
    return adapted
