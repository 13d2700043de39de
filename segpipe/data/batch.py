"""What a model is fed: `Batch`, and what happens to its images on the device: colour changes and normalisation.

Legend: N images of a batch, H W size in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segpipe.data.colour import change_colours

# The statistics that torchvision's ImageNet weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """`images_N3HW` uint8 RGB; `labels_NHW` class ids with the ignore index, or None when only predicting.

    Both are as narrow as they were stored, and are widened on the device. `colours_N3` are the colour changes of a
    training batch (see `colour.py`), made there too, or None. `original_sizes` holds (height, width) of each image as
    ingested; in evaluation H and W are those.
    """

    images_N3HW: Tensor
    labels_NHW: Tensor | None
    sample_ids: tuple[str, ...]
    original_sizes: tuple[tuple[int, int], ...]
    colours_N3: Tensor | None = None


def training_inputs(batch: Batch, device: torch.device) -> Tensor:
    """What enters a model in training: (N, 3, H, W) float32 on the device, colours changed, normalised."""
    images_N3HW = batch.images_N3HW.to(device, non_blocking=True)
    if batch.colours_N3 is not None:
        images_N3HW = change_colours(images_N3HW, batch.colours_N3.to(device, non_blocking=True))
    return normalise(images_N3HW)


def normalise(
    images_N3HW: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Tensor:
    """(N, 3, H, W) in 0..255 -> float32 with each channel's mean and standard deviation taken out."""
    n, c, h, w = images_N3HW.shape
    if not images_N3HW.is_contiguous(memory_format=torch.channels_last):
        mean_311, std_311 = (torch.tensor(each, device=images_N3HW.device)[:, None, None] * 255 for each in (mean, std))
        return (images_N3HW - mean_311).div_(std_311)
    # Pixel by pixel, whole rows at once: three values at a time cost a CPU twice as much.
    rows_NHx = images_N3HW.permute(0, 2, 3, 1).reshape(n, h, w * c)
    mean_x, std_x = ((torch.tensor(each, device=images_N3HW.device) * 255).repeat(w) for each in (mean, std))
    return (rows_NHx - mean_x).div_(std_x).view(n, h, w, c).permute(0, 3, 1, 2)
