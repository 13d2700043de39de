"""Keypoints to heatmaps and back: targets of training, and places and scores of what a model answers. Pure functions.

Used by `tasks/keypoints/`; knows no model. There are two ways to say where a point lies. Pixels: (0, 0) is the middle
of the image's first pixel, as in COCO's files. Cells: (0, 0) is the middle of the first cell of a heatmap, which shows
one region of the image. `to_cells` and `to_pixels` are exact inverses, so that nothing is lost or shifted on the way.

Letter legend: N heatmaps' regions, P keypoints, h w size of a heatmap in cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMA = 2.0  # cells, at 64 x 48 of them: the authors' setting (their paper says 1)
_LEAST = 1e-10  # below, a logarithm would lead away


def to_cells(points_NP2: Tensor, regions_N4: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, P, 2) x, y in pixels -> in cells of heatmaps of `size` (h, w) that show `regions_N4` (x0, y0, x1, y1)."""
    origin_N12, cells_N12 = _scale(regions_N4, size)
    return (points_NP2 + 0.5 - origin_N12) * cells_N12 - 0.5


def to_pixels(cells_NP2: Tensor, regions_N4: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, P, 2) x, y in cells -> in pixels of the image: the inverse of `to_cells`."""
    origin_N12, cells_N12 = _scale(regions_N4, size)
    return (cells_NP2 + 0.5) / cells_N12 + origin_N12 - 0.5


def gaussian_targets(cells_NP2: Tensor, size: tuple[int, int], *, sigma: float = SIGMA) -> Tensor:
    """(N, P, h, w) float32: exp(-d^2 / (2 sigma^2)), d the distance in cells of a cell's middle to the keypoint.

    The peak is 1 where a keypoint lies in the middle of a cell. Sun et al. 2019 round the centre to a cell first: half
    a cell of it, two pixels at stride 4, is lost before anything is learnt (Zhang et al. 2020, arXiv:1910.06278,
    section 3.2); and they cut off beyond 3 sigma, where 1.1 % of the peak are left.
    """
    x_NP1, y_NP1 = cells_NP2.float().unsqueeze(-1).unbind(-2)
    h, w = size
    along_x_NPw = torch.exp(-((torch.arange(w, device=x_NP1.device) - x_NP1) ** 2) / (2 * sigma**2))
    along_y_NPh = torch.exp(-((torch.arange(h, device=y_NP1.device) - y_NP1) ** 2) / (2 * sigma**2))
    return along_y_NPh[..., :, None] * along_x_NPw[..., None, :]


def inside(cells_NP2: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, P) bool: which points lie on a heatmap of `size` (h, w), edges of its outer cells included."""
    h, w = size
    x_NP, y_NP = cells_NP2.unbind(-1)
    return (x_NP >= -0.5) & (x_NP <= w - 0.5) & (y_NP >= -0.5) & (y_NP <= h - 0.5)


def decode(heatmaps_NPhw: Tensor, *, smoothing: float = SIGMA) -> tuple[Tensor, Tensor]:
    """Where the heatmaps peak: (N, P, 2) x, y in cells, and the peaks' values (N, P), both float32.

    From the middle of the highest cell, of equals the first, it steps to the top of the parabola that the logarithm is
    taken for (DARK, Zhang et al. 2020, arXiv:1910.06278, equations 4 to 9): exact for a Gaussian. What a model says has
    more than one bump, so that it is smoothed before, by a Gaussian of `smoothing` cells (0: not at all) wherever that
    does not reach beyond the edge, since what it would find there instead of zeros draws a peak up to a cell inwards;
    the value is always that of the map as it came. Where the parabola has no top within a cell of the highest one, or
    neighbours are missing, the middle of the cell stays.
    """
    h, w = heatmaps_NPhw.shape[2:]
    maps_NPhw = heatmaps_NPhw.float()
    scores_NP, place_NP = maps_NPhw.flatten(2).max(2)
    column_NP, row_NP = place_NP % w, place_NP // w
    cells_NP2 = torch.stack([column_NP, row_NP], dim=-1).float()
    step_NP2 = _newton_step(maps_NPhw, row_NP, column_NP)
    if smoothing > 0:
        radius = round(2.5 * smoothing)  # DARK's kernel of 11 for a sigma of 2
        smooth_NP2 = _newton_step(_smoothed(maps_NPhw, smoothing, radius), row_NP, column_NP)
        edge_NP = torch.stack([column_NP, row_NP, w - 1 - column_NP, h - 1 - row_NP]).amin(0)
        step_NP2 = torch.where((edge_NP > radius)[..., None], smooth_NP2, step_NP2)
    return cells_NP2 + step_NP2, scores_NP


