"""Two sides held against each other, and what is said of it. Part of `drift`.

Legend: B bins, G groups, L levels.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.drift import chance
from segpipe.drift.levels import GREYS, OBJECTS, SHARE, THOUSAND, UNSURE, Counts, Levels

THRESHOLD = 0.2
FALSE_ALARMS = 0.01  # of the calls about images like those of the training, at most
MOST_BINS, IMAGES_A_BIN = 10, 5
_BELL_SIDES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """One statistic of both sides: their `distance` (0..1), and `chance`, at most how often any of the statistics comes
    to as much where both sides are of one kind (only looked for where it matters: else 1).

    `is_undecided` says that no other way to share the groups out puts the sides further apart, and that there are too
    few ways to call it moved. `before` and `now` are the levels that 10, 50 and 90 % of the images do not exceed,
    `sentence` says the same for people.
    """

    statistic: str
    distance: float
    chance: float
    has_moved: bool
    is_undecided: bool
    before: tuple[int, int, int]
    now: tuple[int, int, int]
    images_before: int
    images: int
    sentence: str


def compare(
    before: Counts,
    now: Counts,
    *,
    groups: tuple[Sequence[Counts], Sequence[Counts]] | None = None,
    threshold: float = THRESHOLD,
    false_alarms: float = FALSE_ALARMS,
) -> tuple[Shift, ...]:
    """Every statistic that both sides have, in the order of `in_order`.

    One has moved where its distance is `threshold` or more, and images of one kind come to that so rarely that all
    statistics together give a false alarm in `false_alarms` of the calls at most. `groups` are the same images, each
    side's in groups whose images are alike: then whole groups are exchanged, not images.
    """
    names = sorted(set(before) & set(now))
    if groups is None:
        few = False
        held = {name: _of_images(before[name], now[name], threshold, false_alarms, len(names)) for name in names}
    else:
        few = chance.are_few(len(groups[0]), len(groups[1]), false_alarms)
        held = _of_groups(names, *groups, false_alarms) if names else {}
    shifts = []
    for name in names:
        apart, likely, is_furthest = held[name]
        was, is_now = _quantiles(before[name]), _quantiles(now[name])
        is_harmless = name == UNSURE and sum(is_now) <= sum(was)
        matters = apart >= threshold and not is_harmless
        verb = "is spread otherwise," if was[1] == is_now[1] else "went"
        shift = Shift(
            statistic=name,
            distance=round(apart, 4),
            chance=likely if matters else 1.0,
            has_moved=matters and likely <= false_alarms,
            is_undecided=matters and few and is_furthest and likely > false_alarms,
            before=was,
            now=is_now,
            images_before=_images(before[name]),
            images=_images(now[name]),
            sentence=f"{name} {verb} from {_told(name, was)} to {_told(name, is_now)}, distance {apart:.2f}",
        )
        shifts.append(shift)
    return in_order(shifts)


def in_order(shifts: Iterable[Shift]) -> tuple[Shift, ...]:
    """Those that have moved first, then the undecided ones; the furthest one first of all."""
    return tuple(
        sorted(shifts, key=lambda each: (not each.has_moved, not each.is_undecided, -each.distance, each.statistic))
    )


def most_unlike(
    images: Iterable[tuple[str, Levels]], before: Counts, now: Counts, moved: Sequence[str], *, at_most: int
) -> tuple[str, ...]:
    """The names of the images that lie furthest into the statistics that have `moved`: by how much more usual their
    levels are now than before (the sum of the logarithms), and of equals those of which the model is least sure."""
    gains: dict[str, dict[int, float]] = {}
    for statistic in moved:
        sides = (before[statistic], now[statistic])
        bin_of, sides_2B = _binned(sides, min(map(_images, sides)))
        shares_2B = (sides_2B + 0.5) / (sides_2B.sum(axis=1, keepdims=True) + 1)
        gain_B = np.log2(shares_2B[1] / shares_2B[0])
        gains[statistic] = {int(level): float(gain_B[place]) for level, place in bin_of.items()}

    def place(image: tuple[str, Levels]) -> tuple[float, int, str]:
        name, own = image
        return -sum(gain[own[statistic]] for statistic, gain in gains.items()), -own.get(UNSURE, 0), name

    return tuple(name for name, _ in heapq.nsmallest(at_most, images, key=place))


def _of_images(
    before: Mapping[str, int], now: Mapping[str, int], threshold: float, false_alarms: float, statistics: int
) -> tuple[float, float, bool]:
    """Distance and chance of one of some statistics, among which the level is shared out (Bonferroni)."""
    sides_2B = _binned((before, now), min(_images(before), _images(now)))[1]
    apart = float(chance.distance(sides_2B))
    likely = chance.of_images(sides_2B, false_alarms / statistics) if apart >= threshold else 1.0
    return apart, min(1.0, statistics * likely), False


def _of_groups(
    names: Sequence[str], before: Sequence[Counts], now: Sequence[Counts], false_alarms: float
) -> dict[str, tuple[float, float, bool]]:
    """Distance and chance of each statistic, and whether it could not be further."""
    share = min(len(before), len(now)) / (len(before) + len(now))
    tables = []
    for name in names:
        parts = [group[name] for group in (*before, *now)]
        # By what the smaller side has on average: the bins must be the same however groups are exchanged.
        tables.append(_binned(parts, int(share * sum(map(_images, parts))))[1])
    found = (each_S.tolist() for each_S in chance.of_groups(len(before), tables, false_alarms))
    return dict(zip(names, zip(*found, strict=True), strict=True))


def _binned(parts: Sequence[Mapping[str, int]], smaller: int) -> tuple[dict[str, int], chance.Histogram]:
    """The bin of each level that occurs, and the images (G, B) of each part in each bin; the smaller side has so many
    images.

    Bins depend on all parts thrown together, so that drawing them apart anew changes none.
    """
    together: Counter[str] = Counter()
    for part in parts:
        together.update(part)
    levels = sorted(together, key=int)
    together_L = np.array([together[level] for level in levels], dtype=np.int64)
    bins = min(MOST_BINS, max(2, smaller // IMAGES_A_BIN))
    # A level goes where the middle of its images is, when all stand in a row.
    middle_L = 2 * together_L.cumsum() - together_L
    bin_of_L = np.unique(middle_L * bins // (2 * together_L.sum()), return_inverse=True)[1]
    bin_of = dict(zip(levels, bin_of_L.tolist(), strict=True))
    images_GB = np.zeros((len(parts), int(bin_of_L.max()) + 1), dtype=np.int64)
    for number, part in enumerate(parts):
        for level, images in part.items():
            images_GB[number, bin_of[level]] += images
    return bin_of, images_GB


def _images(side: Mapping[str, int]) -> int:
    return sum(side.values())


def _quantiles(side: Mapping[str, int]) -> tuple[int, int, int]:
    levels = sorted(map(int, side))
    reached = np.cumsum([side[str(level)] for level in levels])
    low, middle, high = (levels[int(np.searchsorted(reached, share * reached[-1]))] for share in _BELL_SIDES)
    return low, middle, high


def _told(name: str, quantiles: tuple[int, int, int]) -> str:
    """Of a statistic: the median, and where most images lie if that is not one value."""
    low, middle, high = map(_shown(name), quantiles)
    unit = " pixels" if name in ("width", "height") else "" if name.startswith(OBJECTS) else " %"
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low} to {high})"


def _shown(name: str) -> Callable[[int], str]:
    """A level as people read it: greys and thousandths as per cent."""
    if name in ("width", "height") or name.startswith(OBJECTS):
        return str
    most = THOUSAND if name == UNSURE or name.startswith(SHARE) else GREYS
    return lambda level: f"{100 * level / most:.3g}"
