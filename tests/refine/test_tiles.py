"""Maps of large images tile by tile: equal to one pass where a model looks no further than it may, else blended."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe import models
from segpipe.refine.tiles import Span, blended_rows, gaussian_spans, resized_rows, tiled_maps


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


def test_windows_are_spread_as_nnu_nets_are() -> None:
    """The worked example of compute_steps_for_sliding_window: 110 cells, windows of 64, a step of at most a half."""
    assert [span.start for span in gaussian_spans(110, 64, 0.5)] == [0, 23, 46]
    assert [span.start for span in gaussian_spans(128, 64, 0.5)] == [0, 32, 64]
    assert [span.start for span in gaussian_spans(129, 64, 0.5)] == [0, 22, 43, 65]
    assert [span.start for span in gaussian_spans(200, 64, 0.0)] == [0, 45, 91, 136]


@pytest.mark.parametrize(("length", "window"), [(1, 1), (5, 1), (64, 64), (65, 64), (300, 64), (301, 7), (20, 64)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_windows_cover_an_axis_share_what_they_should_and_count_as_one(
    length: int, window: int, overlap: float
) -> None:
    spans = gaussian_spans(length, window, overlap)
    total = torch.zeros(length)
    for span in spans:
        assert span.stop - span.start == min(window, length) == len(span.weight)
        total[span.start : span.stop] += span.weight
        assert (span.weight > 0).all()
    torch.testing.assert_close(total, torch.ones(length))
    assert (spans[0].start, spans[-1].stop) == (0, length)
    for before, after in pairwise(spans):
        assert before.stop - after.start >= math.floor(overlap * window)
    assert len(spans) == 1 or length > window


def test_the_importance_of_a_window_is_nnu_nets() -> None:
    """compute_gaussian of its code, of a window with a middle cell; what is left of it is how two windows share."""
    window = 31
    point = torch.zeros(window, dtype=torch.float64)
    point[window // 2] = 1
    theirs = torch.from_numpy(gaussian_filter(point.numpy(), window / 8, mode="constant"))
    first, second = gaussian_spans(46, window, 0.5)
    shared = slice(second.start, window)
    share = theirs[shared] / (theirs[shared] + theirs[: window - second.start])
    torch.testing.assert_close(first.weight[shared].double(), share, atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [(40, 100), (33, 32), (70, 31), (32, 32), (9, 200)])
def test_bands_are_the_weighted_mean_of_the_windows(size: tuple[int, int]) -> None:
    """Against the definition: at each place the sum of importance x logit over the sum of importances, in float64."""
    window, draw = 32, torch.Generator().manual_seed(0)
    rows, columns = (gaussian_spans(length, window, 0.5) for length in size)
    said: dict[tuple[int, int], Tensor] = {}

    def look(row: Span, column: Span) -> Tensor:
        shape = (2, 3, row.stop - row.start, column.stop - column.start)
        return said.setdefault((row.start, column.start), torch.randn(shape, generator=draw))

    bands = list(blended_rows(look, rows, columns))
    above, below = torch.zeros(2, 3, *size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for (top, left), part in said.items():
        h, w = part.shape[-2:]
        away_h, away_w = ((torch.arange(n, dtype=torch.float64) + 0.5 - n / 2) / (n / 8) for n in (h, w))
        importance = torch.exp(-(away_h.square()[:, None] + away_w.square()) / 2)
        above[..., top : top + h, left : left + w] += importance * part
        below[top : top + h, left : left + w] += importance
    found = torch.cat(bands, dim=2)
    # An axis of one window knows no importance.
    torch.testing.assert_close(found.double(), above / below, atol=2e-6, rtol=1e-5)
    assert [band.shape[2] for band in bands[:-1]] == [b.start - a.start for a, b in pairwise(rows)]
    assert len(said) == len(rows) * len(columns)


@pytest.mark.parametrize("given", [(37, 50), (1, 1), (200, 3), (20, 90)])
@pytest.mark.parametrize("size", [(37, 50), (74, 100), (20, 13), (1, 7), (300, 1)])
@pytest.mark.parametrize(("step", "rows_of_band"), [(1, 5), (8, 3), (1000, 11), (7, 1000)])
def test_bands_are_resized_as_the_whole_is(
    given: tuple[int, int], size: tuple[int, int], step: int, rows_of_band: int
) -> None:
    whole = torch.randn(2, 3, *given, generator=torch.Generator().manual_seed(1))
    found = list(resized_rows(iter(whole.split(rows_of_band, dim=2)), size, given, step=step))
    assert [band.shape[2] for band in found] == [min(step, size[0] - top) for top in range(0, size[0], step)]
    # In float32 torch itself is off by 5e-5 in places 200 rows down.
    expected = F.interpolate(whole.double(), size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(torch.cat(found, dim=2).double(), expected, atol=1e-4, rtol=0)
