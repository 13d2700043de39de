"""VGG-11 to -19, without and with batch norm, key for key torchvision's; and two slim ones.

Very Deep Convolutional Networks for Large-Scale Image Recognition, Simonyan, Zisserman, 2014, arXiv:1409.1556; batch
norm as torchvision adds it, between each convolution and its ReLU.

    3x3 convolutions: 64 ... pool, 128 ... pool, 256 ... pool, 512 ... pool, 512 ... pool

Letter legend: N batch, C channels, H W map size, h w size of the pooled map.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.models.parts.backbones.layout import NO_NORM, NORM_LAYERS, NORMS, Layout

# Convolutions of each of the five stages: columns A, B, D, E of table 1.
DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
WIDENING = (1, 2, 4, 8, 8)
WIDTH = 64
SLIM_WIDTH = 8


class Pool(nn.MaxPool2d):
    """2 x 2 max pooling whose last window may reach over the edge: of H rows ceil(H / 2) are left, and never none.

    On even sizes this is torchvision's. Having lost its stride to dilation, it looks `dilation` cells to the right and
    below instead of one, so that every second cell is what the strided one gives.
    """

    def __init__(self) -> None:
        super().__init__(kernel_size=2, stride=2, ceil_mode=True)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        if self.stride == 2:
            return super().forward(input)  # type: ignore[no-any-return]
        reach = self.dilation
        assert isinstance(reach, int)  # torch would also take one for each axis
        return F.max_pool2d(F.pad(input, (0, reach, 0, reach), value=-torch.inf), 2, stride=1, dilation=reach)


def pool_by_three(backbone: nn.Module, *, ceil_mode: bool = False) -> None:
    """Puts 3 x 3 pooling, padded to half of that, in the place of every `Pool`, of the same stride, as DeepLab has it.

    A cell then lies in the middle of what it sees, at every `stride`-th pixel from the first one on. With `ceil_mode`
    the last cell may lie beyond the image, so that there is one on either side of every pixel.
    """
    for name, layer in backbone.named_children():
        if isinstance(layer, Pool):
            backbone.set_submodule(name, nn.MaxPool2d(3, stride=layer.stride, padding=1, ceil_mode=ceil_mode))


def _layers(norm: str, *, depths: tuple[int, ...], width: int) -> Mapping[str, nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for depth, widening in zip(depths, WIDENING, strict=True):
        for _ in range(depth):
            convolution = nn.Conv2d(channels, width * widening, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            channels = width * widening
            norms = [] if norm in NO_NORM else [NORM_LAYERS[norm](channels)]
            layers += [convolution, *norms, nn.ReLU(inplace=True)]
        layers.append(Pool())
    return {str(place): layer for place, layer in enumerate(layers)}


def _layout(depths: tuple[int, ...], *, width: int = WIDTH, norms: tuple[str, ...]) -> Layout:
    per_convolution = 2 if norms == NO_NORM else 3
    ends = [sum(depths[: stage + 1]) * per_convolution + stage for stage in range(5)]
    return Layout(
        layers=partial(_layers, depths=depths, width=width),
        taps=tuple(map(str, ends)),
        channels=tuple(width * widening for widening in WIDENING),
        stem="0",
        norms=norms,
    )


LAYOUTS = {
    **{name: _layout(depths, norms=NO_NORM) for name, depths in DEPTHS.items()},
    **{f"{name}_bn": _layout(depths, norms=NORMS) for name, depths in DEPTHS.items()},
    # Nobody's: VGG-16 with an eighth of the channels, for tests and a first run on a laptop.
    "vgg16_slim": _layout(DEPTHS["vgg16"], width=SLIM_WIDTH, norms=NO_NORM),
    "vgg16_bn_slim": _layout(DEPTHS["vgg16"], width=SLIM_WIDTH, norms=NORMS),
}
