"""Whether images are like those of a training, and a model's answers like those it was scored on: pure counting.

An image has a level in each of some statistics, all of them integers: brightness, contrast, warmth and tint, its sides,
how unsure the model is, and of each class its share of the pixels or its number of objects. What a training rests on is
how many images have which level, so that parts add up in any order to the same (`counted`). `compare` holds the images
of a call against that:

* how far two distributions are apart is the Jensen-Shannon distance (Lin 1991, IEEE Trans. Inf. Theory 37; a metric:
  Endres and Schindelin 2003) with logarithms of base 2, from 0 to 1, over at most ten bins of equally many images of
  both together, and as few as leave five images of the smaller side in each (Cochran 1954, Biometrics 10). At half a
  standard deviation of a bell curve it is 0.2, where the population stability index passes its usual 0.25.
* whether as much comes about by chance is a permutation test: both sides are thrown together and drawn apart anew
  (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9). That is exact for any number of images, so that few of them
  raise no alarm; the level is shared by the statistics (Bonferroni).

It takes images as independent of each other: frames of one drive are alike, and are told as what they are, a narrow
choice of what the training saw.

Legend: B bins, D draws.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.predictions import Detections, LabelMap, PanopticMap, Prediction, level_probabilities
from segpipe.types import ClassInfo, ImageLook

Levels = Mapping[str, int]  # of one image: its level in each statistic
Counts = Mapping[str, Mapping[str, int]]  # of many: statistic -> level -> images
THRESHOLD = 0.2
FALSE_ALARMS = 0.01  # of the calls about images like those of the training, at most
MOST_BINS, IMAGES_A_BIN = 10, 5
LEAST_SCORE = 0.5  # of an object that counts as found
# Of what may fall without harm only a rise is told: of images that it learnt from, a model is surer.
UNSURE = "uncertainty"
_SHARE, _OBJECTS = "share of ", "number of "
_THOUSAND, _GREYS = 1000, 255
_DRAWS_AT_ONCE = 500
_BELL_SIDES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """One statistic of both sides: their `distance` (0..1), and `chance`, at most how often images of one kind come to
    as much (only looked for where it matters: else 1). `before` and `now` are the levels that 10, 50 and 90 % of the
    images do not exceed, `sentence` says the same for people."""

    statistic: str
    distance: float
    chance: float
    has_moved: bool
    before: tuple[int, int, int]
    now: tuple[int, int, int]
    images_before: int
    images: int
    sentence: str


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
    sure_N = prediction.scores_N >= LEAST_SCORE
    if isinstance(prediction, Detections):
        found_K = np.bincount(prediction.class_ids_N[sure_N], minlength=len(classes))
        numbers = {f"{_OBJECTS}{info.name}": int(n) for info, n in zip(classes, found_K, strict=True)}
        return numbers | _unsure(prediction.scores_N[sure_N])
    return _unsure(prediction.points_NP3[..., 2].clip(0, 1))


def counted(images: Iterable[Levels]) -> dict[str, dict[str, int]]:
    """How many of the images have which level of each statistic, sorted: the same for any order of theirs."""
    counts: dict[str, Counter[int]] = {}
    for levels in images:
        for statistic, level in levels.items():
            counts.setdefault(statistic, Counter())[level] += 1
    return {name: {str(level): n for level, n in sorted(found.items())} for name, found in sorted(counts.items())}


def in_columns(images: Sequence[Levels]) -> dict[str, tuple[int, ...]]:
    """The levels of images by statistic, in order: how files hold them. All have the same statistics."""
    return {name: tuple(levels[name] for levels in images) for name in (images[0] if images else ())}


def in_rows(columns: Mapping[str, Sequence[int]]) -> Iterator[Levels]:
    """What `in_columns` was made of."""
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def compare(before: Counts, now: Counts, *, threshold: float = THRESHOLD) -> tuple[Shift, ...]:
    """Every statistic that both sides have; those that have moved come first, the furthest one first of all.

    One has moved where its distance is `threshold` or more, and images of one kind come to that so rarely that all
    statistics together give a false alarm in `FALSE_ALARMS` of the calls at most.
    """
    names = sorted(set(before) & set(now))
    shifts = [_shift(name, before[name], now[name], threshold, FALSE_ALARMS / len(names)) for name in names]
    return tuple(sorted(shifts, key=lambda shift: (not shift.has_moved, -shift.distance, shift.statistic)))


def most_unlike(
    images: Iterable[tuple[str, Levels]], before: Counts, now: Counts, moved: Sequence[str], *, at_most: int
) -> tuple[str, ...]:
    """The names of the images that lie furthest into the statistics that have `moved`: by how much more usual their
    levels are now than before (the sum of the logarithms), and of equals those of which the model is least sure."""
    gains: dict[str, dict[int, float]] = {}
    for statistic in moved:
        levels, sides_2B, bin_of = _binned(before[statistic], now[statistic])
        shares_2B = (sides_2B + 0.5) / (sides_2B.sum(axis=1, keepdims=True) + 1)
        gains[statistic] = dict(zip(levels, np.log2(shares_2B[1] / shares_2B[0])[bin_of].tolist(), strict=True))

    def place(image: tuple[str, Levels]) -> tuple[float, int, str]:
        name, own = image
        return -sum(gain[own[statistic]] for statistic, gain in gains.items()), -own.get(UNSURE, 0), name

    return tuple(name for name, _ in heapq.nsmallest(at_most, images, key=place))


def distance(sides_2B: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """The Jensen-Shannon distance of pairs of histograms (..., 2, B): (...), 0..1."""
    p = sides_2B / sides_2B.sum(axis=-1, keepdims=True)
    mean = p.mean(axis=-2, keepdims=True)
    # A share of nothing adds nothing.
    terms = p * np.log2(np.divide(p, mean, out=np.ones_like(p), where=p > 0))
    found: npt.NDArray[np.float64] = np.sqrt(np.maximum(terms.sum(axis=-1).mean(axis=-1), 0))
    return found


def _shift(name: str, before: Mapping[str, int], now: Mapping[str, int], threshold: float, level: float) -> Shift:
    _, sides_2B, _ = _binned(before, now)
    apart = float(distance(sides_2B))
    was, is_now = _quantiles(before), _quantiles(now)
    is_harmless = name == UNSURE and sum(is_now) <= sum(was)
    verb = "is spread otherwise," if was[1] == is_now[1] else "went"
    chance = _chance(sides_2B, apart, level) if apart >= threshold and not is_harmless else 1.0
    return Shift(
        statistic=name,
        distance=round(apart, 4),
        chance=chance,
        has_moved=chance <= level,
        before=was,
        now=is_now,
        images_before=sum(before.values()),
        images=sum(now.values()),
        sentence=f"{name} {verb} from {_told(name, was)} to {_told(name, is_now)}, distance {apart:.2f}",
    )


def _binned(
    before: Mapping[str, int], now: Mapping[str, int]
) -> tuple[list[int], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The levels that occur, the images (2, B) of both sides in each bin, and the bin of each level.

    Bins depend on both sides thrown together alone, so that drawing them apart anew changes none.
    """
    levels = sorted({int(level) for side in (before, now) for level in side})
    sides_2L = np.array([[side.get(str(level), 0) for level in levels] for side in (before, now)], dtype=np.int64)
    together_L = sides_2L.sum(axis=0)
    bins = min(MOST_BINS, max(2, int(sides_2L.sum(axis=1).min()) // IMAGES_A_BIN))
    # A level goes where the middle of its images is, when all stand in a row.
    middle_L = 2 * together_L.cumsum() - together_L
    bin_of = np.unique(middle_L * bins // (2 * together_L.sum()), return_inverse=True)[1]
    sides_2B = np.stack([np.bincount(bin_of, weights=side_L) for side_L in sides_2L]).astype(np.int64)
    return levels, sides_2B, bin_of


def _chance(sides_2B: npt.NDArray[np.int64], apart: float, level: float) -> float:
    """At most how often two sides as large as these, drawn from both together, are `apart` or more.

    Ends early where that is no longer rare. The same sides give the same answer: what is drawn follows from a constant.
    """
    generator, images = np.random.default_rng(0), int(sides_2B[1].sum())
    together_B = sides_2B.sum(axis=0)
    enough, drawn, as_far = math.ceil(2 / level), 0, 0
    while drawn < enough and (1 + as_far) / (1 + enough) <= level:
        now_DB = generator.multivariate_hypergeometric(together_B, images, size=_DRAWS_AT_ONCE, method="marginals")
        as_far += int((distance(np.stack([together_B - now_DB, now_DB], axis=1)) >= apart - 1e-12).sum())
        drawn += _DRAWS_AT_ONCE
    return (1 + as_far) / (1 + drawn)


def _quantiles(side: Mapping[str, int]) -> tuple[int, int, int]:
    levels = sorted(map(int, side))
    reached = np.cumsum([side[str(level)] for level in levels])
    low, middle, high = (levels[int(np.searchsorted(reached, share * reached[-1]))] for share in _BELL_SIDES)
    return low, middle, high


def _told(name: str, quantiles: tuple[int, int, int]) -> str:
    """Of a statistic: the median, and where most images lie if that is not one value."""
    low, middle, high = map(_shown(name), quantiles)
    unit = " pixels" if name in ("width", "height") else "" if name.startswith(_OBJECTS) else " %"
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low} to {high})"


def _shown(name: str) -> Callable[[int], str]:
    """A level as people read it: greys and thousandths as per cent."""
    if name in ("width", "height") or name.startswith(_OBJECTS):
        return str
    most = _THOUSAND if name == UNSURE or name.startswith(_SHARE) else _GREYS
    return lambda level: f"{100 * level / most:.3g}"


def _shares(found: Sequence[int], pixels: int, classes: Sequence[ClassInfo]) -> dict[str, int]:
    return {f"{_SHARE}{info.name}": -(-_THOUSAND * n // pixels) for info, n in zip(classes, found, strict=True)}


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
    return {UNSURE: round(_THOUSAND * (1 - float(sure.mean()))) if sure.size else 0}
