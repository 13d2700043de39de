"""What an image counts as: its level in each of some statistics, all of them whole numbers. Part of `drift`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from segpipe.predictions import SURE_SCORE, Detections, LabelMap, PanopticMap, Prediction, level_probabilities
from segpipe.types import ClassInfo, ImageLook

Levels = Mapping[str, int]  # of one image: its level in each statistic
Counts = Mapping[str, Mapping[str, int]]  # of many: statistic -> level -> images
UNSURE = "uncertainty"
SHARE, OBJECTS = "share of ", "number of "
THOUSAND, GREYS = 1000, 255


def of_look(look: ImageLook) -> Levels:
    """How an image looks: brightness and contrast (mean and mean standard deviation of its channels), warmth (red less
    blue) and tint (green less the mean of red and blue), all in greys of 0..255, and its sides in pixels."""
    red, green, blue = look.rgb_sum
    pixels = look.height * look.width
    # In whole numbers as long as that goes: the variance of each channel times pixels squared.
    spread = sum(square * pixels - total**2 for total, square in zip(look.rgb_sum, look.rgb_square_sum, strict=True))
    return {
        "brightness": (red + green + blue) // (3 * pixels),
        "contrast": math.isqrt(max(0, spread) // (3 * pixels**2)),
        "warmth": (red - blue) // pixels,
        "tint": (2 * green - red - blue) // (2 * pixels),
        "width": look.width,
        "height": look.height,
    }


def of_prediction(prediction: Prediction, classes: Sequence[ClassInfo]) -> Levels:
    """What a model says of an image: of a map the share of each class in thousandths of the pixels, rounded up; of
    objects how many of each have a score of 0.5. With `UNSURE` in thousandths: how far the likeliest class of a pixel,
    or the score of a found object, is from 1 on average; of keypoints nothing else is there to say."""
    if isinstance(prediction, LabelMap):
        found_K = np.bincount(prediction.ids_HW.ravel(), minlength=len(classes))
        return _shares(found_K.tolist(), prediction.ids_HW.size, classes) | _unsure(_probabilities(prediction))
    if isinstance(prediction, PanopticMap):
        pixels = [0.0] * len(classes)
        for segment in prediction.segments:
            pixels[segment.class_id] += segment.area
        return _shares([round(each) for each in pixels], prediction.ids_HW.size, classes)
    sure_N = prediction.scores_N >= SURE_SCORE
    if isinstance(prediction, Detections):
        found_K = np.bincount(prediction.class_ids_N[sure_N], minlength=len(classes))
        numbers = {f"{OBJECTS}{info.name}": int(n) for info, n in zip(classes, found_K, strict=True)}
        return numbers | _unsure(prediction.scores_N[sure_N])
    return _unsure(prediction.points_NP3[..., 2].clip(0, 1))


def counted(images: Iterable[Levels]) -> dict[str, dict[str, int]]:
    """How many of the images have which level of each statistic, sorted: the same for any order of theirs."""
    counts: dict[str, Counter[int]] = {}
    for levels in images:
        for statistic, level in levels.items():
            counts.setdefault(statistic, Counter())[level] += 1
    return {name: {str(level): n for level, n in sorted(found.items())} for name, found in sorted(counts.items())}


def counted_by_group(images: Iterable[tuple[str, Levels]]) -> tuple[dict[str, dict[str, int]], ...]:
    """The same for the images of each group, of which each image tells the name; none where no group has two images."""
    groups: dict[str, list[Levels]] = {}
    for group, levels in images:
        groups.setdefault(group, []).append(levels)
    if all(len(own) == 1 for own in groups.values()):
        return ()
    return tuple(counted(own) for _, own in sorted(groups.items()))


def in_columns(images: Sequence[Levels]) -> dict[str, tuple[int, ...]]:
    """The levels of images by statistic, in order: how files hold them. All have the same statistics."""
    return {name: tuple(levels[name] for levels in images) for name in (images[0] if images else ())}


def in_rows(columns: Mapping[str, Sequence[int]]) -> Iterator[Levels]:
    """What `in_columns` was made of."""
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def _shares(found: Sequence[int], pixels: int, classes: Sequence[ClassInfo]) -> dict[str, int]:
    return {f"{SHARE}{info.name}": -(-THOUSAND * n // pixels) for info, n in zip(classes, found, strict=True)}


def _probabilities(prediction: LabelMap) -> npt.NDArray[np.floating] | None:
    """Of the likeliest class at each pixel of the grid, where the model says probabilities."""
    if prediction.levels_KP is None:
        return None
    sure_P: npt.NDArray[np.floating] = level_probabilities()[prediction.levels_KP.max(axis=0)]
    return sure_P


def _unsure(sure: npt.NDArray[np.floating] | None) -> dict[str, int]:
    """From how sure a model is of each pixel or object; of an image without any it is 0."""
    if sure is None:
        return {}
    return {UNSURE: round(THOUSAND * (1 - float(sure.mean()))) if sure.size else 0}
