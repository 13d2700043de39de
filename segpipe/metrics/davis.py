"""How well an object is followed through a video, as DAVIS measures it: region similarity J, contour accuracy F, and
what becomes of both over the frames. Pure functions, without OpenCV.

Source: Perazzi et al. 2016 (A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation), as the
evaluator of DAVIS 2017 computes it (github.com/davisvideochallenge/davis2017-evaluation). One departure: it keeps the
places of the quarters in 8 bits, and loses them in sequences of more than 256 frames.

Which frames count is for the caller to say. The semi-supervised track, in which the mask of the first frame is given,
leaves out the first and the last, `davis_scores(predictions[1:-1], truths[1:-1])`; the unsupervised one counts all.

Letter legend: H W image size in pixels, h w size of a part of it, T frames, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.arrays import Mask, as_array, as_mask
from segpipe.metrics.bootstrap import mean_ratio

DAVIS_BOUND = 0.008  # of the image's diagonal: 8 pixels of 854x480
FOUND = 0.5  # a frame counts for recall above it
QUARTERS = 4


def region_similarity(prediction: Any, truth: Any, *, void: Any = None) -> float:
    """J, the IoU of two (H, W) masks of an object in a frame, in 0..1; 1.0 where both are empty.

    Masks are bool, or integer with one value besides 0; NumPy or torch. Pixels of the mask `void` count for nothing.
    Raises InputError on other shapes and types, and on a map of several objects.
    """
    return _region(*_pair(prediction, truth, void))


def contour_accuracy(prediction: Any, truth: Any, bound: float = DAVIS_BOUND, *, void: Any = None) -> float:
    """F, the harmonic mean of how much of the prediction's contour lies near the truth's and the other way round, 0..1.

    Near is within `bound` pixels, or below 1 within that share of the image's diagonal, rounded up. Contours lie inside
    the image: its border is none, and a mask that fills it has none. 1.0 where neither mask has a contour, 0.0 where
    one has none. Masks and errors are as in `region_similarity`; also raises InputError on a bound below 0.
    """
    return _contour(*_pair(prediction, truth, void), bound)


def davis_scores(
    predictions: Sequence[Any], truths: Sequence[Any], *, voids: Sequence[Any] | None = None
) -> dict[str, float]:
    """What DAVIS says of an object in a sequence: J_mean J_recall J_decay F_mean F_recall F_decay JF_mean.

    Items are the (H, W) masks of one object, frame by frame; or (T, H, W), the frames of an object each, over which
    the numbers are averaged as the benchmark does. Recall is the share of frames above 0.5, decay the mean of the first
    quarter minus that of the last, negative where a model gets better; JF_mean is the mean of J_mean and F_mean.

    Raises InputError naming the frame, and where there is none or not as many truths, or voids, as predictions.
    """
    if len(predictions) and as_array(predictions[0]).ndim == 3:
        items = _together(predictions, truths, voids, "DAVIS, objects")
        objects = [_object_scores(*item, where=f"DAVIS, object {number}") for number, item in enumerate(items)]
    else:
        objects = [_object_scores(predictions, truths, voids, where="DAVIS")]
    return {name: float(np.mean([scores[name] for scores in objects])) for name in objects[0]}


def dataset_jf(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """J&F of summed counts (..., K, 3), shape (...): a `statistic`.

    A sequence counts the sum over its objects of J_mean, the same of F_mean, and its objects, so that of all sequences
    together follows the mean over objects of JF_mean: every object counts alike, however long its sequence. Over
    several classes it is the mean (seen and unseen ones: the G of YouTube-VOS); those without an object drop out.
    """
    table = np.asarray(counts, dtype=np.float64)
    return mean_ratio(np.stack([(table[..., 0] + table[..., 1]) / 2, table[..., 2]], axis=-1))


def _object_scores(
    predictions: Sequence[Any], truths: Sequence[Any], voids: Sequence[Any] | None, where: str
) -> dict[str, float]:
    frames = enumerate(_together(predictions, truths, voids, f"{where}, frames"))
    pairs = (_pair(*frame, where=f"{where}, frame {number}") for number, frame in frames)
    regions_T, contours_T = np.array([(_region(*pair), _contour(*pair, DAVIS_BOUND)) for pair in pairs]).T
    told = {**_over_time("J", regions_T), **_over_time("F", contours_T)}
    return told | {"JF_mean": (told["J_mean"] + told["F_mean"]) / 2}


def _together(
    predictions: Sequence[Any], truths: Sequence[Any], voids: Sequence[Any] | None, where: str
) -> list[tuple[Any, Any, Any]]:
    blank = [None] * len(truths) if voids is None else voids
    if not len(predictions) == len(truths) == len(blank) >= 1:
        raise InputError(
            f"{where}: {len(predictions)} predictions, {len(truths)} truths"
            f"{'' if voids is None else f', {len(voids)} voids'}; expected as many of each, and at least one"
        )
    return list(zip(predictions, truths, blank, strict=True))


def _over_time(name: str, values_T: npt.NDArray[np.float64]) -> dict[str, float]:
    # Neighbouring quarters share the frame between them, and half a frame is rounded up.
    edges = np.rint(np.linspace(1, len(values_T), QUARTERS + 1) + 1e-10).astype(np.int64) - 1
    first, last = values_T[: edges[1] + 1], values_T[edges[-2] :]
    return {
        f"{name}_mean": float(values_T.mean()),
        f"{name}_recall": float((values_T > FOUND).mean()),
        f"{name}_decay": float(first.mean() - last.mean()),
    }


def _pair(prediction: Any, truth: Any, void: Any, where: str = "DAVIS") -> tuple[Mask, Mask]:
    """Both masks, without what is void."""
    pair = [_mask_of_one(prediction, "prediction", where), _mask_of_one(truth, "truth", where)]
    counted = None if void is None else ~as_mask(void, "void", where)
    shapes = [mask.shape for mask in (*pair, counted) if mask is not None]
    if len(set(shapes)) > 1:
        told = ", ".join(
            f"{what} {shape}" for what, shape in zip(("prediction", "truth", "void"), shapes, strict=False)
        )
        raise InputError(f"{where}: {told}; expected masks of one size")
    predicted, true = pair if counted is None else (mask & counted for mask in pair)
    return predicted, true


def _mask_of_one(values: Any, what: str, where: str) -> Mask:
    array = as_array(values)
    mask = as_mask(array, what, where)
    if array.dtype.kind != "b" and (marked := array[mask]).size and (odd := marked[marked != marked[0]]).size:
        raise InputError(
            f"{where}: the {what} holds {marked[0]} and {odd[0]}; expected the mask of one object, with one value "
            "besides 0: give objects one by one, and pixels that do not count as void"
        )
    return mask


def _region(predicted: Mask, true: Mask) -> float:
    union = np.count_nonzero(predicted | true)
    return float(np.count_nonzero(predicted & true) / union) if union else 1.0


def _contour(predicted: Mask, true: Mask, bound: float) -> float:
    radius = _radius(predicted.shape, bound)
    crop = _surroundings(predicted | true)
    contours = [_contour_of(mask[crop]) for mask in (predicted, true)]
    lengths = [np.count_nonzero(contour) for contour in contours]
    if not all(lengths):
        return float(lengths[0] == lengths[1])
    near = [np.count_nonzero(one & _within(other, radius)) for one, other in (contours, contours[::-1])]
    precision, recall = (count / length for count, length in zip(near, lengths, strict=True))
    return float(2 * precision * recall / (precision + recall)) if any(near) else 0.0


def _radius(size: tuple[int, ...], bound: float) -> float:
    if not (math.isfinite(bound) and bound >= 0):
        raise InputError(
            f"contour accuracy: bound={bound}; expected pixels, or below 1 a share of the diagonal ({DAVIS_BOUND})"
        )
    diagonal = math.sqrt(size[0] ** 2 + size[1] ** 2)
    return min(bound, diagonal) if bound >= 1 else math.ceil(bound * diagonal)


def _surroundings(inside_HW: Mask) -> tuple[slice, slice]:
    """The rectangle in which all contours lie: that of the masks and a pixel more on every side that the image has."""
    rows, columns = (np.flatnonzero(inside_HW.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0), slice(0)
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _contour_of(mask_hw: Mask) -> Mask:
    """The pixels that differ from the next one to the right, below, or both, where the image has it."""
    contour: Mask = np.zeros_like(mask_hw)
    contour[:, :-1] |= mask_hw[:, :-1] != mask_hw[:, 1:]
    contour[:-1] |= mask_hw[:-1] != mask_hw[1:]
    contour[:-1, :-1] |= mask_hw[:-1, :-1] != mask_hw[1:, 1:]
    return contour


def _within(contour_hw: Mask, radius: float) -> Mask:
    """The pixels within `radius` of a contour, which is spread by a disk row by row: the short ones at its ends come
    first, so that each is the one before, grown. Exact; 0.2 ms a frame, where a distance transform takes 5.6."""
    height, width = contour_hw.shape
    near, spread, reach = np.zeros_like(contour_hw), contour_hw.copy(), 0
    for down in range(min(int(radius), height - 1), -1, -1):
        half = min(int(math.sqrt(radius**2 - down**2)), width - 1)
        while reach < half:
            reach += 1
            spread[:, reach:] |= contour_hw[:, :-reach]
            spread[:, :-reach] |= contour_hw[:, reach:]
        near[down:] |= spread[: height - down]
        near[: height - down] |= spread[down:]
    return near
