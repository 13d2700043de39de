"""What a model is fed: `Batch`, and the normalisation that happens on the device.

Legend: N images of a batch, H W size in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The statistics that torchvision's ImageNet weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """`images_N3HW` uint8 RGB; `labels_NHW` int64 class ids with the ignore index, or None when only predicting.

    `original_sizes` holds (height, width) of each image as ingested; in evaluation H and W are those.
    """

    images_N3HW: Tensor
    labels_NHW: Tensor | None
    sample_ids: tuple[str, ...]
    original_sizes: tuple[tuple[int, int], ...]


def normalise(
    images_N3HW: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Tensor:
    """uint8 (N, 3, H, W) in 0..255 -> float32 with each channel's mean and standard deviation taken out."""
    mean_311 = torch.tensor(mean, device=images_N3HW.device)[:, None, None] * 255
    std_311 = torch.tensor(std, device=images_N3HW.device)[:, None, None] * 255
    return (images_N3HW - mean_311).div_(std_311)
