"""Pyramid pooling: the means of every grid beside the map, at its size."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from segpipe.models.parts.pyramid_pooling import BINS, PyramidPooling


def test_every_grid_shows_its_means() -> None:
    """Four views beside the map itself, a quarter of its channels each, as equation-free figure 3 draws them."""
    torch.manual_seed(0)
    pooling = PyramidPooling(8, 2).eval()
    features = torch.randn(2, 8, 12, 18)
    with torch.no_grad():
        views = pooling(features)
    assert views.shape == (2, 16, 12, 18)
    assert torch.equal(views[:, :8], features)
    for place, cells in enumerate(BINS):
        rows, columns = 12 // cells, 18 // cells
        means = features.reshape(2, 8, cells, rows, cells, columns).mean(dim=(3, 5))
        reduced = F.conv2d(means, pooling.features[place][0].weight) / (1 + 1e-5) ** 0.5
        expected = F.interpolate(reduced.relu(), size=(12, 18), mode="bilinear", align_corners=False)
        torch.testing.assert_close(views[:, 8 + 2 * place : 10 + 2 * place], expected)


def test_maps_smaller_than_a_grid_repeat_their_cells_in_it() -> None:
    pooling, cells = PyramidPooling(7, 5).eval(), []
    for reduce in pooling.features:
        reduce.register_forward_pre_hook(lambda module, given: cells.append(tuple(given[0].shape[-2:])))
    with torch.no_grad():
        assert pooling(torch.zeros(1, 7, 9, 4)).shape == (1, 7 + 4 * 5, 9, 4)
    assert cells == [(1, 1), (2, 2), (3, 3), (6, 6)]
