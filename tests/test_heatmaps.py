"""Heatmaps of keypoints: targets, the way to cells and back, and what a peak says, with examples done by hand."""

import math

import pytest
import torch

from segpipe.heatmaps import decode, gaussian_targets, inside, mirrored, to_cells, to_pixels
from segpipe.losses import heatmap_loss

SIZE = (12, 16)


def test_cells_of_a_region_by_hand() -> None:
    """A region from x = 8 to 40 shown by 8 cells: cell 0 holds pixels 8 to 11, and its middle lies at 9.5."""
    regions_N4 = torch.tensor([[8.0, 0.0, 40.0, 16.0]])
    pixels_NP2 = torch.tensor([[[9.5, 1.5], [8.0, 0.0], [7.5, 15.5], [39.5, 15.5]]])
    cells_NP2 = to_cells(pixels_NP2, regions_N4, (4, 8))
    assert cells_NP2[0].tolist() == [[0.0, 0.0], [-0.375, -0.375], [-0.5, 3.5], [7.5, 3.5]]
    torch.testing.assert_close(to_pixels(cells_NP2, regions_N4, (4, 8)), pixels_NP2)
    assert inside(cells_NP2, (4, 8)).all()
    assert inside(torch.tensor([[[-0.6, 0.0], [0.0, 3.6], [7.6, 0.0]]]), (4, 8)).tolist() == [[False] * 3]


def test_any_region_there_and_back() -> None:
    draw = torch.Generator().manual_seed(0)
    corners_N2 = 100 * torch.rand(50, 2, generator=draw) - 50
    regions_N4 = torch.cat([corners_N2, corners_N2 + 1 + 300 * torch.rand(50, 2, generator=draw)], dim=1)
    points_NP2 = 400 * torch.rand(50, 17, 2, generator=draw) - 100
    back_NP2 = to_pixels(to_cells(points_NP2, regions_N4, SIZE), regions_N4, SIZE)
    torch.testing.assert_close(back_NP2, points_NP2, atol=1e-3, rtol=0)


def test_targets_are_gaussians_around_the_point_itself() -> None:
    targets = gaussian_targets(torch.tensor([[[4.0, 3.0], [4.4, 3.0]]]), SIZE)
    assert targets.shape == (1, 2, *SIZE)
    assert targets[0, 0, 3, 4] == 1.0
    for row, column in ((3, 6), (5, 4), (1, 4)):
        assert float(targets[0, 0, row, column]) == pytest.approx(math.exp(-0.5))
    assert float(targets[0, 1, 3, 4]) == pytest.approx(math.exp(-(0.4**2) / 8))
    assert float(targets[0, 1, 4, 5]) == pytest.approx(math.exp(-(0.6**2 + 1) / 8))
    assert float(gaussian_targets(torch.tensor([[[4.0, 3.0]]]), SIZE, sigma=1)[0, 0, 3, 6]) == pytest.approx(
        math.exp(-2)
    )


def test_a_peak_is_read_by_hand() -> None:
    """One Gaussian at x = 6.3, y = 5.1: its highest cell is (6, 5)."""
    heatmaps = 0.8 * gaussian_targets(torch.tensor([[[6.3, 5.1]]]), SIZE)
    cells, scores = decode(heatmaps, smoothing=0)
    assert cells[0, 0].tolist() == pytest.approx([6.3, 5.1], abs=1e-4)
    assert float(scores) == pytest.approx(0.8 * math.exp(-(0.3**2 + 0.1**2) / 8))


@pytest.mark.parametrize(("smoothing", "close"), [(0.0, 1e-3), (2.0, 0.03)])
def test_the_top_of_a_gaussian_is_found_within_a_fraction_of_a_cell(smoothing: float, close: float) -> None:
    draw = torch.Generator().manual_seed(1)
    points_NP2 = 8 + torch.rand(100, 3, 2, generator=draw) * torch.tensor([32.0, 48.0])
    heatmaps = gaussian_targets(points_NP2, (64, 48))
    error = (decode(heatmaps, smoothing=smoothing)[0] - points_NP2).norm(dim=-1)
    assert float(error.max()) < close
    middles = (points_NP2.round() - points_NP2).norm(dim=-1)
    assert 0.3 < float(middles.mean()) < 0.45, "0.383 of a cell is the mean distance to its middle"


