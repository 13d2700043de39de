"""What a model says of one image, on the host: one type for each kind of answer. NumPy alone, picklable.

    Output -> task -> prediction -> meter -> EvalReport
                                `-> picture, served answer, file

The truth of an image comes in the same types, so that whoever draws or compares the two needs no third form.

Legend: N objects, P keypoints of an object, H W size of the image in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from segpipe.types import Segment

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
# What may be told beside the class of each pixel, where that is asked for: `LabelMap` has it.
Beside = Literal["levels", "confidence"]
# A probability p is level floor((logit(p) + 8) * 16), cut to 0..255: near 0 and 1, where most lie, steps are finest.
LEVELS, LOGITS = 256, 8.0
GRID_PIXELS = 4096
SMALL_SIDE = 360
# What pictures, pages and the score of an image take for an object that was found: a detector lists its doubts, too.
SURE_SCORE = 0.5


def grid(height: int, width: int) -> tuple[Integers, Integers]:
    """The pixels of an image at which probabilities are kept: rows (h, 1) and columns (1, w), evenly spread, h * w at
    most `GRID_PIXELS`."""
    step = max(1, int(np.ceil(np.sqrt(height * width / GRID_PIXELS))))
    rows, columns = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
    return rows[:, None], columns[None, :]


def nearest(length: int, scaled: int) -> npt.NDArray[np.int64]:
    """(scaled,) the place of a row, or column, of `length` pixels that each of `scaled` ones shows."""
    places: npt.NDArray[np.int64] = ((np.arange(scaled) + 0.5) * length / scaled).astype(np.int64)
    return places


def shrunk(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An image or a map (H, W, ...) as pages show it: at most `SMALL_SIDE` either way, by picking pixels, evenly
    spread. Maps of one image stay aligned, and no ids are mixed."""
    height, width = pixels.shape[:2]
    rows, columns = (nearest(side, n) for side, n in zip((height, width), shrunk_size(height, width), strict=True))
    picked: npt.NDArray[Any] = pixels[rows[:, None], columns]
    return picked


def shrunk_size(height: int, width: int) -> tuple[int, int]:
    """(h, w) of an image that was `shrunk`."""
    factor = min(1.0, SMALL_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def level_probabilities() -> Floats:
    """The probability in the middle of each level, (LEVELS,) float64."""
    logits: Floats = (np.arange(LEVELS) + 0.5) * (2 * LOGITS / LEVELS) - LOGITS
    return 1 / (1 + np.exp(-logits))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelMap:
    """A class for every pixel: `ids_HW` class ids, uint8 (or int32 where K > 255); in a truth also the ignored id.

    `uncertainty_HW` float32 in 0..0.25 is of a model that was asked several times, with dropout on: the variance of
    each class's probability, the mean over the classes. `confidence_HW` float32 in 0..1 is the probability of the
    class, of one that was asked how sure it is. `levels_KP` uint8 are the levels (`LEVELS`) of each class's probability
    at the P pixels of `grid`, row by row; of a model that gives such. Of the time that the prediction took,
    `beside_seconds` went into levels and confidence.
    """

    ids_HW: Integers
    uncertainty_HW: Floats | None = None
    levels_KP: Integers | None = None
    confidence_HW: Floats | None = None
    beside_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Detections:
    """N objects of an image of `size` (height, width), best first; masks may overlap.

    `class_ids_N` int64, `scores_N` float64 in 0..1, `boxes_N4` float64 x0, y0, x1, y1 in pixels, so that x1 - x0 counts
    columns. `masks` are COCO's compressed run lengths of the whole image, one an object; None from a detector of boxes.
    A truth has scores of 1 and leaves its crowds out. Where `boxes_given`, nobody had to find the objects.
    """

    size: tuple[int, int]
    class_ids_N: Integers
    scores_N: Floats
    boxes_N4: Floats
    masks: tuple[bytes, ...] | None = None
    boxes_given: bool = False

    def __len__(self) -> int:
        return len(self.class_ids_N)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PanopticMap:
    """A segment for every pixel: `ids_HW` int32 segment ids, 0 where nothing is said; `segments` tell their classes.

    Every id of the map is among the segments, and every segment has a pixel. Stuff is one segment a class.
    """

    ids_HW: Integers
    segments: tuple[Segment, ...]


def class_map(found: PanopticMap, *, nothing: int) -> Integers:
    """The class of every pixel (H, W), int32; `nothing` where none is said."""
    classes: Integers = np.full(int(found.ids_HW.max(initial=0)) + 1, nothing, dtype=np.int32)
    for segment in found.segments:
        classes[segment.segment_id] = segment.class_id
    return classes[found.ids_HW]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Poses:
    """The keypoints of N objects of an image of `size` (height, width), whose boxes were given.

    `class_ids_N` int64, `scores_N` float64 about 0..1, `boxes_N4` float64 as in `Detections`. `points_NP3` float64 are
    x, y in pixels ((0, 0) is the middle of the first one) and how sure each is, about 0..1. In a truth, whose scores
    are 1, that is COCO's visibility instead: 0 not labelled, 1 hidden, 2 seen.
    """

    size: tuple[int, int]
    class_ids_N: Integers
    scores_N: Floats
    boxes_N4: Floats
    points_NP3: Floats

    def __len__(self) -> int:
        return len(self.class_ids_N)


Prediction = LabelMap | Detections | PanopticMap | Poses


@overload
def surest(prediction: Detections, least_score: float) -> Detections: ...
@overload
def surest(prediction: Prediction, least_score: float) -> Prediction: ...
def surest(prediction: Prediction, least_score: float) -> Prediction:
    """Detections without the objects of a score below `least_score`, the others in their order. Any other prediction as
    it is: maps have one answer a pixel, and objects with keypoints were given."""
    if not isinstance(prediction, Detections):
        return prediction
    sure_N = prediction.scores_N >= least_score
    return replace(
        prediction,
        class_ids_N=prediction.class_ids_N[sure_N],
        scores_N=prediction.scores_N[sure_N],
        boxes_N4=prediction.boxes_N4[sure_N],
        masks=None if prediction.masks is None else tuple(prediction.masks[n] for n in np.flatnonzero(sure_N)),
    )
