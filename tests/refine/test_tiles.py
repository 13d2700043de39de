"""Maps of large images tile by tile: equal to one pass where a model looks no further than it may."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe import models
from segpipe.refine.tiles import tiled_maps


class Local(nn.Module):
    """Stride 4, any size; one cell sees 7 cells either way, 28 pixels, and the image's edge as any convolution does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), *(nn.Conv2d(4, 4, 3, padding=1) for _ in range(7)))
        self.largest = (0, 0)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        H, W = images_NCHW.shape[-2:]
        self.largest = max(self.largest[0], H), max(self.largest[1], W)
        maps: Tensor = self.layers(F.pad(images_NCHW, (0, -W % 4, 0, -H % 4)))
        return maps


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height + width))


@pytest.mark.parametrize("size", [(64, 100), (256, 256), (300, 700), (257, 513), (1, 600), (640, 30)])
@pytest.mark.parametrize(("tile", "overlap"), [(256, 128), (288, 128)])
@torch.no_grad()
def test_tiles_are_the_whole_for_a_model_that_looks_a_quarter_of_the_overlap_far(
    size: tuple[int, int], tile: int, overlap: int
) -> None:
    model = Local()
    whole = model(images(*size))
    model.largest = (0, 0)
    tiles = tiled_maps(model, images(*size), tile=tile, overlap=overlap, stride=4, divisor=32)
    torch.testing.assert_close(tiles, whole, atol=1e-6, rtol=1e-5)
    assert max(model.largest) <= tile


@torch.no_grad()
def test_less_overlap_than_the_model_looks_shows_at_the_seams() -> None:
    """The measure of the test above: it is the overlap that makes the two equal."""
    model = Local()
    difference = tiled_maps(model, images(64, 600), tile=256, overlap=32, stride=4, divisor=32) - model(images(64, 600))
    columns = difference.abs().amax((0, 1, 2)) > 1e-5
    assert 0 < int(columns.sum()) < 60
    assert not columns[:30].any()


@pytest.mark.parametrize("overlap", [0, 32, 64, 96, 128])
def test_weights_add_to_one_everywhere(overlap: int) -> None:
    def ones(part: Tensor) -> Tensor:
        H, W = part.shape[-2:]
        return torch.ones(1, 1, -(-H // 4), -(-W // 4))

    maps = tiled_maps(ones, torch.zeros(1, 3, 501, 777), tile=256, overlap=overlap, stride=4, divisor=32)
    torch.testing.assert_close(maps, torch.ones(1, 1, 126, 195))


@torch.no_grad()
def test_a_pose_network_in_tiles_that_hold_the_image_is_the_network() -> None:
    torch.manual_seed(0)
    network = models.create("hrnet_pose_tiny", 1, keypoints=3).eval()

    def run(part: Tensor) -> Tensor:
        maps: Tensor = network(part).heatmaps_NPhw
        return maps

    picture = images(70, 90)
    assert torch.equal(tiled_maps(run, picture, tile=96, overlap=32, stride=4, divisor=32), run(picture))
    assert tiled_maps(run, picture, tile=64, overlap=32, stride=4, divisor=32).shape == run(picture).shape


@pytest.mark.parametrize(
    ("tile", "overlap", "stride", "divisor"),
    [(100, 32, 4, 32), (128, 20, 4, 32), (128, 96, 4, 32), (96, -32, 4, 32), (96, 32, 5, 32)],
)
def test_tiles_that_would_not_fit_the_grid_are_refused(tile: int, overlap: int, stride: int, divisor: int) -> None:
    with pytest.raises(ValueError, match=f"expected tile {tile} and overlap {overlap} in multiples of {divisor}"):
        tiled_maps(Local(), images(32, 32), tile=tile, overlap=overlap, stride=stride, divisor=divisor)