def test_near_an_edge_nothing_is_smoothed_away() -> None:
    """In a map of 24 x 16 cells most peaks are near an edge, where a smoothed one would lie up to a cell inwards."""
    points_NP2 = 0.5 + torch.rand(500, 1, 2, generator=torch.Generator().manual_seed(3)) * torch.tensor([14.0, 22.0])
    cells_NP2, _ = decode(gaussian_targets(points_NP2, (24, 16)))
    assert float((cells_NP2 - points_NP2).abs().max()) < 0.03


def test_smoothing_takes_out_noise_of_which_the_raw_map_makes_a_step() -> None:
    heatmaps = gaussian_targets(torch.tensor([[[20.3, 20.0]]]), (40, 40))
    noise = 0.05 * torch.rand(heatmaps.shape, generator=torch.Generator().manual_seed(2))
    raw, score = decode(heatmaps + noise, smoothing=0)
    smooth, same = decode(heatmaps + noise, smoothing=2)
    truth = torch.tensor([20.3, 20.0])
    assert float((smooth[0, 0] - truth).norm()) < 0.1 < float((raw[0, 0] - truth).norm())
    assert float(score) == float(same) == float((heatmaps + noise).max())


@pytest.mark.parametrize(
    ("point", "size"), [((0.0, 0.0), SIZE), ((15.0, 11.0), SIZE), ((0.0, 0.0), (1, 1)), ((1.0, 0.0), (1, 2))]
)
def test_at_an_edge_the_middle_of_the_cell_stays(point: tuple[float, float], size: tuple[int, int]) -> None:
    cells, scores = decode(gaussian_targets(torch.tensor([[point]]), size))
    assert cells[0, 0].tolist() == list(point)
    assert float(scores) == 1.0


@pytest.mark.parametrize("value", [0.0, -0.3, 1e-30])
def test_a_flat_map_gives_its_first_cell_and_no_nonsense(value: float) -> None:
    cells, scores = decode(torch.full((2, 3, 6, 5), value))
    assert not cells.any()
    assert (scores == torch.tensor(value)).all()


def test_no_region_gives_no_point() -> None:
    cells, scores = decode(torch.zeros(0, 5, 6, 7))
    assert cells.shape == (0, 5, 2)
    assert scores.shape == (0, 5)


def test_a_mirror_image_is_turned_back_and_left_becomes_right() -> None:
    points = torch.tensor([[[2.0, 3.0], [12.0, 4.0], [7.0, 9.0]]])
    of_mirror = torch.tensor([[[15 - 12.0, 4.0], [15 - 2.0, 3.0], [15 - 7.0, 9.0]]])
    back = mirrored(gaussian_targets(of_mirror, SIZE), [(0, 1)])
    assert torch.equal(back, gaussian_targets(points, SIZE))


def test_the_loss_counts_labelled_keypoints_alone() -> None:
    targets = gaussian_targets(torch.tensor([[[4.0, 3.0], [9.0, 6.0]]]), SIZE)
    heatmaps = (targets + torch.tensor([0.5, 7.0])[None, :, None, None]).requires_grad_()
    loss = heatmap_loss(heatmaps, targets, torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.25)
    assert heatmaps.grad is not None
    assert not heatmaps.grad[0, 1].any()
    torch.testing.assert_close(heatmaps.grad[0, 0], torch.full(SIZE, 2 * 0.5 / (12 * 16)))
    both = heatmap_loss(heatmaps, targets, torch.ones(1, 2))
    assert float(both.detach()) == pytest.approx((0.25 + 49) / 2)


def test_the_loss_of_nothing_is_zero_with_a_zero_gradient() -> None:
    heatmaps = torch.ones(1, 2, 3, 4, requires_grad=True)
    loss = heatmap_loss(heatmaps, torch.zeros(1, 2, 3, 4), torch.zeros(1, 2))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert heatmaps.grad is not None
    assert not heatmaps.grad.any()
