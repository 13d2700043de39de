"""Cross entropy of logits that are coarser than the labels, which never lie in memory at the labels' size.

What resizing, `log_softmax` and their gradients keep is several times N x K x H x W numbers, each of which goes to
memory and back. Here a strip of rows that fits the cache is resized, compared with its labels and led back to the
coarse logits at once, both ways by the two matrices that bilinear interpolation is. Value and gradient are those of
`F.interpolate` and `F.cross_entropy` to rounding, on a CPU 1.2 to 5 times as fast, the more the more classes there are
and the coarser the logits (`benchmarks/coarse_loss.py`).

Letter legend: N batch, K classes, h w size of the logits, H W size of the labels, S rows of a strip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Of fewer classes the whole logits are small, and what every pixel costs beside them is no less.
FEWEST_CLASSES = 6
NUMBERS_AT_ONCE = 2**17  # resized logits of one image or of several: about what a core's cache holds


def coarse_cross_entropy(logits_NKhw: Tensor, labels_NHW: Tensor, share_NHW: Tensor) -> Tensor:
    """The sum over pixels of share x cross entropy, in nats: a scalar of the logits' type, float32 or float64.

    The logits are resized to the labels' height and width, bilinearly with `align_corners=False`. Labels are int64 in
    0..K-1, also where a pixel's share is 0. Differentiable once, in the logits alone.
    """
    total: Tensor = _CoarseCrossEntropy.apply(logits_NKhw, labels_NHW, share_NHW)
    return total


class _CoarseCrossEntropy(torch.autograd.Function):
    """The gradient is made with the value, while a strip is at hand: the forward pass keeps it, of the coarse size."""

    @staticmethod
    def forward(ctx: Any, logits_NKhw: Tensor, labels_NHW: Tensor, share_NHW: Tensor) -> Tensor:
        (num_images, num_classes, h, w), (H, W) = logits_NKhw.shape, labels_NHW.shape[1:]
        at_once = max(1, NUMBERS_AT_ONCE // (num_classes * H * W))
        down_Hh, across_Ww = (_interpolation(*sizes, like=logits_NKhw) for sizes in ((h, H), (w, W)))
        gradient_NKhw = torch.empty_like(logits_NKhw) if ctx.needs_input_grad[0] else None
        total = logits_NKhw.new_zeros(())
        with torch.autocast(logits_NKhw.device.type, enabled=False):  # which would multiply in half precision
            for first in range(0, num_images, at_once):
                part = slice(first, first + at_once)
                into = None if gradient_NKhw is None else gradient_NKhw[part]
                total += _by_strips(logits_NKhw[part], labels_NHW[part], share_NHW[part], down_Hh, across_Ww, into)
        ctx.save_for_backward(gradient_NKhw)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (gradient_NKhw,) = ctx.saved_tensors
        return gradient_NKhw * slope, None, None


def _by_strips(
    logits_NKhw: Tensor,
    labels_NHW: Tensor,
    share_NHW: Tensor,
    down_Hh: Tensor,
    across_Ww: Tensor,
    gradient_NKhw: Tensor | None,
) -> Tensor:
    """The sum over these images, by the matrices that resize them; writes its gradient where one is given."""
    (N, K, h, w), (H, W) = logits_NKhw.shape, labels_NHW.shape[1:]
    # Rows first: a strip is then one product of the few coarse rows that it lies between.
    wide_hX = (logits_NKhw.permute(2, 0, 1, 3).reshape(h * N * K, w) @ across_Ww.T).view(h, N * K * W)
    slopes_hX = None if gradient_NKhw is None else torch.zeros_like(wide_hX)
    step = max(1, NUMBERS_AT_ONCE // (N * K * W))
    total = logits_NKhw.new_zeros(())
    for top in range(0, H, step):
        rows = slice(top, min(top + step, H))
        near = slice(_cell(top, h, H), _cell(rows.stop - 1, h, H) + 3)
        down_Ss = down_Hh[rows, near]
        labels_SN1W, share_SN1W = (each[:, rows].transpose(0, 1)[:, :, None] for each in (labels_NHW, share_NHW))
        scores_SNKW = (down_Ss @ wide_hX[near]).view(-1, N, K, W)
        scores_SNKW.sub_(scores_SNKW.amax(2, keepdim=True))
        right_SN1W = scores_SNKW.gather(2, labels_SN1W)
        odds_SN1W = scores_SNKW.exp_().sum(2, keepdim=True)
        total += odds_SN1W.log().sub_(right_SN1W).mul_(share_SN1W).sum()
        if slopes_hX is not None:
            # d error / d score: the class's probability, less one of the true class.
            scores_SNKW.mul_(share_SN1W / odds_SN1W).scatter_add_(2, labels_SN1W, -share_SN1W)
            slopes_hX[near].addmm_(down_Ss.T, scores_SNKW.view(-1, N * K * W))
    if gradient_NKhw is not None and slopes_hX is not None:
        gradient_NKhw.copy_((slopes_hX.view(h * N * K, W) @ across_Ww).view(h, N, K, w).permute(1, 2, 0, 3))
    return total


def _cell(place: int, cells: int, length: int) -> int:
    """A coarse cell at or above the upper one of the two that `place` lies between, at most two above the lower one."""
    return max(0, (2 * place + 1) * cells // (2 * length) - 1)


def _interpolation(cells: int, length: int, *, like: Tensor) -> Tensor:
    """(length, cells) weights of each cell in each place, with torch's rounding of where a place lies."""
    scale = like.new_full((), cells) / length
    places = torch.arange(length, device=like.device)
    at = ((places + 0.5).to(like.dtype) * scale - 0.5).clamp(min=0)
    upper = at.long().clamp(max=cells - 1)
    share = at - upper
    weights = like.new_zeros(length, cells)
    weights[places, upper] = 1 - share
    weights[places, (upper + 1).clamp(max=cells - 1)] += share
    return weights
