"""FCN on a dilated classifier, as torchvision builds it: a two-layer head on stride-8 maps, bilinear to the input.

Fully Convolutional Networks for Semantic Segmentation, Long, Shelhamer, Darrell, CVPR 2015, arXiv:1411.4038; the form
here is torchvision's reference model, whose released weights load as they are.

    images -> backbone (output stride 8) -> 3x3, C/4 -> dropout -> 1x1, K -> bilinear          (classifier)
                        `- stage before last -> the same head -> bilinear                      (aux)

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import fcn_head
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published
from segpipe.types import Task


class FCN(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput; `aux` holds "aux" when `aux_classifier` is given."""

    def __init__(self, backbone: Backbone, classifier: nn.Module, aux_classifier: nn.Module | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        *_, fourth, last = self.backbone(images_NCHW)
        aux = {}
        if self.aux_classifier is not None:
            aux["aux"] = self.aux_classifier(fourth)
        return DenseOutput(scores_NKhw=self.classifier(last), size=(height, width), aux_scores=aux)


def build(backbone: str, *, num_classes: int, in_channels: int, aux: bool, output_stride: int) -> FCN:
    """An FCN with random weights. Raises InputError on an unknown output stride."""
    body = build_backbone(backbone, in_channels=in_channels, output_stride=output_stride)
    return FCN(
        body,
        fcn_head(body.channels[4], num_classes),
        fcn_head(body.channels[3], num_classes) if aux else None,
    )


DIFFERS = (
    "torchvision's form of the paper: a dilated classifier of output stride 8 instead of VGG-16 at stride 32",
    "no skip connections and no learned upsampling (FCN-16s, FCN-8s): one bilinear step from stride 8 to the input",
    "two-layer head (3x3 to C/4, batch norm, ReLU, dropout 0.1, 1x1) instead of a 1x1 score layer on fc7",
    "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
)

_BASIC_BLOCK = "BasicBlock is dilated here by the atrous rule; torchvision has no dilated ResNet-18 or -34"
_MOBILENET = (
    "not built by torchvision; the convolution that loses its stride is not dilated itself; aux on 112 channels"
)


def _released(parameters: int) -> Counted:
    return Counted(
        parameters=parameters,
        num_classes=21,
        options={"aux": True},
        source=f"{papers.TORCHVISION_RELEASE}, num_params",
    )


def _added_up(parameters: int, classifier: str) -> Counted:
    source = f"torchvision's {classifier} without its classifier, and torchvision's FCN head, {papers.ADDED_UP}"
    return Counted(parameters=parameters, num_classes=21, source=source)


def _on_voc(miou: float) -> tuple[Published, ...]:
    protocol = "output stride 8, one 1x1 layer as head; trained on SBD, validated on images that are not in it"
    source = "another's implementation, github.com/warmspringwinds/pytorch-segmentation-detection, README.md"
    return (papers.voc_miou("val without the images of SBD's train", protocol, miou, source),)


def _spec(
    backbone: str, counted: Counted, *, differs: tuple[str, ...] = (), published: tuple[Published, ...] = ()
) -> ModelSpec:
    return ModelSpec(
        name=f"fcn_{backbone}",
        task=Task.SEMANTIC,
        output=DenseOutput,
        paper=papers.FCN,
        build=partial(build, backbone),
        options={"aux": False, "output_stride": 8},
        tiny={"output_stride": 32},
        size_divisor=1,
        differs=DIFFERS + differs,
        published=published,
        counted=(counted,),
    )


SPECS = (
    _spec("resnet18", _added_up(11_769_301, "ResNet-18"), differs=(_BASIC_BLOCK,), published=_on_voc(0.590)),
    _spec("resnet34", _added_up(21_877_461, "ResNet-34"), differs=(_BASIC_BLOCK,), published=_on_voc(0.680)),
    _spec("resnet50", _released(35_322_218), published=papers.torchvision_published(0.605, 0.914)),
    _spec("resnet101", _released(54_314_346), published=papers.torchvision_published(0.637, 0.919)),
    _spec("mobilenet_v3_large", _added_up(5_051_093, "MobileNetV3-Large"), differs=(_MOBILENET,)),
)
