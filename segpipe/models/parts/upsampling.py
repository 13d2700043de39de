"""Ways to make a coarse map finer, by name: what a decoder is built of. Below every architecture of `models/`.

    nearest       each cell repeated                        max_unpool   each cell where its maximum had stood
    bilinear      linear between the cells' centres         transposed   learned: each cell stamps a kernel, stamps add
    bicubic       cubic between the cells' centres          subpixel     learned: channels become cells
    bed_of_nails  each cell top left, the rest zero

Sources: fixed unpooling and transposed convolution, Zeiler, Taylor, Fergus, Adaptive Deconvolutional Networks, ICCV
2011, and Long, Shelhamer, Darrell 2015 (arXiv:1411.4038) section 3.3; switches, Noh, Hong, Han 2015 (arXiv:1505.04366);
pixel shuffle, Shi et al. 2016 (arXiv:1609.05158); its initialisation, Aitken et al. 2017 (arXiv:1707.02937);
checkerboards, Odena, Dumoulin, Olah, Deconvolution and Checkerboard Artifacts, Distill 2016.

Letter legend: N batch, C channels, h w size of the coarse map, H W of the fine one, S stride (how much finer it gets),
K kernel size, D dilation, P padding.
"""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.spec import check_counts

logger = logging.getLogger(__name__)

RESIZED = ("nearest", "bilinear", "bicubic")
UPSAMPLERS = (*RESIZED, "bed_of_nails", "max_unpool", "transposed", "subpixel")


def upsample(
    name: str,
    in_channels: int,
    out_channels: int,
    *,
    stride: int = 2,
    kernel_size: int | None = None,
    dilation: int = 1,
) -> nn.Module:
    """A module that maps (coarse_NChw, height, width, switches_NChw=None) to a map of exactly that height and width.

    Cell (i, j) of the coarse map lies on the S x S cells of the fine one that begin at (S i, S j), so that any H of at
    most S h is a crop and not a stretch. Only "max_unpool" reads the switches (of `pool_with_places`), and cannot do
    without. `kernel_size` (by default that of bilinear weights) and `dilation` are those of "transposed".

    Raises InputError on an unknown name, counts below one, and on what the named way cannot do: another number of
    channels, a kernel, a dilation, a kernel that leaves fine cells out.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels, stride=stride, dilation=dilation)
    if name not in UPSAMPLERS:
        raise InputError(f"upsampling: unknown {name!r}; expected one of: {', '.join(UPSAMPLERS)}")
    if name != "transposed" and (kernel_size is not None or dilation != 1):
        raise InputError(f"upsampling: {name} has no kernel_size or dilation; only transposed has")
    if name == "transposed":
        return Transposed(in_channels, out_channels, stride=stride, kernel_size=kernel_size, dilation=dilation)
    if name == "subpixel":
        return SubPixel(in_channels, out_channels, stride=stride)
    if in_channels != out_channels:
        raise InputError(f"upsampling: {name} keeps the number of channels; found {in_channels} and {out_channels}")
    if name == "max_unpool":
        return MaxUnpool()
    return BedOfNails(stride) if name == "bed_of_nails" else Resized(name, stride)


class Resized(nn.Module):
    """Repetition or interpolation between the centres of cells (`align_corners=False`), without anything learned."""

    def __init__(self, mode: str, stride: int) -> None:
        super().__init__()
        self.mode = mode
        self.stride = stride

    def forward(self, coarse_NChw: Tensor, height: int, width: int, switches_NChw: Tensor | None = None) -> Tensor:
        aligned = None if self.mode == "nearest" else False
        fine = F.interpolate(coarse_NChw, scale_factor=float(self.stride), mode=self.mode, align_corners=aligned)
        return fine[..., :height, :width]


class BedOfNails(nn.Module):
    """Fixed unpooling: each value in the top left of its cells, zero in the others."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, coarse_NChw: Tensor, height: int, width: int, switches_NChw: Tensor | None = None) -> Tensor:
        rows, columns = (length * self.stride for length in coarse_NChw.shape[-2:])
        fine = coarse_NChw.new_zeros(*coarse_NChw.shape[:2], rows, columns)
        fine[..., :: self.stride, :: self.stride] = coarse_NChw
        return fine[..., :height, :width]


