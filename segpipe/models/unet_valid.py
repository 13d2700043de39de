"""The paper's own U-Net: valid convolutions, so that no score sees anything but the image and its mirror images.

U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger, Fischer, Brox, MICCAI 2015,
arXiv:1505.04597, figure 1; what it leaves open is as in the authors' Caffe release (phseg_v5). `unet.py` is its form on
a classifier.

    tile of 572 -> 64 64 --------------------- crop --------------------> 128 64 64 -> 1x1, K: scores of 388
                      | pool                                              | up
                      `-> 128 128 ------------ crop ----------> 256 128 128
                              | pool                            | up
                              `-> 256 256 ---- crop --> 512 256 256             every number a 3x3 convolution, ReLU
                                      | pool            | up                    (the first on the right: what is
                                      `-> 512 512 --> 1024 512 512               joined); up: transposed 2x2, ReLU
                                              | pool  | up
                                              `-> 1024 1024

Scores of a tile are 184 smaller than it, 92 at each side, which is where the mirrored pixels are; and they are the same
from whichever tile a pixel is in, as long as tiles lie multiples of 16 apart: what does not fit memory can be cut.

Letter legend: N batch, K classes, H W image size, C channels, h w tile size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.borders import Mirrored, middle
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts, check_shares
from segpipe.types import Task

LEVELS = 5
DIVISOR = 2 ** (LEVELS - 1)
MARGIN = 92  # what valid convolutions take from each side
SMALLEST = 4  # scores of the smallest tile, 188: the others are multiples of 16 larger
PADDINGS = ("valid", "same")


class Encoder(nn.Module):
    """The contracting path: tiles_NChw -> five maps, finest first. Dropout on the last two, as released."""

    def __init__(self, in_channels: int, *, width: int, padding: int, dropout: float) -> None:
        super().__init__()
        self.name, self.stem = "unet_valid", "0.0"
        self.channels = tuple(width << level for level in range(LEVELS))
        for level, out in enumerate(self.channels):
            self.add_module(str(level), _two_convolutions(in_channels, out, padding))
            in_channels = out
        self.dropout = nn.Dropout(dropout)

    def forward(self, tiles_NChw: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for level in range(LEVELS):
            given = F.max_pool2d(maps[-1], 2) if maps else tiles_NChw
            found = self.get_submodule(str(level))(given)
            maps.append(self.dropout(found) if level >= LEVELS - 2 else found)
        return maps


class Up(nn.Module):
    """One step of the expansive path: half the channels at twice the size, the middle of the skip, two convolutions."""

    def __init__(self, in_channels: int, padding: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2), nn.ReLU(inplace=True))
        self.convolutions = _two_convolutions(in_channels, in_channels // 2, padding)

    def forward(self, maps_NChw: Tensor, skip_NChw: Tensor) -> Tensor:
        up_NChw = self.up(maps_NChw)
        joined_NChw = torch.cat((up_NChw, middle(skip_NChw, *up_NChw.shape[-2:])), dim=1)
        return self.convolutions(joined_NChw)  # type: ignore[no-any-return]


class UNetValid(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, num_classes: int, *, in_channels: int, valid: bool, width: int, dropout: float) -> None:
        super().__init__()
        padding = 0 if valid else 1
        self.margin = MARGIN if valid else 0
        self.smallest = SMALLEST if valid else DIVISOR
        self.mirrored = Mirrored()
        self.backbone = Encoder(in_channels, width=width, padding=padding, dropout=dropout)
        self.ups = nn.ModuleList(Up(channels, padding) for channels in self.backbone.channels[:0:-1])
        self.head = nn.Conv2d(width, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)  # section 3: a deviation of sqrt(2 / N)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        tile_NChw = self.mirrored(images_NCHW, self._margins(height), self._margins(width))
        return DenseOutput(scores_NKhw=self.score(tile_NChw)[..., :height, :width])

    def _margins(self, size: int) -> tuple[int, int]:
        """Of the smallest tile whose scores reach from the first pixel of a side to its last, or beyond."""
        behind = -max(size - self.smallest, 0) % DIVISOR + max(self.smallest - size, 0)
        return self.margin, self.margin + behind

    def score(self, tiles_NChw: Tensor) -> Tensor:
        """(N, K, h - 184, w - 184) scores of tiles whose h and w are 188 and a multiple of 16, the first of pixel 92.

        Where convolutions are padded, h and w are multiples of 16, and the scores are as many.
        """
        *skips, maps_NChw = self.backbone(tiles_NChw)
        for up, skip_NChw in zip(self.ups, reversed(skips), strict=True):
            maps_NChw = up(maps_NChw, skip_NChw)
        return self.head(maps_NChw)  # type: ignore[no-any-return]


def _two_convolutions(in_channels: int, out_channels: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=padding),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=padding),
        nn.ReLU(inplace=True),
    )


def build(*, num_classes: int, in_channels: int, padding: str, width: int, dropout: float) -> UNetValid:
    """A U-Net with random weights. Raises InputError on another padding, a width below 1, a dropout not in 0..1."""
    if padding not in PADDINGS:
        raise InputError(f"padding: {padding!r} is not one of {', '.join(PADDINGS)}")
    check_counts(width=width)
    check_shares(dropout=dropout)
    return UNetValid(num_classes, in_channels=in_channels, valid=padding == "valid", width=width, dropout=dropout)


SPEC = ModelSpec(
    name="unet_valid",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=papers.UNET,
    build=build,
    options={"padding": "valid", "width": 64, "dropout": 0.5},
    tiny={"width": 2},
    size_divisor=DIVISOR,
    differs=(
        "the last up-convolution halves its channels as in figure 1; the released network keeps 128 there",
        "images of any number of channels; the paper's are grey",
        "an image is one tile, however large it is; the authors cut theirs to fit the memory (the scores are the same)",
        "padding='same' is no part of the paper: convolutions padded with zeros, for batches of large images",
        "no loss weights for borders between touching cells: losses are not a model's business here",
    ),
    published=papers.UNET_PUBLISHED,
    counted=(
        Counted(
            parameters=31_031_810,
            num_classes=2,
            source="paper, figure 1, layer by layer, with a bias everywhere as released",
        ),
    ),
)
