"""Upsampling: the worked matrices of the literature, the arithmetic of sizes, what is logged of checkerboards."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts.layers import resize
from segpipe.models.parts.upsampling import (
    UPSAMPLERS,
    FixedBilinear,
    bilinear_,
    bilinear_kernel,
    bilinear_size,
    pool_with_places,
    transposed_size,
    upsample,
)

COARSE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
POOLED_FROM = torch.tensor([[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])[None, None]


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)[None, None]


def noise(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def test_nearest_repeats() -> None:
    expected = matrix([1.0, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4])
    assert torch.equal(upsample("nearest", 1, 1)(COARSE, 4, 4), expected)


def test_a_bed_of_nails_has_each_value_top_left() -> None:
    expected = matrix([1.0, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0])
    assert torch.equal(upsample("bed_of_nails", 1, 1)(COARSE, 4, 4), expected)


def test_max_unpooling_puts_values_where_the_maxima_stood() -> None:
    pooled, switches = pool_with_places(POOLED_FROM)
    assert torch.equal(pooled, matrix([5.0, 6], [7, 8]))
    expected = matrix([0.0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4])
    assert torch.equal(upsample("max_unpool", 1, 1)(COARSE, 4, 4, switches), expected)


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)])
def test_max_unpooling_is_torchs(size: tuple[int, int]) -> None:
    maps = noise(2, 3, *size)
    pooled, switches = pool_with_places(maps)
    expected = F.max_unpool2d(pooled, switches, 2, stride=2, output_size=size)
    assert torch.equal(upsample("max_unpool", 3, 3)(pooled, *size, switches), expected)
    assert torch.equal(torch.where(expected != 0, maps, 0), expected)


def test_bilinear_and_bicubic_are_torchs() -> None:
    maps = noise(1, 2, 3, 5)
    for name in ("bilinear", "bicubic"):
        expected = F.interpolate(maps, size=(6, 10), mode=name, align_corners=False)
        torch.testing.assert_close(upsample(name, 2, 2)(maps, 6, 10), expected)
    torch.testing.assert_close(upsample("bilinear", 2, 2)(maps, 6, 10), resize(maps, 6, 10))


@pytest.mark.parametrize("name", UPSAMPLERS)
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_every_way_makes_exactly_the_size_asked_for(name: str, stride: int) -> None:
    """One cell fewer or more is a crop of the same map: nothing is stretched."""
    torch.manual_seed(0)
    module, maps = upsample(name, 4, 4, stride=stride), noise(2, 4, 3, 2)
    switches = torch.zeros(2, 4, 3, 2, dtype=torch.long) if name == "max_unpool" else None
    whole = module(maps, 3 * stride, 2 * stride, switches)
    assert whole.shape == (2, 4, 3 * stride, 2 * stride)
    odd = module(maps, 3 * stride - 1, 2 * stride - 1, switches)
    assert odd.shape == (2, 4, 3 * stride - 1, 2 * stride - 1)
    if name != "max_unpool":  # there the places are of a map of that size
        assert torch.equal(odd, whole[..., :-1, :-1])


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_size_of_a_transposed_convolution(kernel_size: int, stride: int, padding: int, dilation: int) -> None:
    for output_padding in range(max(stride, dilation)):
        layer = nn.ConvTranspose2d(1, 1, kernel_size, stride, padding, output_padding, dilation=dilation)
        expected = transposed_size(
            5, kernel_size, stride, padding=padding, dilation=dilation, output_padding=output_padding
        )
        assert layer(noise(1, 1, 5, 5)).shape[-2:] == (expected, expected)
    if dilation == 1:
        assert transposed_size(5, kernel_size, stride, padding=padding) == 4 * stride + kernel_size - 2 * padding


@pytest.mark.parametrize(("stride", "kernel_size", "dilation"), [(1, 3, 1), (2, 4, 1), (2, 3, 1), (2, 3, 3), (3, 3, 2)])
def test_a_transposed_convolution_is_the_product_with_the_transposed_matrix(
    stride: int, kernel_size: int, dilation: int
) -> None:
    """The convolution with the same kernel, padding and stride as a matrix, column by column from unit images."""
    layer = upsample("transposed", 1, 1, stride=stride, kernel_size=kernel_size, dilation=dilation).convolution
    nn.init.normal_(layer.weight)
    height, width = 3, 4
    units = torch.eye(height * stride * width * stride).reshape(-1, 1, height * stride, width * stride)
    columns = F.conv2d(units, layer.weight, stride=stride, padding=layer.padding, dilation=dilation)
    matrix_of_convolution = columns.flatten(1).T
    assert matrix_of_convolution.shape == (height * width, height * width * stride**2)
    coarse = noise(1, 1, height, width)
    expected = matrix_of_convolution.T @ coarse.flatten()
    torch.testing.assert_close(layer(coarse).flatten(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [2, 3, 4, 8])
def test_a_transposed_convolution_begins_as_bilinear_interpolation(stride: int) -> None:
    maps = noise(1, 3, 5, 6)
    fine = upsample("transposed", 3, 3, stride=stride)(maps, 5 * stride, 6 * stride)
    expected = resize(maps, 5 * stride, 6 * stride)
    inner = (..., slice(stride, -stride), slice(stride, -stride))  # at the edge resizing repeats; here zeros come in
    torch.testing.assert_close(fine[inner], expected[inner], rtol=1e-4, atol=1e-5)


def test_bilinear_kernels_are_those_of_the_authors_of_fcn() -> None:
    """Their surgery.py: 1 - |x - c| / f along each axis; f = (K + 1) // 2; c = f - 1 of odd K, else f - 0.5."""
    for size, stride in ((4, 2), (16, 8), (32, 16), (64, 32), (63, 32)):
        factor = (size + 1) // 2
        along = 1 - (torch.arange(size) - (factor - (1 if size % 2 else 0.5))).abs() / factor
        torch.testing.assert_close(bilinear_kernel(size, stride), along[:, None] * along[None, :])
    assert bilinear_kernel(4, 2)[0].tolist() == pytest.approx([0.0625, 0.1875, 0.1875, 0.0625])
    assert [bilinear_size(stride) for stride in (2, 3, 8, 32)] == [4, 5, 16, 64]


