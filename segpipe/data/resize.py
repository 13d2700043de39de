"""Resizing of uint8 images and of class ids, mirrored and turned upside down on the way. Sits below `window.py`.

To turn is free where it happens to what is copied anyway, and before a resize where that makes pixels.

Legend: H W size in pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor, from_numpy
from torch.nn import functional


def resize_image(
    image_3HW: Tensor, size: tuple[int, int], *, mirrored: bool = False, upside_down: bool = False
) -> Tensor:
    """Antialiased bilinear resize of a uint8 (3, H, W) image, then turned; itself where nothing is to be done."""
    axes = [axis for axis, turned in ((-1, mirrored), (-2, upside_down)) if turned]
    found, wanted = image_3HW.shape[1] * image_3HW.shape[2], size[0] * size[1]
    # The filter is symmetric: a mirror image resized is the resized image mirrored, to the last bit.
    if axes and found < wanted:
        image_3HW, axes = image_3HW.flip(axes), []
    if tuple(image_3HW.shape[1:]) != size:
        # The batch's axis is put before the pixels, not before the channels: else torch takes an image that lies pixel
        # by pixel for one that lies channel by channel, and turns around what it has resized, for half of the time
        # again.
        image_13HW = image_3HW.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        image_3HW = functional.interpolate(image_13HW, size=size, mode="bilinear", antialias=True)[0]
    return image_3HW.flip(axes) if axes else image_3HW


def resize_labels(
    labels_HW: Tensor, size: tuple[int, int], *, mirrored: bool = False, upside_down: bool = False
) -> Tensor:
    """Nearest (pixel centres) resize of class ids (H, W) or masks (N, H, W), then turned; itself where nothing is to be
    done."""
    rows = _nearest(labels_HW.shape[-2], size[0], upside_down)
    columns = _nearest(labels_HW.shape[-1], size[1], mirrored)
    if rows is None and columns is None:
        return labels_HW
    ids_HW = labels_HW.numpy()  # NumPy picks rows and columns 7 times faster than torch's indexing
    few_rows_first = size[0] < labels_HW.shape[-2]
    # All are inside, and "wrap" is the cheapest way not to look.
    if rows is not None and few_rows_first:
        ids_HW = ids_HW.take(rows, axis=-2, mode="wrap")
    if columns is not None:
        ids_HW = ids_HW.take(columns, axis=-1, mode="wrap")
    if rows is not None and not few_rows_first:
        ids_HW = ids_HW.take(rows, axis=-2, mode="wrap")
    return from_numpy(ids_HW)


def _nearest(source: int, out: int, turned: bool) -> npt.NDArray[np.intp] | None:
    """The places of `source` that are shown at 0, 1, ... `out` - 1; None where each shows itself."""
    if source == out and not turned:
        return None
    places = ((np.arange(out) + 0.5) * (source / out)).astype(np.intp)
    return places[::-1] if turned else places
