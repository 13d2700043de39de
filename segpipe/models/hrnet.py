"""HRNet for pixels (HRNetV2): maps of four resolutions side by side, which mix eight times, then all four together.

Deep High-Resolution Representation Learning for Visual Recognition, Wang, Sun, Cheng, Jiang, Deng, Zhao, Liu, Mu, Tan,
Wang, Liu, Xiao, IEEE TPAMI 2020, arXiv:1908.07919, figures 2 and 4b. The body is `parts/hrnet.py`'s.

    images -> HRNet -> C, stride 4 ---------------------.
                    -> 2C, stride 8  -> bilinear to 4 --+- concat -> 1x1, 15C -> norm, ReLU -> 1x1, K -> bilinear
                    -> 4C, stride 16 -> bilinear to 4 --|
                    -> 8C, stride 32 -> bilinear to 4 --'

Weights of the authors' networks (github.com/HRNet/HRNet-Semantic-Segmentation) and of their classifiers, whose body is
this one, load through `adapt`.

Letter legend: N batch, K classes, H W image size, C channels of the finest map (18, 32, 48).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts.hrnet import MODULES, STAGES, HRNet, adapt_keys
from segpipe.models.parts.layers import BatchNorm2d, resize
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published, check_counts
from segpipe.types import Task


class HRNetPixels(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, backbone: HRNet, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        channels = sum(backbone.channels)
        # The authors' first 1 x 1 has a bias, for all that a norm follows.
        self.last_layer = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        maps = self.backbone(images_NCHW)
        size = maps[0].shape[-2:]
        joined = torch.cat([resize(features, *size) for features in maps], dim=1)
        return DenseOutput(scores_NKhw=self.last_layer(joined), size=(height, width))


def build(width: int, *, num_classes: int, in_channels: int, stem: int, blocks: int, modules: list[int]) -> HRNetPixels:
    """The network with random weights. Raises InputError on counts below one, or not one for each of three stages."""
    check_counts(stem=stem, blocks=blocks, **{f"modules.{place}": count for place, count in enumerate(modules)})
    if len(modules) != len(STAGES):
        raise InputError(f"modules: {modules}; expected the exchange units of stages 2, 3 and 4, as {list(MODULES)}")
    body = HRNet(
        f"hrnet_w{width}",
        width,
        in_channels=in_channels,
        stem=stem,
        blocks=blocks,
        modules=modules,
        enlargement="bilinear",
    )
    return HRNetPixels(body, num_classes)


def adapt(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' networks for pixels and their classifiers for ImageNet (the body alone) -> our keys."""
    return adapt_keys(state_dict, wrappers=("module.", "model."), heads=("last_layer.",))


PAPER = (
    "Deep High-Resolution Representation Learning for Visual Recognition, Wang, Sun, Cheng, Jiang, Deng, Zhao, Liu, "
    "Mu, Tan, Wang, Liu, Xiao, 2020, arXiv:1908.07919"
)

DIFFERS = (
    "bilinear resizing samples at cell centres (align_corners=False), as the authors' first released code; their later "
    "code for PyTorch 1.1 aligns corners",
    "convolutions start from He's normal instead of a standard deviation of 0.001, since no training on ImageNet is "
    "taken for granted",
    "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
)


def _published(value: float, protocol: str, source: str) -> Published:
    return Published(
        dataset="Cityscapes",
        split="val",
        protocol=f"{protocol}, ImageNet body, crops of 512x1024, one scale, no mirror image",
        metric="miou",
        value=value,
        source=source,
    )


def _spec(width: int, parameters: int, published: Published | None, *, printed: str = "") -> ModelSpec:
    return ModelSpec(
        name=f"hrnet_w{width}",
        task=Task.SEMANTIC,
        output=DenseOutput,
        paper=PAPER,
        build=partial(build, width),
        options={"stem": 64, "blocks": 4, "modules": list(MODULES)},
        tiny={"stem": 16, "blocks": 1, "modules": [1, 1, 1]},
        size_divisor=1,
        differs=DIFFERS,
        published=(published,) if published else (),
        counted=(
            Counted(
                parameters=parameters,
                num_classes=19,
                source="the layers of github.com/HRNet/HRNet-Semantic-Segmentation, lib/models/seg_hrnet.py, added up "
                "(tests/models/test_hrnet.py)" + (f"; {printed} in its README.md" if printed else ""),
                published=printed,
            ),
        ),
        adapt=adapt,
    )


_MMSEGMENTATION = "MMSegmentation (not the authors), configs/hrnet/README.md"
SPECS = (
    _spec(18, 9_641_119, _published(0.7880, "160,000 steps", _MMSEGMENTATION)),
    _spec(32, 29_546_515, None),
    _spec(
        48,
        65_859_379,
        _published(0.811, "484 epochs", "github.com/HRNet/HRNet-Semantic-Segmentation, README.md"),
        printed="65.8 M",
    ),
)
