"""Semantic FPN: a Feature Pyramid whose four levels are summed at stride 4 and answer for every pixel.

Panoptic Feature Pyramid Networks, Kirillov, Girshick, He, Dollar, CVPR 2019, arXiv:1901.02446, section 3.1 and figure 3
("Semantic FPN"); the pyramid is that of arXiv:1612.03144, and its second pass PANet's, arXiv:1803.01534.

    images -> C2..C5 -> pyramid [-> second pass from the bottom up] -.
      P5 -> [3x3, norm, ReLU, x2] x 3 -.                             |
      P4 -> [3x3, norm, ReLU, x2] x 2 - sum -> 1x1, K -> x4, bilinear -> logits
      P3 -> [3x3, norm, ReLU, x2] x 1 -|
      P2 -> [3x3, norm, ReLU] ---------'

The branch is `panoptic_fpn.py`'s, in `parts/`.

Letter legend: N batch, K classes, H W image size, C channels. Level i has stride 2**i: P2 is at stride 4.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.pyramid import BottomUpPass, FeaturePyramid
from segpipe.models.parts.semantic_branch import NUM_LEVELS, SemanticBranch, semantic_branch
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published
from segpipe.types import Task

STRIDE, SIZE_DIVISOR = 4, 32


class SemanticFPN(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits.

    Images are padded with zeros, the mean colour, to whole cells of stride 32, so that every level is half of the one
    before.
    """

    def __init__(self, backbone: Backbone, pyramid: FeaturePyramid, semantic: SemanticBranch) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = pyramid
        self.semantic = semantic

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        padded_NCHW = F.pad(images_NCHW, (0, -width % SIZE_DIVISOR, 0, -height % SIZE_DIVISOR))
        logits_NKhw = self.semantic(self.pyramid(self.backbone(padded_NCHW)))
        logits_NKHW = F.interpolate(logits_NKhw, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)
        return DenseOutput(scores_NKhw=logits_NKHW[..., :height, :width])


def build(*, num_classes: int, in_channels: int, backbone: str, channels: int, second_pass: bool) -> SemanticFPN:
    """A Semantic FPN with random weights; the branch has half of the pyramid's channels.

    Raises InputError on an unknown backbone, and on channels that are no multiple of 8.
    """
    semantic = semantic_branch(channels, num_classes)
    body = build_backbone(backbone, in_channels=in_channels)
    passed = BottomUpPass(channels, NUM_LEVELS) if second_pass else None
    return SemanticFPN(body, FeaturePyramid(body.channels[1:], channels, second_pass=passed), semantic)


SPEC = ModelSpec(
    name="fpn",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=papers.PANOPTIC_FPN,
    build=build,
    options={"backbone": "resnet50", "channels": 256, "second_pass": False},
    tiny={"backbone": "resnet18", "channels": 16, "second_pass": True},
    size_divisor=SIZE_DIVISOR,
    differs=(
        "torchvision's classifiers, whose strides lie in the 3x3 convolutions of a stage; the authors' ResNets have "
        "them in the first 1x1, and the best numbers are of ResNeXt-152",
        "the branch has half of the pyramid's channels: 128 of 256, as in the paper, and fewer in small forms",
        "images are padded with the mean colour to sides that 32 divides, and the logits cropped",
        "second_pass, off by default, is PANet's way from the fine levels to the coarse ones, which the paper has not",
        "bilinear resizing samples at cell centres (align_corners=False)",
        "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
    ),
    published=tuple(
        Published(
            dataset=dataset,
            split="val",
            protocol=f"{backbone}, {steps}, one scale, no mirror image",
            metric="miou",
            value=value,
            source="MMSegmentation (not the authors), configs/sem_fpn/README.md",
        )
        for dataset, backbone, steps, value in (
            ("Cityscapes", "ResNet-50", "crops of 512x1024, 80,000 steps", 0.7452),
            ("Cityscapes", "ResNet-101", "crops of 512x1024, 80,000 steps", 0.7580),
            ("ADE20K", "ResNet-50", "crops of 512x512, 160,000 steps", 0.3749),
            ("ADE20K", "ResNet-101", "crops of 512x512, 160,000 steps", 0.3935),
        )
    ),
    counted=(
        Counted(
            parameters=28_478_675,
            num_classes=19,
            source="torchvision's ResNet-50 without its classifier, the pyramid, the branch of the paper's figure 3, "
            + papers.ADDED_UP,
        ),
    ),
)
