"""ENet: an early-downsampled encoder of narrow bottlenecks and a small decoder that unpools where the encoder pooled.

ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation, Paszke, Chaurasia, Kim, Culurciello, 2016,
arXiv:1606.02147, table 1 and figure 2; what the text leaves open is as in the authors' code (e-lab/ENet-training).

    images -> initial (16, stride 2) -> 1.0 down, 1.1-1.4 (64, stride 4) -> 2.0 down, 2.1-2.8, 3.1-3.8 (128, stride 8)
                                          | where each maximum was            | where each maximum was
    logits <- fullconv 2x2 (stride 1) <- 5.0 up, 5.1 (16, stride 2) <------- 4.0 up, 4.1, 4.2 (64, stride 4)

    bottleneck   1x1 to a quarter -> 3x3 | 3x3 dilated | 5x1 and 1x5 -> 1x1 -> spatial dropout -> sum -> PReLU
    down         2x2 of stride 2 takes the first 1x1's place; beside it max pooling, then zeros for the new channels
    up           a transposed 3x3 of stride 2 in the middle; beside it 1x1, then max unpooling

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts import papers, upsampling
from segpipe.models.parts.layers import BatchNorm2d
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published
from segpipe.types import Task

DIVISOR = 8
INITIAL_FILTERS = 13  # beside the pooled image: 16 maps of an RGB image
EARLY_DROPOUT, DROPOUT = 0.01, 0.1  # before bottleneck 2.0, and from there on
# Bottlenecks 2.1-2.8 and, once more, 3.1-3.8: the side of an asymmetric kernel, or the dilation of a 3x3 one.
SECTION = (
    *(("regular", 1), ("dilated", 2), ("asymmetric", 5), ("dilated", 4)),
    *(("regular", 1), ("dilated", 8), ("asymmetric", 5), ("dilated", 16)),
)
Activation = Callable[[int], nn.Module]
ACTIVATIONS: dict[str, Activation] = {"prelu": nn.PReLU, "relu": lambda channels: nn.ReLU(inplace=True)}

_norm = partial(BatchNorm2d, eps=1e-3)
_point = partial(nn.Conv2d, kernel_size=1, bias=False)


class Initial(nn.Module):
    """The image at stride 2, twice: 13 convolutions of 3x3, and itself by max pooling (figure 2a)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, INITIAL_FILTERS, 3, stride=2, padding=1)
        self.channels = INITIAL_FILTERS + in_channels
        self.after = nn.Sequential(_norm(self.channels), nn.PReLU(self.channels))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        both_NCHW = torch.cat((self.conv(images_NCHW), F.max_pool2d(images_NCHW, 2)), dim=1)
        return self.after(both_NCHW)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Figure 2b without a change of size: what the convolutions of the extension find is added to the maps."""

    def __init__(self, channels: int, extension: nn.Module, activation: Activation = nn.PReLU) -> None:
        super().__init__()
        self.extension = extension
        self.activation = activation(channels)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return self.activation(maps_NCHW + self.extension(maps_NCHW))  # type: ignore[no-any-return]


class Down(nn.Module):
    """Figure 2b at half the size. Also returns where in its map each maximum lay, for `Up`."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        inner = out_channels // 4
        first = nn.Conv2d(in_channels, inner, 2, stride=2, bias=False)
        self.extension = _extension(first, _middle(inner), out_channels, dropout=dropout)
        self.activation = nn.PReLU(out_channels)

    def forward(self, maps_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        pooled_NCHW, places_NCHW = upsampling.pool_with_places(maps_NCHW)
        found_NCHW = self.extension(maps_NCHW)
        pooled_NCHW = F.pad(pooled_NCHW, (0, 0, 0, 0, 0, found_NCHW.shape[1] - pooled_NCHW.shape[1]))
        return self.activation(pooled_NCHW + found_NCHW), places_NCHW


class Up(nn.Module):
    """Figure 2b at twice the size: maps go back to where `Down` found the maxima, and zeros lie around them."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        inner = out_channels // 4
        middle = nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1)
        self.extension = _extension(_point(in_channels, inner), middle, out_channels, activation=activation)
        self.beside = nn.Sequential(_point(in_channels, out_channels), _norm(out_channels))
        self.unpool = upsampling.MaxUnpool()
        self.activation = activation(out_channels)

    def forward(self, maps_NCHW: Tensor, places_NCHW: Tensor) -> Tensor:
        height, width = maps_NCHW.shape[-2:]
        unpooled_NCHW = self.unpool(self.beside(maps_NCHW), 2 * height, 2 * width, places_NCHW)
        return self.activation(unpooled_NCHW + self.extension(maps_NCHW))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Initial block and sections 1 to 3: images_NCHW -> maps of 128 channels at stride 8, and the places of maxima at
    strides 2 and 4. H and W are multiples of 8."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.name, self.stem = "enet", "initial.conv"
        self.initial = Initial(in_channels)
        self.down1 = Down(self.initial.channels, 64, EARLY_DROPOUT)
        self.section1 = nn.Sequential(*(_bottleneck(64, dropout=EARLY_DROPOUT) for _ in range(4)))
        self.down2 = Down(64, 128, DROPOUT)
        self.section2 = nn.Sequential(*(_bottleneck(128, *kind) for kind in SECTION))
        self.section3 = nn.Sequential(*(_bottleneck(128, *kind) for kind in SECTION))

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps_NCHW, places2_NCHW = self.down1(self.initial(images_NCHW))
        maps_NCHW, places4_NCHW = self.down2(self.section1(maps_NCHW))
        return self.section3(self.section2(maps_NCHW)), places2_NCHW, places4_NCHW


class ENet(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, num_classes: int, *, in_channels: int, activation: Activation) -> None:
        super().__init__()
        self.backbone = Encoder(in_channels)
        unpooled = self.backbone.initial.channels  # what section 5 joins is as wide as what was pooled there
        self.up4 = Up(128, 64, activation)
        self.section4 = nn.Sequential(*(_bottleneck(64, activation=activation) for _ in range(2)))
        self.up5 = Up(64, unpooled, activation)
        self.section5 = _bottleneck(unpooled, activation=activation)
        self.head = nn.ConvTranspose2d(unpooled, num_classes, 2, stride=2)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        padded_NCHW = F.pad(images_NCHW, (0, -width % DIVISOR, 0, -height % DIVISOR))
        maps_NCHW, places2_NCHW, places4_NCHW = self.backbone(padded_NCHW)
        maps_NCHW = self.section4(self.up4(maps_NCHW, places4_NCHW))
        maps_NCHW = self.section5(self.up5(maps_NCHW, places2_NCHW))
        return DenseOutput(scores_NKhw=self.head(maps_NCHW)[..., :height, :width])


def _middle(channels: int, kind: str = "regular", reach: int = 1) -> nn.Module:
    if kind == "asymmetric":
        return nn.Sequential(
            nn.Conv2d(channels, channels, (1, reach), padding=(0, reach // 2), bias=False),
            nn.Conv2d(channels, channels, (reach, 1), padding=(reach // 2, 0)),
        )
    return nn.Conv2d(channels, channels, 3, padding=reach, dilation=reach)


def _extension(
    first: nn.Conv2d,
    middle: nn.Module,
    out_channels: int,
    *,
    dropout: float = DROPOUT,
    activation: Activation = nn.PReLU,
) -> nn.Sequential:
    inner = first.out_channels
    return nn.Sequential(
        *(first, _norm(inner), activation(inner)),
        *(middle, _norm(inner), activation(inner)),
        *(_point(inner, out_channels), _norm(out_channels), nn.Dropout2d(dropout)),
    )


def _bottleneck(
    channels: int,
    kind: str = "regular",
    reach: int = 1,
    *,
    dropout: float = DROPOUT,
    activation: Activation = nn.PReLU,
) -> Bottleneck:
    inner = channels // 4
    first, middle = _point(channels, inner), _middle(inner, kind, reach)
    return Bottleneck(channels, _extension(first, middle, channels, dropout=dropout, activation=activation), activation)


def build(*, num_classes: int, in_channels: int, decoder_activation: str) -> ENet:
    """An ENet with random weights. Raises InputError on an unknown activation."""
    if decoder_activation not in ACTIVATIONS:
        raise InputError(f"decoder_activation: {decoder_activation!r} is not one of {', '.join(ACTIVATIONS)}")
    return ENet(num_classes, in_channels=in_channels, activation=ACTIVATIONS[decoder_activation])


SPEC = ModelSpec(
    name="enet",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=(
        "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation, Paszke, Chaurasia, Kim, "
        "Culurciello, 2016, arXiv:1606.02147"
    ),
    build=build,
    options={"decoder_activation": "prelu"},
    tiny={},
    size_divisor=DIVISOR,
    differs=(
        "PReLU and dropout of 0.1 in the decoder, as text and figure 3 have them; the authors' code has ReLU and no "
        "dropout there (decoder_activation='relu' gives its parameters)",
        "an asymmetric convolution is 1x5 then 5x1 with nothing between them, as in the authors' code; the text puts a "
        "norm and PReLU between all convolutions",
        "encoder and decoder are trained in one; the paper first trains the encoder on maps of stride 8",
        "other than three input channels join the 13 of the initial block as they are",
    ),
    published=(
        Published(
            dataset="Cityscapes",
            split="test",
            protocol="test server, class IoU",
            metric="miou",
            value=0.583,
            source="paper, as Fast-SCNN quotes it (Poudel, Liwicki, Cipolla, 2019, table 4)",
        ),
        papers.camvid_miou(
            "images of 480x360, 300 epochs in batches of 10, class weights",
            0.5285,
            "another's port of the authors' code, github.com/davidtvs/PyTorch-ENet, README.md",
        ),
    ),
    counted=(
        Counted(
            parameters=364_376,
            num_classes=20,
            options={"decoder_activation": "relu"},
            source="authors' code, train/models/encoder.lua and decoder.lua, layer by layer, for Cityscapes",
            published="0.37 M (paper, as Fast-SCNN quotes it), which is this with the norms' 8,352 running statistics",
        ),
    ),
)
