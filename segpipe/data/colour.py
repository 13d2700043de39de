"""Colour changes of training crops: drawn with the sample, made on the device. Sits below `augment.py` and `batch.py`.

On the device since every pixel takes part: on the host they cost as much as reading and resizing a crop together.

Legend: N images of a batch, H W size in pixels.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

Colour = tuple[float, float, float]  # factors of brightness, contrast and saturation; 1.0 changes nothing
_LUMA = (0.299, 0.587, 0.114)


def draw_colour(strength: float, draw: random.Random) -> Colour:
    """Three factors, each uniform in 1 - strength .. 1 + strength."""
    brightness, contrast, saturation = (draw.uniform(1 - strength, 1 + strength) for _ in range(3))
    return brightness, contrast, saturation


def change_colours(images_N3HW: Tensor, colours_N3: Tensor) -> Tensor:
    """Images in 0..255 -> float32 in 0..255: brightness, then saturation, then contrast around the mean grey."""
    brightness_N111, contrast_N111, saturation_N111 = (factor[:, None, None, None] for factor in colours_N3.unbind(1))
    images_N3HW = images_N3HW * brightness_N111
    grey_N1HW = torch.tensordot(images_N3HW, images_N3HW.new_tensor(_LUMA), dims=([1], [0]))[:, None]
    mean_N111 = grey_N1HW.mean((1, 2, 3), keepdim=True)
    rest_N1HW = grey_N1HW.mul_(contrast_N111 * (1 - saturation_N111)).add_(mean_N111 * (1 - contrast_N111))
    return images_N3HW.mul_(contrast_N111 * saturation_N111).add_(rest_N1HW).clamp_(0, 255)
