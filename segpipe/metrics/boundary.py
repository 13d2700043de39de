"""How well outlines agree: Boundary IoU, and the boundaries of whole segment maps, of which boundary PQ is made
(`segments.py`), and of run lengths, of which boundary AP is (`coco_match.py`). Pure functions, without OpenCV.

Source: Cheng et al. 2021 (arXiv 2103.16562), `mask_to_boundary` of its published evaluator: a mask's boundary is what
d erosions by 3x3 take from it, with everything outside the image taken as background; d is the rounded share
`dilation_ratio` of the image's diagonal, at least 1. d such erosions are one by a square of side 2d + 1, so a pixel is
inside when that square around it is all of its own segment.

Letter legend: H W image size in pixels, h w size of a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe import masks
from segpipe.errors import InputError
from segpipe.metrics.arrays import Mask, as_mask

COCO_DILATION_RATIO = 0.02  # the paper's, for COCO and Cityscapes; it takes 0.008 for LVIS


def boundary_iou(prediction: Any, truth: Any, dilation_ratio: float = COCO_DILATION_RATIO) -> float:
    """IoU of the boundaries of two (H, W) masks, bool or integer, non-zero = inside; NumPy or torch. In 0..1.

    0.0 where both are empty, which is what COCO's mask IoU says of them. Raises InputError on other shapes and types.
    """
    predicted, true = as_mask(prediction, "prediction", "boundary"), as_mask(truth, "truth", "boundary")
    if predicted.shape != true.shape:
        raise InputError(f"boundary IoU: prediction {predicted.shape} and truth {true.shape} must be alike")
    predicted, true = mask_boundary(predicted, dilation_ratio), mask_boundary(true, dilation_ratio)
    union = np.count_nonzero(predicted | true)
    return float(np.count_nonzero(predicted & true) / union) if union else 0.0


def mask_boundary(mask: Any, dilation_ratio: float = COCO_DILATION_RATIO) -> Mask:
    """The boundary of a (H, W) mask, bool (H, W): its pixels within d of the background or of the image's border."""
    inside = as_mask(mask, "mask", "boundary")
    return inside & segment_boundaries(inside, dilation_ratio)


def rle_boundary(rle: Mapping[str, Any], dilation_ratio: float = COCO_DILATION_RATIO) -> dict[str, Any]:
    """The boundary of a mask as COCO's run lengths, with their size, from such; costs what the mask's rectangle costs.

    Raises BadSampleError where they do not decode.
    """
    height, width = rle["size"]
    top, left, inside_hw = masks.crop_of_runs(masks.rle_runs(rle, height, width), height)
    # Around its rectangle a mask has nothing but background and the image's border, which are alike here.
    inside_hw &= _boundaries(inside_hw, _dilation(height, width, dilation_ratio))
    return {"size": [height, width], "counts": masks.encode_crop(inside_hw, top=top, left=left, size=(height, width))}


def segment_boundaries(segments_HW: npt.NDArray[Any], dilation_ratio: float = COCO_DILATION_RATIO) -> Mask:
    """The boundaries of all segments of a map of ids (H, W) at once, bool (H, W)."""
    height, width = segments_HW.shape
    return _boundaries(segments_HW, _dilation(height, width, dilation_ratio))


def _boundaries(segments_hw: npt.NDArray[Any], reach: int) -> Mask:
    """The pixels that lie within `reach` of another segment or of the border.

    Others are those of whose square the rows are each of one id, and the column through them is too.
    """
    height, width = segments_hw.shape
    if 2 * reach + 1 > min(height, width):  # no square fits
        return np.ones((height, width), dtype=np.bool_)
    rows_alike = _run_of(segments_hw[:, 1:] == segments_hw[:, :-1], 2 * reach, axis=1)
    columns_alike = _run_of(segments_hw[1:] == segments_hw[:-1], 2 * reach, axis=0)
    square_alike = _run_of(rows_alike, 2 * reach + 1, axis=0) & columns_alike[:, reach : width - reach]
    boundary: Mask = np.ones((height, width), dtype=np.bool_)
    boundary[reach : height - reach, reach : width - reach] = ~square_alike
    return boundary


def _dilation(height: int, width: int, dilation_ratio: float) -> int:
    if not (math.isfinite(dilation_ratio) and dilation_ratio > 0):
        raise InputError(f"boundary: dilation_ratio must be above 0 (0.02 on COCO), found {dilation_ratio}")
    return max(1, round(dilation_ratio * math.sqrt(height**2 + width**2)))


def _run_of(flags: Mask, length: int, axis: int) -> Mask:
    """Where `length` flags from here on along `axis` are all set; shorter by length - 1. Spans double, not creep."""
    flags, span = np.moveaxis(flags, axis, 0), 1
    while span < length:
        step = min(span, length - span)
        flags = flags[:-step] & flags[step:]
        span += step
    return np.moveaxis(flags, 0, axis)