def mirrored(heatmaps_NPhw: Tensor, pairs: Sequence[Sequence[int]]) -> Tensor:
    """The heatmaps of the mirror image as those of the image: turned back, left and right keypoints exchanged."""
    order = list(range(heatmaps_NPhw.shape[1]))
    for left, right in pairs:
        order[left], order[right] = right, left
    return heatmaps_NPhw[:, order].flip(-1)


def _scale(regions_N4: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Left upper corners (N, 1, 2) and cells a pixel (N, 1, 2), x first."""
    cells_2 = torch.tensor([size[1], size[0]], dtype=regions_N4.dtype, device=regions_N4.device)
    return regions_N4[:, None, :2], cells_2 / (regions_N4[:, None, 2:] - regions_N4[:, None, :2])


def _at(maps_NPhw: Tensor, row_NP: Tensor, column_NP: Tensor, down: int, right: int) -> Tensor:
    """(N, P) values beside the given cells; beyond the edge those of the edge."""
    h, w = maps_NPhw.shape[2:]
    place_NP = (row_NP + down).clamp(0, h - 1) * w + (column_NP + right).clamp(0, w - 1)
    return maps_NPhw.flatten(2).gather(2, place_NP[..., None])[..., 0]


def _smoothed(maps_NPhw: Tensor, sigma: float, radius: int) -> Tensor:
    offsets_k = torch.arange(-radius, radius + 1, device=maps_NPhw.device, dtype=torch.float32)
    kernel_k = torch.softmax(-(offsets_k**2) / (2 * sigma**2), dim=0)
    flat_n1hw = maps_NPhw.flatten(0, 1)[:, None]
    flat_n1hw = F.conv2d(flat_n1hw, kernel_k[None, None, :, None], padding=(radius, 0))
    flat_n1hw = F.conv2d(flat_n1hw, kernel_k[None, None, None, :], padding=(0, radius))
    return flat_n1hw.reshape(maps_NPhw.shape)


def _newton_step(maps_NPhw: Tensor, row_NP: Tensor, column_NP: Tensor) -> Tensor:
    """(N, P, 2) from the given cells to the top of the logarithm's parabola, x first; 0 where there is none nearby."""
    h, w = maps_NPhw.shape[2:]
    offsets = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    value = {each: _at(maps_NPhw, row_NP, column_NP, *each).clamp(min=_LEAST).log() for each in offsets}
    dx, dy = (value[0, 1] - value[0, -1]) / 2, (value[1, 0] - value[-1, 0]) / 2
    dxx = value[0, 1] - 2 * value[0, 0] + value[0, -1]
    dyy = value[1, 0] - 2 * value[0, 0] + value[-1, 0]
    dxy = (value[1, 1] - value[1, -1] - value[-1, 1] + value[-1, -1]) / 4
    determinant = dxx * dyy - dxy**2
    divisor = torch.where(determinant == 0, 1.0, determinant)
    step_NP2 = torch.stack([(dxy * dy - dyy * dx) / divisor, (dxy * dx - dxx * dy) / divisor], dim=-1)
    has_neighbours = (column_NP > 0) & (column_NP < w - 1) & (row_NP > 0) & (row_NP < h - 1)
    is_top = has_neighbours & (determinant > 0) & (dxx < 0) & (step_NP2.abs().amax(-1) <= 1)
    return torch.where(is_top[..., None], step_NP2, 0.0)
