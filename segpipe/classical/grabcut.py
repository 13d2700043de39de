"""GrabCut: the object in a box, by OpenCV: colours of inside and outside, and a cut between them, in turn.

GrabCut: Interactive Foreground Extraction using Iterated Graph Cuts, Rother, Kolmogorov, Blake, 2004, ACM Transactions
on Graphics 23(3): what lies outside of the box is background; inside, a mixture of five Gaussians a side tells how
likely a colour is of either, a minimum cut decides, and the mixtures are fitted anew.

Its cost of a border is made for objects that fill a photograph: a small one costs less as background. So what lies in a
small box is enlarged first. (Mean IoU of 67 objects of COCO and of 66 of made-up scenes of 270 x 360, in their boxes:
0.29 and 0.58 as they are, 0.46 and 0.68 from 128 pixels on, 0.52 and 0.73 from 256, which took twice as long.)

Letter legend: H W image size, M boxes, h w size of what is looked at.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

GAUSSIANS = 5  # of each mixture, as OpenCV and the paper have it: fewer pixels than these cannot be told apart


def masks_of(
    image_HW3: npt.NDArray[np.uint8],
    boxes_M4: npt.NDArray[np.floating[Any]],
    *,
    iterations: int,
    context: float,
    least_side: int,
) -> npt.NDArray[np.bool_]:
    """(M, H, W) the object in each box, x0, y0, x1, y1 in pixels, which may reach beyond the image.

    Of the image, that is looked at which lies around the box, on each side `context` times the box's own, enlarged so
    that the box's longer side has at least `least_side` pixels. Where hardly a pixel lies within or around (the box is
    all of the image), nothing tells the two apart: the mask is the box.
    """
    height, width = image_HW3.shape[:2]
    masks_MHW = np.zeros((len(boxes_M4), height, width), dtype=np.bool_)
    for mask_HW, (x0, y0, x1, y1) in zip(masks_MHW, boxes_M4.tolist(), strict=True):
        inside, around = (
            (
                slice(max(0, math.floor(y0 - more * (y1 - y0))), min(height, math.ceil(y1 + more * (y1 - y0)))),
                slice(max(0, math.floor(x0 - more * (x1 - x0))), min(width, math.ceil(x1 + more * (x1 - x0)))),
            )
            for more in (0.0, context)
        )
        mask_HW[inside] = True
        window_hw = mask_HW[around]
        if min(np.count_nonzero(window_hw), np.count_nonzero(~window_hw)) >= GAUSSIANS:
            mask_HW[around] = _cut(image_HW3[around], window_hw, iterations, least_side / max(mask_HW[inside].shape))
    return masks_MHW


def _cut(
    image_hw3: npt.NDArray[np.uint8], box_hw: npt.NDArray[np.bool_], iterations: int, factor: float
) -> npt.NDArray[np.bool_]:
    """(h, w) the object in the box; looked at `factor` times as large where that is above 1."""
    import cv2

    h, w = box_hw.shape
    seen = (w, h) if factor <= 1 else (round(w * factor), round(h * factor))
    # Blue first, as its images are; the method itself treats all channels alike.
    image = cv2.resize(np.ascontiguousarray(image_hw3[..., ::-1]), seen, interpolation=cv2.INTER_CUBIC)
    state = cv2.resize(
        np.where(box_hw, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8), seen, interpolation=cv2.INTER_NEAREST
    )
    cv2.setRNGSeed(0)  # of this thread: the mixtures begin with clusters that are drawn
    cv2.grabCut(image, state, None, None, None, iterations, cv2.GC_INIT_WITH_MASK)
    is_object = ((state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)).astype(np.float32)
    # A pixel is of the object where at least half of it is.
    found_hw: npt.NDArray[np.bool_] = (cv2.resize(is_object, (w, h), interpolation=cv2.INTER_AREA) >= 0.5) & box_hw
    return found_hw
