"""FC-DenseNet, the Tiramisu: dense blocks down and up, of which the way up keeps the newest maps alone.

The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for Semantic Segmentation, Jegou, Drozdzal, Vazquez,
Romero, Bengio, CVPR Workshops 2017, arXiv:1611.09326, figure 1 and tables 1 and 2; what they leave open is as in the
authors' code (SimJeg/FC-DenseNet).

    images -> 3x3, 48 -> dense block -+-> down -> ... five times ... -> dense block, the bottleneck
                                      | skip, concatenated                   | its new maps alone
    logits <- 1x1 <- dense block <-- [+] <- up <- ... five times ... <-------'

    layer  norm, ReLU, 3x3, dropout: k new maps        dense block  every layer sees the block's input and all new maps
    down   norm, ReLU, 1x1, dropout, 2x2 max pooling   up           transposed 3x3 of stride 2 on the new maps

Behind dropout values vary more than without it, and norms follow. The authors normalise by the batch at hand, in tests
too: "we observed better performances" (their issue 8). Here an answer depends on its image alone, by running statistics
of a pass without dropout: on eight images they evaluate like the batch itself, at a mIoU of 0.98; those of the passes
with dropout do at 0.46 (tests/fixtures/by_heart.py, growth 4, 200 steps). That pass is a second one in each training
step, which takes 1.37 times as long: a second way forward, though without one back.

Letter legend: N batch, K classes, H W image size, C channels, k growth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.models.parts.layers import BatchNorm2d
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published, check_counts, check_shares
from segpipe.types import Task

POOLS = 5
SMALLEST = 2**POOLS  # a smaller side would be pooled to nothing
EPSILON = 1e-4  # of the norms: Lasagne's
MOMENTUM = 0.1  # of the norms' running statistics: torch's
# Layers of the dense blocks on the way down and of the bottleneck; the way up mirrors the way down.
LAYERS = {56: (4,) * 6, 67: (5,) * 6, 103: (4, 5, 7, 10, 12, 15)}


class DenseBlock(nn.Module):
    """Returns the new maps alone: `num_layers * growth`, each layer's made of the input and of all new ones so far."""

    def __init__(self, in_channels: int, num_layers: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _norm_relu_conv(in_channels + number * growth, growth, 3, dropout) for number in range(num_layers)
        )

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        stack_NCHW = maps_NCHW
        for layer in self.layers:
            stack_NCHW = torch.cat((stack_NCHW, layer(stack_NCHW)), dim=1)
        return stack_NCHW[:, maps_NCHW.shape[1] :]


class Encoder(nn.Module):
    """The way down and the bottleneck: images_NCHW (H, W >= 32) -> the skips, finest first, and the new maps of the
    bottleneck. `channels` are those of the skips, with strides 1, 2, 4, 8, 16."""

    def __init__(self, name: str, in_channels: int, layers: Sequence[int], growth: int, width: int, dropout: float):
        super().__init__()
        self.name, self.stem = name, "conv"
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks, self.downs = nn.ModuleList(), nn.ModuleList()
        self.channels: tuple[int, ...] = ()
        for num_layers in layers[:-1]:
            self.blocks.append(DenseBlock(width, num_layers, growth, dropout))
            width += num_layers * growth
            self.downs.append(nn.Sequential(*_norm_relu_conv(width, width, 1, dropout), nn.MaxPool2d(2)))
            self.channels += (width,)
        self.bottleneck = DenseBlock(width, layers[-1], growth, dropout)

    def forward(self, images_NCHW: Tensor) -> tuple[list[Tensor], Tensor]:
        maps_NCHW, skips = self.conv(images_NCHW), []
        for block, down in zip(self.blocks, self.downs, strict=True):
            skips.append(torch.cat((maps_NCHW, block(maps_NCHW)), dim=1))
            maps_NCHW = down(skips[-1])
        return skips, self.bottleneck(maps_NCHW)


