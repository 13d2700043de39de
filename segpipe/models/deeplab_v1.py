"""DeepLab: VGG-16 whose last two poolings keep their resolution, with holes in what follows ("LargeFOV").

Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, Chen, Papandreou, Kokkinos, Murphy,
Yuille, ICLR 2015, arXiv:1412.7062, section 3 and table 2; layers as in the authors' DeepLab-LargeFOV train.prototxt.

    pool 3x3, stride:    2         2         2         1         1      (and a 3x3 average)
    images -> conv1 -- conv2 -- conv3 -- conv4 -- conv5, holes 2 -- fc6 3x3, holes 12 -- fc7 1x1 -- 1x1, K -> x 8
    stride 1         2        4        8        8                8                   1024        1024

All kernels of a stride are odd and padded to half their size, so that cell i lies at pixel 8 i exactly: the scores are
resized corner to corner, (h - 1) * 8 + 1 from h, and what reaches beyond the image is cut off.

The paper's dense CRF is a refinement of any model's prediction and no part of this one.

Letter legend: N batch, K classes, H W image size, C channels, h w size of the map of stride 8.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, vgg, with_stem
from segpipe.models.parts.backbones.dilation import stride_to_dilation
from segpipe.models.parts.convolutionalised import adapt_classifier, fc_convolution, fc_layers
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts
from segpipe.types import Task

STRIDE = 8
BACKBONES = ("vgg16", "vgg16_slim")


class DeepLab(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc8 = fc_convolution(backbone.channels[-1], num_classes, 1)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        scores_NKhw = self.fc8(self.backbone(images_NCHW)[-1])
        size = [(cells - 1) * STRIDE + 1 for cells in scores_NKhw.shape[-2:]]
        logits_NKHW = F.interpolate(scores_NKhw, size=size, mode="bilinear", align_corners=True)
        return DenseOutput(scores_NKhw=logits_NKHW[..., :height, :width])


def _backbone(name: str, in_channels: int, *, kernel_size: int, dilation: int, fc_channels: int) -> Backbone:
    """The whole VGG but its last layer, of stride 8 from the third pooling on."""
    layout = vgg.LAYOUTS[name]
    layers = dict(layout.layers(layout.norms[0]))
    stride_to_dilation(layers, STRIDE)
    layers["pool5a"] = nn.AvgPool2d(3, stride=1, padding=1)
    reach = dilation * (kernel_size - 1) // 2
    layers |= fc_layers(layout.channels[-1], fc_channels, kernel_size, dilation=dilation, padding=reach)
    whole = dataclasses.replace(layout, taps=("drop7",), channels=(fc_channels,))
    backbone = with_stem(Backbone(name, layers, whole), in_channels)
    vgg.pool_by_three(backbone, ceil_mode=True)
    return backbone


def build(
    *, num_classes: int, in_channels: int, backbone: str, kernel_size: int, dilation: int, fc_channels: int
) -> DeepLab:
    """A DeepLab with random weights.

    Raises InputError on a backbone other than VGG-16, counts below 1, and an fc6 whose middle is between two cells.
    """
    if backbone not in BACKBONES:
        raise InputError(f"backbone: {backbone!r} is not one of {', '.join(BACKBONES)}")
    check_counts(kernel_size=kernel_size, dilation=dilation, fc_channels=fc_channels)
    if dilation * (kernel_size - 1) % 2:
        raise InputError(
            f"dilation: {dilation} puts the middle of fc6's kernel, of size {kernel_size}, between two cells; expected "
            "an odd kernel_size or an even dilation"
        )
    body = _backbone(backbone, in_channels, kernel_size=kernel_size, dilation=dilation, fc_channels=fc_channels)
    return DeepLab(body, num_classes)


_ONE_SCALE = "DeepLab-LargeFOV, one scale"


def _counted(parameters: int, published: str, **options: int) -> Counted:
    return Counted(
        parameters=parameters,
        num_classes=21,
        options=options,
        source=f"the convolutions of table 2's {published.partition(':')[0]}, added up",
        published=f"{published}, table 2",
    )


SPEC = ModelSpec(
    name="deeplab_v1",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=(
        "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, Chen, Papandreou, "
        "Kokkinos, Murphy, Yuille, 2014, arXiv:1412.7062"
    ),
    build=build,
    options={"backbone": "vgg16", "kernel_size": 3, "dilation": 12, "fc_channels": 1024},
    tiny={"backbone": "vgg16_slim", "fc_channels": 32},
    size_divisor=1,
    differs=(
        "of ImageNet's fc6 and fc7 every so many-th kernel row, column and channel is taken, counted from the middle; "
        "the authors' choice of as many was not read",
        "the loss is taken at the input's resolution; the authors shrink the labels by 8 instead",
        "the dense CRF of the paper's best numbers is no part of the model",
    ),
    published=(
        papers.voc_miou("val", f"{_ONE_SCALE}; trained on SBD's train, no CRF", 0.6225, "paper, table 1a"),
        papers.voc_miou("test", f"{_ONE_SCALE}; trained on SBD's trainval, with a dense CRF", 0.703, "paper, table 1b"),
        papers.camvid_miou_by_segnet("LargeFOV at output stride 8, 140,000 steps, no CRF", 0.5388),
        papers.camvid_miou_by_segnet("LargeFOV at output stride 8, 140,000 steps, with a dense CRF", 0.5474),
    ),
    counted=(
        _counted(20_505_429, "DeepLab-CRF-LargeFOV: 20.5 M"),
        _counted(134_346_581, "DeepLab-CRF-7x7: 134.3 M", kernel_size=7, dilation=4, fc_channels=4096),
        _counted(65_140_565, "DeepLab-CRF: 65.1 M", kernel_size=4, dilation=4, fc_channels=4096),
        _counted(65_140_565, "DeepLab-CRF-4x4: 65.1 M", kernel_size=4, dilation=8, fc_channels=4096),
    ),
    adapt=adapt_classifier,
    subsampled=("backbone.fc6.weight", "backbone.fc6.bias", "backbone.fc7.weight", "backbone.fc7.bias"),
)
