"""The multi-scale network of scene parsing before FCN: shared filters on a pyramid, a classifier of what they say.

Learning Hierarchical Features for Scene Labeling, Farabet, Couprie, Najman, LeCun, IEEE TPAMI 35(8), 2013, sections 3
and 5; the network alone, of which the paper also labels superpixels and trees of segments.

    image, YUV -> Laplacian pyramid -> scale 1 -> normalised -> f -> 256 --------------.
                                       scale 1/2 -> normalised -> f -> 256 -- up x 2 --+-- 1024, tanh -- K -- up x 4
                                       scale 1/4 -> normalised -> f -> 256 -- up x 4 --'

    f, the same at every scale:  7x7, 16 -> tanh -> pool -> 7x7, 64 -> tanh -> pool -> 7x7, 256

Of the 16 first maps 10 see Y and 6 see U and V; each of the 64 sees 8 of the 16, each of the 256 sees 32 of the 64,
drawn once and for all.

Letter legend: N batch, K classes, H W image size, C channels, O output maps, I inputs of each, h w size of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, Layout
from segpipe.models.parts.backbones.vgg import Pool
from segpipe.models.parts.layers import resize
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts
from segpipe.types import Task

SCALES = 3
KERNEL = 7
NEIGHBOURHOOD = 15
WIDENING = (1, 4, 16)
CONNECTIONS_SEED = 2013
YUV = ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))
LEAST_DEVIATION = 1e-4


class PartialConvolution(nn.Module):
    """A 7 x 7 convolution, keeping H and W, each map of which sees `fan_in` of the inputs; which ones, the seed says.

    The table of connections is part of its state: weights mean nothing without it.
    """

    def __init__(self, in_channels: int, out_channels: int, fan_in: int, *, seed: int) -> None:
        super().__init__()
        draw = torch.Generator("cpu").manual_seed(seed)
        orders = [torch.randperm(in_channels, generator=draw, device="cpu").tolist() for _ in range(out_channels)]
        table = [sorted(order[:fan_in]) for order in orders]
        self.register_buffer("table_OI", torch.tensor(table))
        self.table_OI: Tensor
        self.weight = nn.Parameter(torch.empty(out_channels, fan_in, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.in_channels = in_channels
        nn.init.xavier_uniform_(self.weight, gain=nn.init.calculate_gain("tanh"))

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        # A sum over zeros is cheaper than gathering 8 to 32 copies of every map.
        full = self.weight.new_zeros(len(self.weight), self.in_channels, KERNEL, KERNEL)
        full = full.scatter(1, self.table_OI[:, :, None, None].expand_as(self.weight), self.weight)
        return F.conv2d(maps_NCHW, full, self.bias, padding=KERNEL // 2)


class ColourFilters(nn.Module):
    """The first filters: of `luma` maps each sees Y, of `chroma` maps each sees U and V."""

    def __init__(self, luma: int, chroma: int) -> None:
        super().__init__()
        self.luma = nn.Conv2d(1, luma, KERNEL, padding=KERNEL // 2)
        self.chroma = nn.Conv2d(2, chroma, KERNEL, padding=KERNEL // 2)

    def forward(self, yuv_N3HW: Tensor) -> Tensor:
        return torch.cat((self.luma(yuv_N3HW[:, :1]), self.chroma(yuv_N3HW[:, 1:])), dim=1)


class MultiScale(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits; with colours where C = 3.

    `backbone` is f.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, colours: bool, hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.colours = colours
        self.register_buffer("yuv_33", torch.tensor(YUV), persistent=False)
        self.yuv_33: Tensor
        self.classifier = nn.Sequential(
            nn.Conv2d(SCALES * backbone.channels[-1], hidden, 1), nn.Tanh(), nn.Conv2d(hidden, num_classes, 1)
        )

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        if self.colours:
            images_NCHW = F.conv2d(images_NCHW, self.yuv_33[:, :, None, None])
        features = [self.backbone(locally_normalised(scale))[-1] for scale in laplacian_pyramid(images_NCHW, SCALES)]
        finest = features[0].shape[-2:]
        joined = torch.cat([resize(maps_NChw, *finest) for maps_NChw in features], dim=1)
        return DenseOutput(scores_NKhw=self.classifier(joined), size=(height, width))


def laplacian_pyramid(images_NCHW: Tensor, scales: int) -> list[Tensor]:
    """The images as what each scale adds to the next coarser one, half as fine; the last is that coarse image itself.

    Burt, Adelson, The Laplacian Pyramid as a Compact Image Code, 1983: each upsampled and added to the one before is
    the image again.
    """
    pyramid, fine_NCHW = [], images_NCHW
    for _ in range(scales - 1):
        coarse_NChw = _halved(fine_NCHW)
        pyramid.append(fine_NCHW - resize(coarse_NChw, *fine_NCHW.shape[-2:]))
        fine_NCHW = coarse_NChw
    return [*pyramid, fine_NCHW]


def _halved(maps_NCHW: Tensor) -> Tensor:
    tap = maps_NCHW.new_tensor((1.0, 4.0, 6.0, 4.0, 1.0)) / 16
    channels = maps_NCHW.shape[1]
    kernel = (tap[:, None] * tap).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(maps_NCHW, (2, 2, 2, 2), mode="replicate"), kernel, stride=2, groups=channels)


def locally_normalised(maps_NCHW: Tensor) -> Tensor:
    """Every 15 x 15 neighbourhood of a channel with a mean of about zero and a deviation of about one.

    Deviations below the image's mean one count as that (Jarrett et al., ICCV 2009), lest flat places become noise.
    """
    centred = maps_NCHW - _neighbourhood_mean(maps_NCHW)
    deviation = _neighbourhood_mean(centred.square()).sqrt()
    least = deviation.mean(dim=(2, 3), keepdim=True).clamp(min=LEAST_DEVIATION)
    return centred / torch.maximum(deviation, least)


def _neighbourhood_mean(maps_NCHW: Tensor) -> Tensor:
    half = NEIGHBOURHOOD // 2
    # Plane by plane it is thrice as fast as pixel by pixel, where three channels fill no vector, and equal bit by bit.
    planes_NCHW = maps_NCHW.contiguous()
    means_NCHW = F.avg_pool2d(planes_NCHW, NEIGHBOURHOOD, stride=1, padding=half, count_include_pad=False)
    return torch.empty_like(maps_NCHW).copy_(means_NCHW)


def build(*, num_classes: int, in_channels: int, width: int, hidden: int) -> MultiScale:
    """The network with random weights, its connections always the same.

    Raises InputError on a hidden below 1 and on a width that is odd or below 2.
    """
    check_counts(width=width, hidden=hidden)
    if width % 2:
        raise InputError(
            f"width: expected an even number, half of which each map of the next layer sees, found {width}"
        )
    first, second, third = (width * widening for widening in WIDENING)
    luma = max(1, first * 10 // 16)
    colours = in_channels == 3
    layers: dict[str, nn.Module] = {
        "conv1": ColourFilters(luma, first - luma)
        if colours
        else nn.Conv2d(in_channels, first, KERNEL, padding=KERNEL // 2),
        "tanh1": nn.Tanh(),
        "pool1": Pool(),
        "conv2": PartialConvolution(first, second, first // 2, seed=CONNECTIONS_SEED),
        "tanh2": nn.Tanh(),
        "pool2": Pool(),
        "conv3": PartialConvolution(second, third, second // 2, seed=CONNECTIONS_SEED + 1),
    }
    stem = "conv1.luma" if colours else "conv1"
    layout = Layout(layers=lambda norm: layers, taps=("conv3",), channels=(third,), stem=stem)
    return MultiScale(Backbone("farabet", layers, layout), num_classes, colours=colours, hidden=hidden)


_BEHIND = "what labels the superpixels behind the network is not said there"

SPEC = ModelSpec(
    name="farabet",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=(
        "Learning Hierarchical Features for Scene Labeling, Farabet, Couprie, Najman, LeCun, 2013, IEEE TPAMI 35(8)"
    ),
    build=build,
    options={"width": 16, "hidden": 1024},
    tiny={"width": 4, "hidden": 16},
    size_divisor=1,
    differs=(
        "the network alone: no superpixels, conditional random field or cover of a segmentation tree behind it",
        "filters and classifier are trained together; the paper trains the filters with a linear classifier first",
        "convolutions are padded with zeros, so that every image has maps; the tables of connections are drawn anew",
        "YUV is made of images normalised by ImageNet's colours, and local normalisation takes away what that adds; "
        "images of other than three channels are seen by all 16 first filters",
        "maps and logits are upsampled bilinearly",
        "how many maps a filter sees, 10 and 6 of the first for Y and U, V, and 1024 hidden units are as remembered: "
        "the paper's text was not at hand, nor its table of results",
    ),
    published=(
        *papers.sift_flow(f"trained on pixels of all classes alike; {_BEHIND}", 0.723, 0.508),
        *papers.sift_flow(f"trained on pixels as frequent as they are; {_BEHIND}", 0.785, 0.296),
    ),
    counted=(
        Counted(
            parameters=1_223_566,
            num_classes=8,
            source=f"maps and connections of the paper's f, once for all scales, its classifier, {papers.ADDED_UP}",
        ),
    ),
)
