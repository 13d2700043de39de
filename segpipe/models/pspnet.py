"""PSPNet: the map of a dilated ResNet beside its means over grids of 1, 2, 3 and 6 cells a side.

Pyramid Scene Parsing Network, Zhao, Shi, Qi, Wang, Jia, CVPR 2017, arXiv:1612.01105, figure 3.

    images -> backbone (output stride 8) -.---------------------------------.
                 |                        |-> mean of 1 x 1 cells -> 1x1 ---|
                 |                        |-> means of 2 x 2 ------> 1x1 ---+- concat -> 3x3 -> dropout -> 1x1, K
                 |                        |-> means of 3 x 3 ------> 1x1 ---|              -> bilinear
                 |                        `-> means of 6 x 6 ------> 1x1 ---'
                 `- stage before last -> 3x3, C/4 -> dropout -> 1x1, K -> bilinear                    (aux, figure 4)

Weights that the authors released with their PyTorch code (github.com/hszhao/semseg) load through `adapt`.

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import fcn_head
from segpipe.models.parts.pyramid_pooling import BINS, PyramidPooling
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published, check_counts
from segpipe.types import Task

# The authors' `layer0` is a list: the backbone's names by their place in it.
STEM = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}


class PSPNet(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput; `aux` holds "aux" where it was built with it."""

    def __init__(self, backbone: Backbone, num_classes: int, *, bins: Sequence[int], aux: bool) -> None:
        super().__init__()
        *_, fourth, last = backbone.channels
        self.backbone = backbone
        self.ppm = PyramidPooling(last, last // len(bins), bins)
        self.cls = fcn_head(self.ppm.out_channels, num_classes, channels=last // 4, dropout=nn.Dropout2d)
        self.aux_classifier = fcn_head(fourth, num_classes, dropout=nn.Dropout2d) if aux else None

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        *_, fourth, last = self.backbone(images_NCHW)
        aux = {}
        if self.aux_classifier is not None:
            aux["aux"] = self.aux_classifier(fourth)
        return DenseOutput(scores_NKhw=self.cls(self.ppm(last)), size=(height, width), aux_scores=aux)


def build(
    *, num_classes: int, in_channels: int, backbone: str, output_stride: int, bins: list[int], aux: bool
) -> PSPNet:
    """A PSPNet with random weights.

    Raises InputError on an unknown backbone or output stride, and on grids that are none or more than the channels.
    """
    check_counts(**{f"bins.{place}": cells for place, cells in enumerate(bins)})
    body = build_backbone(backbone, in_channels=in_channels, output_stride=output_stride, widened=True)
    if not 1 <= len(bins) <= body.channels[4]:
        raise InputError(f"bins: {bins}; expected at least one grid, by its cells a side, as [1, 2, 3, 6]")
    return PSPNet(body, num_classes, bins=bins, aux=aux)


def adapt(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dicts of the authors' PyTorch code -> our keys; files of ours and of classifiers stay as they are."""
    if not any(key.removeprefix("module.").startswith("layer0.") for key in state_dict):
        return dict(state_dict)
    adapted = {}
    for key, value in state_dict.items():
        name = key.removeprefix("module.")
        name = re.sub(r"^layer0\.(\d)\.", lambda m: f"backbone.{STEM[m[1]]}.", name)
        name = re.sub(r"^layer([1-4])\.", r"backbone.layer\1.", name)
        name = re.sub(r"^aux\.", "aux_classifier.", name)
        # Pooling is the first of the authors' layers of a grid, and a function here.
        name = re.sub(r"^ppm\.features\.(\d+)\.(\d)\.", lambda m: f"ppm.features.{m[1]}.{int(m[2]) - 1}.", name)
        adapted[name] = value
    return adapted


def _published(dataset: str, backbone: str, miou: float, pixel_accuracy: float) -> tuple[Published, ...]:
    return tuple(
        Published(
            dataset=dataset,
            split="val",
            protocol=f"{backbone} with the deep stem, crops of {713 if dataset == 'Cityscapes' else 473} slid over the "
            "image, one scale and its mirror image",
            metric=metric,
            value=value,
            source="the authors' later code: github.com/hszhao/semseg, README.md; mirrored by its tool/test.py",
        )
        for metric, value in (("miou", miou), ("pixel_accuracy", pixel_accuracy))
    )


SPEC = ModelSpec(
    name="pspnet",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper="Pyramid Scene Parsing Network, Zhao, Shi, Qi, Wang, Jia, 2017, arXiv:1612.01105",
    build=build,
    options={"backbone": "resnet50", "output_stride": 8, "bins": list(BINS), "aux": True},
    tiny={"backbone": "resnet18", "output_stride": 16},
    size_divisor=1,
    differs=(
        "bilinear resizing samples at cell centres (align_corners=False); the authors' code aligns corners and takes "
        "sides of 8 n + 1 alone",
        "maps smaller than a grid repeat their cells in it, so that every image has an answer",
        "torchvision's ResNets, which have its ImageNet weights: their stem is one 7x7 convolution; resnet50_deep "
        "and resnet101_deep have the three 3x3 of the authors' code",
        "a single value per channel (the grid of one cell, with batch 1) is normalised by the running statistics",
        "the weight of the auxiliary loss is the recipe's (train.aux_weight; 0.4 in the paper)",
    ),
    published=(
        *_published("ADE20K", "ResNet-50", 0.4189, 0.8039),
        *_published("ADE20K", "ResNet-101", 0.4310, 0.8107),
        *_published("PASCAL VOC 2012", "ResNet-50", 0.7705, 0.9489),
        *_published("PASCAL VOC 2012", "ResNet-101", 0.7907, 0.9534),
        *_published("Cityscapes", "ResNet-50", 0.7730, 0.9597),
        *_published("Cityscapes", "ResNet-101", 0.7863, 0.9614),
        Published(
            dataset="Cityscapes",
            split="test",
            protocol="ResNet-101, fine annotations and coarse ones, several scales, test server",
            metric="miou",
            value=0.802,
            source="paper, section 5.4",
        ),
        papers.camvid_miou_by_another("ResNet-50 with ImageNet weights but for the stem, no auxiliary loss", 0.4878),
    ),
    counted=tuple(
        Counted(
            parameters=parameters,
            num_classes=150,
            options={"backbone": backbone},
            source="the layers of github.com/hszhao/semseg, model/pspnet.py, added up (tests/models/test_pspnet.py)",
        )
        for backbone, parameters in (("resnet50_deep", 49_180_908), ("resnet101_deep", 68_173_036))
    ),
    adapt=adapt,
)
