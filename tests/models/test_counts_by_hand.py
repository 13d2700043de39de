"""Numbers of parameters that nobody printed, added up from what papers and torchvision say of the layers.

Architectures with a convention of their own are counted in their own files (HRNet, PSPNet).
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torchvision

from segpipe import models


def conv(before: int, after: int, kernel: int) -> int:
    """With biases."""
    return (before * kernel**2 + 1) * after


def conv_norm(before: int, after: int, kernel: int) -> int:
    """A norm's factors and summands instead of the biases."""
    return (before * kernel**2 + 2) * after


def separable(before: int, after: int) -> int:
    """3x3 on each map by itself, then 1x1 over all of them, a norm behind each."""
    return conv_norm(1, before, 3) + conv_norm(before, after, 1)


@cache
def body(name: str) -> int:
    """torchvision's classifier but for what classifies."""
    with torch.device("meta"):
        classifier = getattr(torchvision.models, name)(weights=None)
    return sum(p.numel() for key, p in classifier.named_parameters() if not key.startswith(("fc.", "classifier.")))


def fcn(name: str, channels: int, classes: int) -> int:
    return body(name) + conv_norm(channels, channels // 4, 3) + conv(channels // 4, classes, 1)


def unet(classes: int) -> int:
    """Each of five steps joins the map before it with the encoder's of its stride, of which the finest has none."""
    befores, skips, widths = (512, 256, 128, 64, 32), (256, 128, 64, 64, 0), (256, 128, 64, 32, 16)
    steps = zip(befores, skips, widths, strict=True)
    decoder = sum(conv_norm(before + skip, width, 3) + conv_norm(width, width, 3) for before, skip, width in steps)
    return body("resnet34") + decoder + conv(16, classes, 1)


def patch_classifier(classes: int) -> int:
    """N4: kernels 4, 5, 4, 4 of 48 maps, 200 hidden units that see 3 x 3 cells."""
    layers = conv(3, 48, 4) + conv(48, 48, 5) + conv(48, 48, 4) + conv(48, 48, 4)
    return layers + conv(48, 200, 3) + conv(200, classes, 1)


def farabet(classes: int) -> int:
    """16 maps of 7x7: 10 see Y, 6 see U and V; 64 that see 8 of those each; 256 that see 32 of those each."""
    f = conv(1, 10, 7) + conv(2, 6, 7) + conv(8, 64, 7) + conv(32, 256, 7)
    return f + conv(3 * 256, 1024, 1) + conv(1024, classes, 1)


def rcnn_pinheiro(classes: int) -> int:
    """25 maps of 8x8 over image and labels, 50 of 8x8 over those."""
    return conv(3 + classes, 25, 8) + conv(25, 50, 8) + conv(50, classes, 1)


def fpn(classes: int) -> int:
    pyramid = sum(conv(stage, 256, 1) + conv(256, 256, 3) for stage in (256, 512, 1024, 2048))
    # Every level has a first convolution, P4 a second one, P5 a second and a third.
    branch = 4 * conv_norm(256, 128, 3) + 3 * conv_norm(128, 128, 3)
    return body("resnet50") + pyramid + branch + conv(128, classes, 1)


def deeplab_v3_cascade(classes: int) -> int:
    """Blocks 5, 6 and 7 of three units each, as the last unit of block 4."""
    unit = conv_norm(2048, 512, 1) + conv_norm(512, 512, 3) + conv_norm(512, 2048, 1)
    return body("resnet101") + 3 * 3 * unit + conv(2048, classes, 1)


def deeplab_v3plus(classes: int) -> int:
    pyramid = 2 * conv_norm(2048, 256, 1) + 3 * separable(2048, 256) + conv_norm(5 * 256, 256, 1)
    decoder = conv_norm(256, 48, 1) + separable(256 + 48, 256) + separable(256, 256)
    return body("resnet50") + pyramid + decoder + conv(256, classes, 1)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("patch_classifier", patch_classifier(2)),
        ("farabet", farabet(8)),
        ("rcnn_pinheiro", rcnn_pinheiro(8)),
        ("fcn_resnet18", fcn("resnet18", 512, 21)),
        ("fcn_resnet34", fcn("resnet34", 512, 21)),
        ("fcn_mobilenet_v3_large", fcn("mobilenet_v3_large", 960, 21)),
        ("unet", unet(1)),
        ("fpn", fpn(19)),
        ("deeplab_v3_cascade", deeplab_v3_cascade(21)),
        ("deeplab_v3plus", deeplab_v3plus(21)),
    ],
)
def test_the_sum_over_its_layers_is_what_the_spec_says(name: str, parameters: int) -> None:
    (counted,) = models.spec(name).counted
    assert counted.parameters == parameters


def test_what_was_checked_by_the_sum_is_what_others_print() -> None:
    """The same way of adding up, where there is a printed number: torchvision's FCN, and segmentation_models' U-Net."""
    auxiliary = conv_norm(1024, 256, 3) + conv(256, 21, 1)
    (released,) = models.spec("fcn_resnet50").counted
    assert released.parameters == fcn("resnet50", 2048, 21) + auxiliary
    assert unet(1) - conv(16, 1, 1) + conv(16, 1, 3) == 24_436_369
