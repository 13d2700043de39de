"""Colour changes of a training crop. Sits below `augment.py`.

Legend: h w crop size in pixels.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


def jitter(image_3hw: Tensor, strength: float, draw: random.Random) -> Tensor:
    """Brightness, contrast (around the mean) and saturation, each by a factor in 1 - strength .. 1 + strength."""
    brightness, contrast, saturation = (draw.uniform(1 - strength, 1 + strength) for _ in range(3))
    pixels = image_3hw.float().mul_(brightness)
    grey_1hw = torch.tensordot(torch.tensor(_LUMA), pixels, dims=1)[None]
    pixels = torch.lerp(grey_1hw, pixels, saturation)
    pixels = torch.lerp(grey_1hw.mean(), pixels, contrast)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)
