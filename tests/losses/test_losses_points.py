"""Reading masks at points against explicit bilinear interpolation, and where uncertain points are drawn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe.losses import read_points, uncertain_points


def slow_read(map_hw: Tensor, x: float, y: float) -> float:
    """The map at (x, y) in cells, whose centres are at 0.5, 1.5, ...; beyond the outermost centres it goes on."""
    height, width = map_hw.shape
    x, y = min(max(x - 0.5, 0), width - 1), min(max(y - 0.5, 0), height - 1)
    left, top = math.floor(x), math.floor(y)
    total = 0.0
    for row in {top, min(top + 1, height - 1)}:
        for column in {left, min(left + 1, width - 1)}:
            total += (1 - abs(x - column)) * (1 - abs(y - row)) * float(map_hw[row, column])
    return total


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("share", [(1.0, 1.0), (0.75, 0.9)])
def test_points_are_read_bilinearly_in_the_part_that_the_image_covers(shared: bool, share: tuple[float, float]) -> None:
    torch.manual_seed(0)
    maps, points = torch.randn(3, 4, 5), torch.rand(1 if shared else 3, 40, 2)
    found = read_points(maps, points, share=share)
    for mask in range(3):
        for point, (x, y) in enumerate(points[0 if shared else mask].tolist()):
            expected = slow_read(maps[mask], x * share[1] * 5, y * share[0] * 4)
            assert float(found[mask, point]) == pytest.approx(expected, abs=1e-5)


def test_inside_the_outermost_centres_it_is_torchs_grid_sample_and_outside_it_goes_on() -> None:
    torch.manual_seed(1)
    maps, points = torch.rand(2, 6, 7) < 0.5, torch.rand(2, 100, 2) * 0.8 + 0.1
    expected = F.grid_sample(maps[:, None].float(), points[:, None] * 2 - 1, align_corners=False)[:, 0, 0]
    torch.testing.assert_close(read_points(maps, points), expected)
    corner = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    assert read_points(torch.ones(1, 6, 7), corner).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("count", [0, 1])
def test_no_mask_and_one_mask(count: int) -> None:
    assert read_points(torch.ones(count, 4, 4), torch.rand(count, 9, 2)).shape == (count, 9)
    assert read_points(torch.ones(count, 4, 4), torch.rand(1, 9, 2)).shape == (count, 9)
    assert uncertain_points(torch.ones(count, 4, 4), 9).shape == (count, 9, 2)


def test_three_quarters_of_the_points_are_where_the_mask_is_least_sure() -> None:
    """A mask that is sure at the left and the right, and changes its mind between them."""
    torch.manual_seed(2)
    steps = torch.tensor([-9.0, -9.0, -9.0, -9.0, 9.0, 9.0, 9.0, 9.0]).expand(2, 8, 8)
    points = uncertain_points(steps, 400)
    assert points.shape == (2, 400, 2)
    assert bool(((points >= 0) & (points <= 1)).all())
    doubt = read_points(steps, points).abs()
    # Of 1,200 drawn evenly about 150 lie between the two middle columns; all of these are among the 300 kept.
    assert bool((doubt[:, :300].topk(100, largest=False).values < 9).all())
    assert 0.4 < float((doubt[:, :300] < 9).float().mean()) < 0.6
    even = points[:, 300:, 0]
    assert 0.4 < float(even.mean()) < 0.6
    assert float((doubt[:, 300:] < 9).float().mean()) < 0.25


def test_the_same_seed_draws_the_same_points() -> None:
    drawn = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(uncertain_points(torch.linspace(-1, 1, 32).view(2, 4, 4), 20))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
