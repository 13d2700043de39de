"""Lite R-ASPP on a dilated MobileNetV3, as torchvision builds it: two score layers, one of them weighed by the image.

Searching for MobileNetV3, Howard et al., ICCV 2019, arXiv:1905.02244, section 6.4 and figure 10; the form here is
torchvision's reference model, whose released weights load as they are.

    images -> MobileNetV3 (output stride 16) -> 1x1, 128 -> times -> bilinear to stride 8 -> 1x1, K --.
                   |                       `-> mean of the image, 1x1, sigmoid                       sum -> bilinear
                   `- map of stride 8 -> 1x1, K ------------------------------------------------------'

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import conv_norm_relu, resize
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts
from segpipe.types import Task

# The layers whose maps are read: the first of stride 8, and the last of all; with their channels.
TAPS = {"mobilenet_v3_large": {"4": 40, "16": 960}, "mobilenet_v3_small": {"2": 24, "12": 576}}


class Head(nn.Module):
    """Figure 10: scores of the coarse map, each of whose channels the whole image has a say in, and of the fine one."""

    def __init__(self, low_channels: int, high_channels: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.cbr = conv_norm_relu(high_channels, channels, 1)
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(high_channels, channels, 1, bias=False), nn.Sigmoid()
        )
        self.low_classifier = nn.Conv2d(low_channels, num_classes, 1)
        self.high_classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, low_NCHW: Tensor, high_NCHW: Tensor) -> Tensor:
        weighed_NCHW = self.cbr(high_NCHW) * self.scale(high_NCHW)
        fine_NCHW = resize(weighed_NCHW, *low_NCHW.shape[-2:])
        return self.low_classifier(low_NCHW) + self.high_classifier(fine_NCHW)  # type: ignore[no-any-return]


class LRASPP(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, backbone: Backbone, num_classes: int, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        low_channels, high_channels = backbone.channels
        self.classifier = Head(low_channels, high_channels, num_classes, channels)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        scores_NKhw = self.classifier(*self.backbone(images_NCHW))
        return DenseOutput(scores_NKhw=scores_NKhw, size=(images_NCHW.shape[-2], images_NCHW.shape[-1]))


def build(*, num_classes: int, in_channels: int, backbone: str, output_stride: int, channels: int) -> LRASPP:
    """An LR-ASPP with random weights. Raises InputError on another backbone or output stride, or channels below 1."""
    if backbone not in TAPS:
        raise InputError(f"backbone: {backbone!r} is not one of {', '.join(TAPS)}")
    check_counts(channels=channels)
    body = build_backbone(
        backbone, in_channels=in_channels, output_stride=output_stride, taps=TAPS[backbone], widened=True
    )
    return LRASPP(body, num_classes, channels)


def released(options: Mapping[str, Any]) -> tuple[str, ...]:
    """torchvision's builder of the same network, if it has one."""
    meant = ("mobilenet_v3_large", 16, 128)
    found = (options["backbone"], options["output_stride"], options["channels"])
    return ("lraspp_mobilenet_v3_large",) if found == meant else ()


SPEC = ModelSpec(
    name="lraspp",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper="Searching for MobileNetV3, Howard, Sandler, Chu, Chen, Chen, Tan, et al., 2019, arXiv:1905.02244",
    build=build,
    options={"backbone": "mobilenet_v3_large", "output_stride": 16, "channels": 128},
    tiny={"backbone": "mobilenet_v3_small", "channels": 16},
    size_divisor=1,
    differs=(
        "the image's weights are of its mean, as torchvision has them; the paper pools windows of 49x49 at strides of "
        "16 and 20 and resizes what comes of them",
        "the last stage of MobileNetV3 keeps all of its channels; the paper halves them for segmentation",
        "logits of stride 8 are resized bilinearly to the input",
        "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
    ),
    published=papers.torchvision_published(0.579, 0.912),
    counted=(Counted(parameters=3_221_538, num_classes=21, source=f"{papers.TORCHVISION_RELEASE}, num_params"),),
    released=released,
)