def pool_with_places(maps_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """2 x 2 maxima (N, C, ceil(H / 2), ceil(W / 2)), and where each came from: int64 switches, row * W + column."""
    return F.max_pool2d(maps_NCHW, 2, stride=2, ceil_mode=True, return_indices=True)


class MaxUnpool(nn.Module):
    """Each value back to where the maximum of its window stood, zero elsewhere.

    By scattering and not by torch's own `max_unpool2d`, which has no deterministic form on CUDA.
    """

    def forward(self, coarse_NChw: Tensor, height: int, width: int, switches_NChw: Tensor | None = None) -> Tensor:
        if switches_NChw is None:
            raise InputError(
                "upsampling: max_unpool needs the switches of the pooling that it undoes, and was given none"
            )
        images, channels = coarse_NChw.shape[:2]
        fine = coarse_NChw.new_zeros(images, channels, height * width)
        fine = fine.scatter(2, switches_NChw.flatten(2), coarse_NChw.flatten(2))
        return fine.reshape(images, channels, height, width)


class Transposed(nn.Module):
    """Transposed convolution ("deconvolution") that makes a map exactly S times as large, bilinear to begin with.

    Starts as bilinear interpolation of each channel into the one of its number, and zero between channels. A kernel
    whose size is no multiple of the stride covers some cells more often than others, which shows as a checkerboard: the
    log says so.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, kernel_size: int | None = None, dilation: int = 1
    ) -> None:
        super().__init__()
        size = bilinear_size(stride) if kernel_size is None else kernel_size
        check_counts(kernel_size=size)
        if size < stride or math.gcd(stride, dilation) > 1:
            raise InputError(
                f"kernel_size: {size} with stride {stride} and dilation {dilation} leaves cells between the stamps "
                "empty; expected at least the stride, and a dilation that shares no divisor with it"
            )
        warn_of_checkerboard(size, stride)
        # Of h cells S (h - 1) + D (K - 1) + 1 are made; 2 P fewer, and one more where that is odd, are S h.
        surplus = dilation * (size - 1) + 1 - stride
        padding = -(-surplus // 2)
        if surplus % 2 and stride == dilation == 1:
            raise InputError(f"kernel_size: {size} is even and has no middle; with stride 1 it must be odd")
        self.convolution = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            size,
            stride=stride,
            padding=padding,
            output_padding=2 * padding - surplus,
            dilation=dilation,
            bias=False,
        )
        bilinear_(self.convolution)

    def forward(self, coarse_NChw: Tensor, height: int, width: int, switches_NChw: Tensor | None = None) -> Tensor:
        return self.convolution(coarse_NChw)[..., :height, :width]  # type: ignore[no-any-return]


class SubPixel(nn.Module):
    """A 3 x 3 convolution to S x S times as many channels, which become cells. Starts as repetition of one (ICNR)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv2d(in_channels, out_channels * stride**2, 3, padding=1)
        # Kernels that differ within a block of cells are a checkerboard from the first step on.
        one = nn.init.kaiming_normal_(torch.empty(out_channels, in_channels, 3, 3), nonlinearity="relu")
        with torch.no_grad():
            self.convolution.weight.copy_(one.repeat_interleave(stride**2, dim=0))
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, coarse_NChw: Tensor, height: int, width: int, switches_NChw: Tensor | None = None) -> Tensor:
        return F.pixel_shuffle(self.convolution(coarse_NChw), self.stride)[..., :height, :width]


class FixedBilinear(nn.Module):
    """Transposed convolution with bilinear weights that never change, each channel for itself; nothing is cropped.

    Of h cells S (h - 1) + K are made, K = `bilinear_size(S)` or the odd 2 S - 1.
    """

    def __init__(self, stride: int, kernel_size: int | None = None) -> None:
        super().__init__()
        self.stride = stride
        kernel = bilinear_kernel(bilinear_size(stride) if kernel_size is None else kernel_size, stride)
        self.register_buffer("kernel", kernel, persistent=False)  # made anew from the stride: no weights to load
        self.kernel: Tensor

    def forward(self, coarse_NChw: Tensor) -> Tensor:
        channels = coarse_NChw.shape[1]
        kernel = self.kernel.to(coarse_NChw.dtype).expand(channels, 1, -1, -1)
        return F.conv_transpose2d(coarse_NChw, kernel, stride=self.stride, groups=channels)


def transposed_size(
    size: int, kernel_size: int, stride: int, *, padding: int = 0, dilation: int = 1, output_padding: int = 0
) -> int:
    """Cells that a transposed convolution makes of `size`: (I - 1) S + D (K - 1) + 1 - 2 P + output padding."""
    return (size - 1) * stride + dilation * (kernel_size - 1) + 1 - 2 * padding + output_padding


def bilinear_size(stride: int) -> int:
    """The kernel whose stamps, `stride` apart, are bilinear interpolation: 2 S, or 2 S - 1 of an odd stride."""
    return 2 * stride - stride % 2


def bilinear_kernel(size: int, stride: int) -> Tensor:
    """float32 (K, K): a tent, one at its middle, that falls to zero within S cells; of at least S cells.

    Scaled so that the stamps add up to one everywhere, which those of `bilinear_size(stride)` do as they are.
    """
    distance = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2).abs()
    tent = (1 - distance / stride).clamp(min=0)
    total = F.pad(tent, (0, -size % stride)).reshape(-1, stride).sum(0)
    scaled = tent / total.repeat(-(-size // stride))[:size]
    return scaled[:, None] * scaled[None, :]


def bilinear_(layer: nn.ConvTranspose2d) -> None:
    """Fills its weight in place: channel c to channel c (of its group) bilinearly for its stride, the others zero."""
    kernel = bilinear_kernel(layer.kernel_size[0], layer.stride[0])
    with torch.no_grad():
        layer.weight.zero_()
        ins, outs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        for channel in range(layer.in_channels):
            if channel % ins < outs:
                layer.weight[channel, channel % ins] = kernel


def warn_of_checkerboard(kernel_size: int, stride: int) -> None:
    """Says in the log, where whoever trains looks, that a kernel is not divisible by its stride.

    Not by `warnings`: these are shown once a process and lost in a worker, while the log reaches every run's own.
    """
    if kernel_size % stride:
        lower, higher = kernel_size // stride * stride, -(-kernel_size // stride) * stride
        fitting = f"{lower} or {higher}" if lower else str(higher)
        logger.warning(
            "transposed convolution: kernel_size %d is no multiple of its stride %d, so that some cells are written "
            "more often than others and a checkerboard may show; %s would not",
            kernel_size,
            stride,
            fitting,
        )
