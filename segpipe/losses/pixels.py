"""Losses of a class for every pixel, and class weights.

Letter legend: N batch, K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe.losses.coarse import FEWEST_CLASSES, coarse_cross_entropy
from segpipe.losses.reading import logits_of_classes, never_zero, resized


def cross_entropy(
    logits_NKHW: Tensor,
    labels_NHW: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = 255,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Mean cross entropy over the pixels whose label is not `ignore_index`: a float32 scalar, in nats.

    Labels are class ids (any integer type); `weight` is (K,), and weighted means divide by the sum of the weights of
    the pixels' classes, as torch's does. Where torch divides zero by zero (every pixel ignored, or of weight 0) the
    loss is 0 with a zero gradient, so that one empty crop cannot poison a run. One logit stands for two classes (see
    `reading.py`), which have two weights. Computed in float32 whatever the logits, but in float64 of such.

    With `size` (H, W), that of the labels, logits may be of any other, to be resized bilinearly; of many classes that
    is done strip by strip on a CPU (see `coarse.py`).
    """
    labels = labels_NHW.long()
    logits = logits_of_classes(logits_NKHW)
    weight = None if weight is None else weight.to(logits)
    counted = (labels != ignore_index).to(logits)
    known = labels.masked_fill(counted == 0, 0)
    share = counted if weight is None else counted * weight[known]
    # Strip by strip only where that was measured, on a CPU. On a GPU each strip is some launches more, and what it is
    # worth there nobody knows yet: `benchmarks/coarse_loss.py --device cuda` tells.
    by_strips = logits.device.type == "cpu" and logits.shape[1] >= FEWEST_CLASSES
    if size in (None, tuple(logits.shape[2:])) or not by_strips:
        logits = resized(logits, size)
        total = F.cross_entropy(logits, labels, weight=weight, ignore_index=ignore_index, reduction="sum")
    elif tuple(labels.shape[1:]) != size:
        raise ValueError(f"expected labels of the size {size} that logits are resized to, found {tuple(labels.shape)}")
    else:
        total = coarse_cross_entropy(logits, known, share)
    return total / never_zero(share.sum())


def mean_over(errors_NHW: Tensor, counted_NHW: Tensor) -> Tensor:
    """Mean of the errors where bool `counted_NHW` holds; 0 with a zero gradient where it nowhere does."""
    return (errors_NHW * counted_NHW).sum() / counted_NHW.sum().clamp(min=1)


def enet_weights(frequencies: Sequence[float] | Tensor) -> Tensor:
    """Class weights 1 / ln(1.02 + frequency): (K,) float32, between 1.42 and 50.5.

    `frequencies` are the classes' shares of the labelled pixels, each in 0..1. ENet, Paszke et al., 2016,
    arXiv:1606.02147, section 5.2. Raises ValueError on anything else, such as pixel counts.
    """
    shares = torch.as_tensor(frequencies, dtype=torch.float64)
    if shares.dim() != 1 or not bool(((shares >= 0) & (shares <= 1)).all()):
        raise ValueError(f"expected K shares of the pixels, each in 0..1, found {shares.tolist()}; divide by the sum")
    return (1.0 / torch.log(1.02 + shares)).float()


def median_frequency_weights(class_pixels: Sequence[int] | Tensor, image_pixels: Sequence[int] | Tensor) -> Tensor:
    """Class weights median(f) / f_k with f_k = class_pixels[k] / image_pixels[k]: (K,) float32.

    `class_pixels` counts the pixels of each class, `image_pixels` the pixels of the images that hold it. Eigen and
    Fergus, 2015, arXiv:1411.4734, section 6.3.1. A class without pixels has no frequency: it does not enter the median
    and weighs 1. Raises ValueError when lengths differ or a class has more pixels than its images.
    """
    pixels = torch.as_tensor(class_pixels, dtype=torch.float64)
    images = torch.as_tensor(image_pixels, dtype=torch.float64)
    if pixels.dim() != 1 or pixels.shape != images.shape or not bool(((pixels >= 0) & (pixels <= images)).all()):
        raise ValueError(
            f"expected two lists of K counts, class_pixels <= image_pixels, found {pixels.tolist()}, {images.tolist()}"
        )
    weights = torch.ones_like(pixels)
    present = pixels > 0
    if bool(present.any()):
        frequency = pixels[present] / images[present]
        weights[present] = torch.quantile(frequency, 0.5) / frequency
    return weights.float()
