"""Objects from pixels: a U-Net whose map of a class is cut into its objects afterwards, by a watershed.

U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger, Fischer, Brox, MICCAI 2015,
arXiv:1505.04597, section 3: cells of one class are told apart by the background that is learned between them.

    images -> U-Net -> background and K classes of every pixel -> task: arg max, watershed of each class's distance

Child of `unet.py`, whose network it is: only the background is added to the classes. The baseline that detectors of
objects have to beat: it needs no anchors and finds any number of objects, and none that another one hides.

Letter legend: K classes.
"""

from __future__ import annotations

from typing import Any

from segpipe.models import unet
from segpipe.models.spec import Counted, DenseOutput, ModelSpec
from segpipe.types import Task


def build(*, num_classes: int, **options: Any) -> unet.UNet:
    """A U-Net of K + 1 channels, the background first, then class k in channel k + 1. Raises as `unet.build`."""
    return unet.build(num_classes=num_classes + 1, **options)


SPEC = ModelSpec(
    name="unet_watershed",
    task=Task.INSTANCE,
    output=DenseOutput,
    paper=unet.SPEC.paper,
    build=build,
    options=unet.SPEC.options,
    tiny=unet.SPEC.tiny,
    size_divisor=unet.SPEC.size_divisor,
    differs=(
        *unet.SPEC.differs,
        "objects that the map leaves together are cut at their necks by a watershed (refine/watershed.py), where the "
        "paper's are the connected parts of the foreground",
    ),
    published=unet.SPEC.published,
    counted=(
        Counted(
            parameters=24_436_258,
            num_classes=1,
            source="segmentation-models-pytorch 0.5.0 (benchmarks/peers.txt), Unet('resnet34') of two channels with a "
            "head of 1x1: `unet` of one, and 17 for the other",
        ),
    ),
)
