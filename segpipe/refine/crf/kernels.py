"""The two Gaussian kernels of DenseCRF, over positions, and over positions and colours; each exact, or fast.

Each is normalised on both sides, as the authors' code does by default (NORMALIZE_SYMMETRIC): with d_i the sum of row i,
the entry of pixels i and j is k(f_i, f_j) / sqrt(d_i d_j). The fast one over positions and colours is in `lattice.py`.

Legend: N = H W pixels, row by row, C channels, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# Entries of a kernel held at once: 64 MiB as float32, all of an image of 4096 pixels.
ENTRIES_AT_ONCE = 2**24
# The fast kernel over positions ends at this many standard deviations; 0.3 % of it lie beyond.
REACH = 3.0

# Of rows top..bottom of the image, (pixels, C): what a kernel sums up for them over all pixels.
Sums = Callable[[int, int], Tensor]
# Takes the values (N, C) of all pixels. Sums come band by band, since those of a band fit the cache.
Kernel = Callable[[Tensor], Sums]


def features(image_HW3: Tensor, sxy: float, srgb: float) -> Tensor:
    """(5, N) float32: column, row, red, green, blue of each pixel in units of the standard deviations, around 0."""
    height, width = image_HW3.shape[:2]
    features_5HW = torch.empty(5, height, width, device=image_HW3.device)
    features_5HW[0] = (torch.arange(width, device=image_HW3.device) - width / 2) / sxy
    features_5HW[1] = (torch.arange(height, device=image_HW3.device)[:, None] - height / 2) / sxy
    features_5HW[2:] = (image_HW3.permute(2, 0, 1).float() - 127.5) / srgb
    return features_5HW.reshape(5, -1)


def exact_bilateral(image_HW3: Tensor, sxy: float, srgb: float) -> Kernel:
    """Every pixel with every other: N^2 exponentials a call, ENTRIES_AT_ONCE at a time; kept where these are all."""
    width = image_HW3.shape[1]
    features_ND = features(image_HW3, sxy, srgb).T.contiguous()
    N = len(features_ND)
    half_square_N = features_ND.square().sum(1) / 2

    def entries(start: int, stop: int) -> Tensor:
        distances = torch.addmm(-half_square_N, features_ND[start:stop], features_ND.T)
        distances -= half_square_N[start:stop, None]
        return distances.clamp_(max=0).exp_()

    all_of_them = entries(0, N) if N * N <= ENTRIES_AT_ONCE else None
    at_once = max(1, ENTRIES_AT_ONCE // N)

    def times(values_NC: Tensor, start: int, stop: int) -> Tensor:
        if all_of_them is not None:
            return all_of_them[start:stop] @ values_NC
        parts = [(at, min(at + at_once, stop)) for at in range(start, stop, at_once)]
        return torch.cat([entries(*part) @ values_NC for part in parts])

    norm_N1 = times(features_ND.new_ones(N, 1), 0, N).rsqrt()

    def kernel(values_NC: Tensor) -> Sums:
        values_NC = values_NC * norm_N1

        def sums(top: int, bottom: int) -> Tensor:
            start, stop = top * width, bottom * width
            return times(values_NC, start, stop).mul_(norm_N1[start:stop])

        return sums

    return kernel


def exact_gaussian(height: int, width: int, sxy: float, device: torch.device) -> Kernel:
    """Over positions alone a kernel is the product of one along columns and one along rows, and so is its norm."""

    def along(length: int) -> Tensor:
        places = torch.arange(length, device=device, dtype=torch.float32) / sxy
        entries = (-(places[:, None] - places).square() / 2).exp()
        norm = entries.sum(1).rsqrt()
        return norm[:, None] * entries * norm

    down, across = along(height), along(width)

    def kernel(values_NC: Tensor) -> Sums:
        values_HWC = values_NC.view(height, width, -1)

        def sums(top: int, bottom: int) -> Tensor:
            rows = torch.einsum("yv,vuc->yuc", down[top:bottom], values_HWC)
            return torch.einsum("xu,yuc->yxc", across, rows).reshape(-1, values_NC.shape[1])

        return sums

    return kernel


def fast_gaussian(height: int, width: int, sxy: float, device: torch.device) -> Kernel:
    """As the exact one, up to REACH standard deviations, by one convolution along each axis."""

    def along(length: int) -> tuple[int, Tensor, Tensor]:
        """How far the kernel reaches, and no further than there are pixels; its values; the norm of each pixel."""
        reach = min(math.ceil(REACH * sxy), length - 1)
        taps = (-(torch.arange(-reach, reach + 1, device=device) / sxy).square() / 2).exp()
        sums = functional.conv1d(torch.ones(1, 1, length, device=device), taps[None, None], padding=reach)
        return reach, taps, sums.rsqrt()[0, 0]

    (reach, down_taps, down_norm), (reach_across, across_taps, across_norm) = along(height), along(width)
    norm_HW1 = (down_norm[:, None] * across_norm)[..., None]

    def kernel(values_NC: Tensor) -> Sums:
        C = values_NC.shape[1]
        values_HWC = values_NC.view(height, width, C)
        across, down = across_taps.expand(C, 1, 1, -1), down_taps[:, None].expand(C, 1, -1, 1)

        def sums(top: int, bottom: int) -> Tensor:
            above, below = max(0, top - reach), min(height, bottom + reach)
            band_HWC = values_HWC.new_empty(bottom - top + 2 * reach, width, C)
            band_HWC[: above - top + reach] = 0
            band_HWC[below - top + reach :] = 0
            inside_HWC = band_HWC[above - top + reach : below - top + reach]
            torch.mul(values_HWC[above:below], norm_HW1[above:below], out=inside_HWC)
            # In this order of permutation and first axis, convolutions see channels that lie last, and are fast.
            band_1CHW = band_HWC[None].permute(0, 3, 1, 2)
            band_1CHW = functional.conv2d(band_1CHW, across, padding=(0, reach_across), groups=C)
            band_1CHW = functional.conv2d(band_1CHW, down, groups=C)
            return band_1CHW[0].permute(1, 2, 0).mul_(norm_HW1[top:bottom]).reshape(-1, C)

        return sums

    return kernel
