"""Scanning: one pass over an image against its windows one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segpipe.models.parts.scanning import scanned, window_of


def noise(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def classifier(*kernels: int, pool: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for kernel_size in kernels:
        layers += [nn.Conv2d(2, 2, kernel_size), nn.Tanh(), nn.MaxPool2d(pool, stride=pool)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("kernels", "pool", "window"), [((3,), 2, 4), ((3, 2), 2, 8), ((2, 3, 2), 2, 17), ((3, 2), 3, 14)]
)
def test_one_pass_is_every_window_by_itself(kernels: tuple[int, ...], pool: int, window: int) -> None:
    layers = classifier(*kernels, pool=pool)
    assert window_of(layers) == window
    maps = noise(2, 2, window + 3, window + 4)
    with torch.no_grad():
        found, spacing = scanned(layers, maps)
        assert found.shape[-2:] == (4, 5)
        assert spacing == pool ** len(kernels)
        for top in range(4):
            for left in range(5):
                alone = layers(maps[..., top : top + window, left : left + window])
                assert alone.shape[-2:] == (1, 1)
                torch.testing.assert_close(found[..., top, left], alone[..., 0, 0])


def test_scanning_twice_is_scanning_the_whole() -> None:
    layers, maps = list(classifier(3, 2, 2)), noise(1, 2, 30, 31)
    with torch.no_grad():
        expected, _ = scanned(layers, maps)
        half, spacing = scanned(layers[:4], maps)
        found, _ = scanned(layers[4:], half, spacing=spacing)
    assert torch.equal(found, expected)