@pytest.mark.parametrize(("stride", "kernel_size"), [(2, 4), (2, 2), (3, 6), (2, 6), (4, 7)])
def test_stamps_of_the_first_kernel_add_up_to_one(stride: int, kernel_size: int) -> None:
    fine = FixedBilinear(stride, kernel_size)(torch.ones(1, 2, 8, 8))
    assert fine.shape[-1] == transposed_size(8, kernel_size, stride)
    inner = fine[..., kernel_size:-kernel_size, kernel_size:-kernel_size]
    torch.testing.assert_close(inner, torch.ones_like(inner))


def test_fixed_bilinear_has_nothing_to_learn_or_to_load() -> None:
    module = FixedBilinear(32)
    assert not list(module.parameters())
    assert not module.state_dict()
    assert module(torch.ones(1, 3, 2, 2)).shape == (1, 3, 96, 96)


def test_each_group_begins_as_bilinear_interpolation() -> None:
    maps = noise(1, 4, 5, 5)
    for groups in (1, 2, 4):
        layer = nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1, groups=groups, bias=False)
        bilinear_(layer)
        expected = upsample("transposed", 4, 4)(maps, 10, 10)
        torch.testing.assert_close(layer(maps), expected)


def test_pixel_shuffling_begins_as_repetition() -> None:
    module = upsample("subpixel", 4, 3, stride=2)
    fine = module(noise(1, 4, 5, 6), 10, 12)
    blocks = fine.unflatten(2, (5, 2)).unflatten(4, (6, 2))
    assert fine.shape == (1, 3, 10, 12)
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))
    assert fine.std() > 0.1


@pytest.mark.parametrize(("kernel_size", "stride", "fitting"), [(3, 2, "2 or 4"), (5, 3, "3 or 6"), (7, 2, "6 or 8")])
def test_the_log_warns_of_a_checkerboard(
    kernel_size: int, stride: int, fitting: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="segpipe"):
        upsample("transposed", 2, 2, stride=stride, kernel_size=kernel_size)
    assert f"kernel_size {kernel_size} is no multiple of its stride {stride}" in caplog.text
    assert f"{fitting} would not" in caplog.text


def test_a_kernel_that_is_a_multiple_of_its_stride_covers_all_alike(caplog: pytest.LogCaptureFixture) -> None:
    """How often each cell is written, counted with kernels of ones; the log is silent where that is even."""
    for kernel_size, even in ((2, True), (3, False), (4, True), (5, False)):
        caplog.clear()
        layer = upsample("transposed", 1, 1, stride=2, kernel_size=kernel_size).convolution
        assert bool(caplog.records) is not even
        nn.init.ones_(layer.weight)
        counts = layer(torch.ones(1, 1, 9, 9))[..., 4:-4, 4:-4]
        assert (counts.min() == counts.max()) == even


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("cubic", 2, 2), {}, r"unknown 'cubic'; expected one of: nearest, .*subpixel"),
        (("nearest", 2, 3), {}, r"nearest keeps the number of channels; found 2 and 3"),
        (("bilinear", 2, 2), {"kernel_size": 4}, r"bilinear has no kernel_size or dilation"),
        (("subpixel", 2, 2), {"stride": 0}, r"stride: expected a whole number of at least 1, found 0"),
        (("transposed", 2, 2), {"kernel_size": 1}, r"kernel_size: 1 with stride 2 .* leaves cells .* empty"),
        (("transposed", 2, 2), {"dilation": 2}, r"kernel_size: 4 with stride 2 and dilation 2 leaves cells"),
        (("transposed", 2, 2), {"kernel_size": 4, "stride": 1}, r"kernel_size: 4 is even and has no middle"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        upsample(*arguments, **options)


def test_max_unpooling_without_switches_is_refused() -> None:
    with pytest.raises(InputError, match="max_unpool needs the switches"):
        upsample("max_unpool", 1, 1)(COARSE, 4, 4)
