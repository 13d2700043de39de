"""What a model says of one image, on the host: one type for each kind of answer. NumPy alone, picklable.

    Output -> task -> prediction -> meter -> EvalReport
                                `-> picture, served answer, file

The truth of an image comes in the same types, so that whoever draws or compares the two needs no third form.

Legend: N objects, P keypoints of an object, H W size of the image in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.types import Segment

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelMap:
    """A class for every pixel: `ids_HW` class ids, uint8 (or int32 where K > 255); in a truth also the ignored id.

    `uncertainty_HW` float32 in 0..0.25 is of a model that was asked several times, with dropout on: the variance of
    each class's probability, the mean over the classes. Of another that was asked how unsure it is, it is 1 - the
    probability of the class, in 0..1.
    """

    ids_HW: Integers
    uncertainty_HW: Floats | None = None


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
