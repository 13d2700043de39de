"""Images as they were before they were normalised, for models that are no networks: these know colours of 8 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segpipe.errors import InputError
from segpipe.types import IMAGENET_MEAN, IMAGENET_STD


def rgb_of(images_NCHW: Tensor) -> npt.NDArray[np.uint8]:
    """uint8 (N, H, W, 3) RGB on the CPU: what was normalised, to the last bit where nothing was resized."""
    rgb_NHW3 = images_NCHW.detach().float().permute(0, 2, 3, 1).cpu().numpy()
    mean_3, std_3 = (np.array(each, dtype=np.float32) for each in (IMAGENET_MEAN, IMAGENET_STD))
    images_NHW3: npt.NDArray[np.uint8] = np.rint((rgb_NHW3 * std_3 + mean_3) * 255).clip(0, 255).astype(np.uint8)
    return images_NHW3


def check_rgb(in_channels: int) -> None:
    """Raises InputError where images would have other channels than red, green and blue."""
    if in_channels != 3:
        raise InputError(f"in_channels: {in_channels}: this method knows colours, and takes images of 3 channels alone")
