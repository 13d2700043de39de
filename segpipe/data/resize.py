"""Resizing of uint8 images and of class ids. Sits below `augment.py`.

Legend: H W size in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resize_image(image_3HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bilinear resize of a uint8 (3, H, W) image; itself when the size is right already."""
    if tuple(image_3HW.shape[1:]) == size:
        return image_3HW
    return functional.interpolate(image_3HW[None], size=size, mode="bilinear", antialias=True)[0]


def resize_labels(labels_HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest (pixel centres) resize of class ids; itself when the size is right already."""
    if tuple(labels_HW.shape) == size:
        return labels_HW
    rows = ((torch.arange(size[0]) + 0.5) * (labels_HW.shape[0] / size[0])).long()
    columns = ((torch.arange(size[1]) + 0.5) * (labels_HW.shape[1] / size[1])).long()
    return labels_HW[rows][:, columns]