class Up(nn.Module):
    """Doubles the new maps of the block below and puts the skip behind them, then a dense block.

    The transposed convolution gives 2n + 1 cells of n, which is one too many where the skip has 2n: the last is cut.
    """

    def __init__(self, new_channels: int, skip_channels: int, num_layers: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(new_channels, new_channels, 3, stride=2)
        self.block = DenseBlock(new_channels + skip_channels, num_layers, growth, dropout)

    def forward(self, new_NCHW: Tensor, skip_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(what the block was given, its new maps)."""
        height, width = skip_NCHW.shape[-2:]
        joined_NCHW = torch.cat((self.conv(new_NCHW)[..., :height, :width], skip_NCHW), dim=1)
        return joined_NCHW, self.block(joined_NCHW)


class FCDenseNet(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, backbone: Encoder, num_classes: int, layers: Sequence[int], growth: int, dropout: float) -> None:
        super().__init__()
        self.backbone, self.dropout = backbone, dropout
        new, self.ups = layers[-1] * growth, nn.ModuleList()
        for skip, num_layers in zip(backbone.channels[::-1], layers[-2::-1], strict=True):
            self.ups.append(Up(new, skip, num_layers, growth, dropout))
            out, new = new + skip, num_layers * growth
        self.head = nn.Conv2d(out + new, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        logits_NKHW = self._logits(images_NCHW)
        if self.training and self.dropout:
            # Behind the other: autocast would keep weights that this pass has cast, from which no gradient comes back.
            self._take_statistics(images_NCHW)
        return DenseOutput(scores_NKhw=logits_NKHW)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _take_statistics(self, images_NCHW: Tensor) -> None:
        """A pass without dropout, in which the norms' running statistics follow; in all others they rest."""
        norms = [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        dropouts = [module for module in self.modules() if isinstance(module, nn.Dropout) and module.training]
        try:
            for norm in norms:
                norm.momentum = MOMENTUM
            for dropout in dropouts:
                dropout.training = False
            self._logits(images_NCHW)
        finally:
            for norm in norms:
                norm.momentum = 0.0
            for dropout in dropouts:
                dropout.training = True

    def _logits(self, images_NCHW: Tensor) -> Tensor:
        height, width = images_NCHW.shape[-2:]
        padding = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
        skips, new_NCHW = self.backbone(F.pad(images_NCHW, padding))
        for up in self.ups:
            given_NCHW, new_NCHW = up(new_NCHW, skips.pop())
        logits_NKHW: Tensor = self.head(torch.cat((given_NCHW, new_NCHW), dim=1))
        return logits_NKHW[..., :height, :width]


def _norm_relu_conv(in_channels: int, out_channels: int, kernel_size: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        BatchNorm2d(in_channels, eps=EPSILON, momentum=0.0 if dropout else MOMENTUM),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
        nn.Dropout(dropout),
    )


def build(depth: int, *, num_classes: int, in_channels: int, growth: int, width: int, dropout: float) -> FCDenseNet:
    """An FC-DenseNet with random weights. Raises InputError on a growth or width below 1, or a dropout not in 0..1."""
    check_counts(growth=growth, width=width)
    check_shares(dropout=dropout)
    layers = LAYERS[depth]
    encoder = Encoder(f"fc_densenet{depth}", in_channels, layers, growth, width, dropout)
    return FCDenseNet(encoder, num_classes, layers, growth, dropout)


# The paper's own table was not read.
_QUOTED = "as HarDNet quotes it (Chao and others, ICCV 2019, table 2)"


def _published(metric: str, value: float) -> Published:
    return Published(
        dataset="CamVid",
        split="test",
        protocol="11 classes, images of 480x360, trained from scratch on crops of 224 and then on whole images",
        metric=metric,
        value=value,
        source=f"paper, {_QUOTED}",
    )


def _spec(
    depth: int, growth: int, parameters: int, printed: str, *, published: tuple[Published, ...] = ()
) -> ModelSpec:
    return ModelSpec(
        name=f"fc_densenet{depth}",
        task=Task.SEMANTIC,
        output=DenseOutput,
        paper=(
            "The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for Semantic Segmentation, Jegou, "
            "Drozdzal, Vazquez, Romero, Bengio, 2016, arXiv:1611.09326"
        ),
        build=partial(build, depth),
        options={"growth": growth, "width": 48, "dropout": 0.2},
        tiny={"growth": 2, "width": 4},
        size_divisor=1,
        differs=(
            "evaluated by running statistics, which a second pass of each training step takes without dropout; the "
            "authors normalise by the statistics of the batch at hand, of ten images in their test, and keep none",
            "an image with a side below 32 is padded with zeros to 32, since five poolings would leave nothing of it",
            "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
            "logits instead of a softmax: losses take them",
        ),
        published=published,
        counted=(
            Counted(
                parameters=parameters,
                num_classes=11,
                source="authors' code, FC-DenseNet.py and layers.py, layer by layer, for CamVid",
                published=printed,
            ),
        ),
    )


SPECS = (
    _spec(
        56,
        12,
        1_376_795,
        f"1.4 M ({_QUOTED}), with the norms' statistics",
        published=(_published("miou", 0.589), _published("pixel_accuracy", 0.889)),
    ),
    _spec(
        67,
        16,
        3_463_243,
        f"3.5 M ({_QUOTED}), with the norms' statistics",
        published=(_published("miou", 0.658), _published("pixel_accuracy", 0.908)),
    ),
    _spec(
        103,
        16,
        9_322_091,
        f"9.4 M ({_QUOTED}), with the norms' statistics",
        published=(_published("miou", 0.669), _published("pixel_accuracy", 0.915)),
    ),
)
