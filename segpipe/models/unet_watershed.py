"""Objects from pixels: a U-Net whose map of a class is cut into its objects afterwards, by a watershed.

U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger, Fischer, Brox, MICCAI 2015,
arXiv:1505.04597, section 3: cells of one class are told apart by the background that is learned between them.

    images -> U-Net -> background and K classes of every pixel -> task: arg max, watershed of each class's distance

Child of `unet.py`, whose parts it takes over whole; only the background is added to the classes. The baseline that
detectors of objects have to beat: it needs no anchors and finds any number of objects, and none that another one hides.

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from segpipe.models import unet
from segpipe.models.layers import resize
from segpipe.models.spec import DenseOutput, ModelSpec
from segpipe.types import Task


class UNetWatershed(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput of K + 1 channels: the background, then class k in
    channel k + 1. `targets` are taken as every model of objects takes them, and not looked at: the task has the loss.
    """

    def __init__(self, parent: unet.UNet) -> None:
        super().__init__()
        self.backbone, self.decoder, self.head = parent.backbone, parent.decoder, parent.head

    def forward(self, images_NCHW: Tensor, targets: object = None) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        features = unet.expand(self.decoder, self.backbone(images_NCHW), height, width)
        return DenseOutput(logits_NKHW=resize(self.head(features), height, width))


def build(*, num_classes: int, in_channels: int, backbone: str, head_stride: int, width: int) -> UNetWatershed:
    """One with random weights. Raises as `unet.build`."""
    return UNetWatershed(
        unet.build(
            num_classes=num_classes + 1,
            in_channels=in_channels,
            backbone=backbone,
            head_stride=head_stride,
            width=width,
        )
    )


SPEC = ModelSpec(
    name="unet_watershed",
    task=Task.INSTANCE,
    paper=unet.SPEC.paper,
    build=build,
    options=unet.SPEC.options,
    size_divisor=unet.SPEC.size_divisor,
    differs=(
        *unet.SPEC.differs,
        "objects that the map leaves together are cut at their necks by a watershed (refine/watershed.py), where the "
        "paper's are the connected parts of the foreground",
    ),
    published=unet.SPEC.published,
)
