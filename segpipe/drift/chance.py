"""How far two sides are apart, and how often as much comes about by chance. Part of `drift`.

Legend: B bins, D draws, G groups, S statistics.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Histogram = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
_DRAWS_AT_ONCE = 500


def distance(sides_2B: npt.NDArray[np.integer]) -> Numbers:
    """The Jensen-Shannon distance of pairs of histograms (..., 2, B): (...), 0..1."""
    p = sides_2B / sides_2B.sum(axis=-1, keepdims=True)
    mean = p.mean(axis=-2, keepdims=True)
    # A share of nothing adds nothing.
    terms = p * np.log2(np.divide(p, mean, out=np.ones_like(p), where=p > 0))
    found: Numbers = np.sqrt(np.maximum(terms.sum(axis=-1).mean(axis=-1), 0))
    return found


def of_images(sides_2B: Histogram, level: float) -> float:
    """At most how often two sides of as many images as these, drawn from both together, are as far apart.

    Ends early where that is no longer rare, by `level`. The same sides give the same answer: what is drawn follows from
    a constant.
    """
    generator, images = np.random.default_rng(0), int(sides_2B[1].sum())
    together_B, apart = sides_2B.sum(axis=0), float(distance(sides_2B))
    enough, drawn, as_far = math.ceil(2 / level), 0, 0
    while drawn < enough and (1 + as_far) / (1 + enough) <= level:
        now_DB = generator.multivariate_hypergeometric(together_B, images, size=_DRAWS_AT_ONCE, method="marginals")
        as_far += int((distance(np.stack([together_B - now_DB, now_DB], axis=1)) >= apart - 1e-12).sum())
        drawn += _DRAWS_AT_ONCE
    return (1 + as_far) / (1 + drawn)


def of_groups(before: int, tables: Sequence[Histogram], level: float) -> tuple[Numbers, Numbers, npt.NDArray[np.bool_]]:
    """How far apart the sides are in each statistic (S,), at most how often, when whole groups change sides, any
    statistic is as far out (S,), and whether no such change puts this one further apart (S,).

    `tables` (G, B) of each statistic are the images of each group in each bin; the first `before` groups are one side,
    the rest the other. A distance counts in standard deviations over all draws, and in each draw the furthest statistic
    stands for all (max T of Westfall and Young 1993, Resampling-Based Multiple Testing), so that the few draws which
    few groups allow need not be shared out among the statistics, as by Bonferroni or min P.
    """
    joined_GB = np.concatenate(tables, axis=1)
    edges = np.cumsum([table.shape[1] for table in tables])[:-1]
    sides = _sides(before, len(joined_GB) - before, _draws(level))
    parts_DS = []
    while some := list(itertools.islice(sides, _DRAWS_AT_ONCE)):
        side_DB = np.array([joined_GB[list(numbers)].sum(axis=0) for numbers in some])
        pairs_D2B = np.stack([side_DB, joined_GB.sum(axis=0) - side_DB], axis=1)
        parts_DS.append(np.stack([distance(pair_D2B) for pair_D2B in np.split(pairs_D2B, edges, axis=2)], axis=1))
    apart_DS = np.concatenate(parts_DS)
    spread_S = apart_DS.std(axis=0)
    far_DS = (apart_DS - apart_DS.mean(axis=0)) / np.where(spread_S > 1e-9, spread_S, np.inf)
    # A little less: sums of floats in another order.
    chance_S = (far_DS.max(axis=1)[:, None] >= far_DS[0] - 1e-6).mean(axis=0)
    return apart_DS[0], chance_S, apart_DS[0] >= apart_DS.max(axis=0) - 1e-6


def are_few(before: int, now: int, level: float) -> bool:
    """Whether groups can be shared out in so few ways that none of these is as rare as a level."""
    names = 2 if before == now else 1  # two sides of equally many groups may change their names
    return names > level * _ways(before, now, _draws(level))


def enough_groups(before: int, level: float) -> int:
    """The fewest groups that can be told from so many others at a level."""
    return next(now for now in itertools.count(1) if not are_few(before, now, level))


def _draws(level: float) -> int:
    """How many draws tell what is as rare as a level. Where there are no more ways to share the groups out, each of
    these is tried instead."""
    return math.ceil(10 / level)


def _sides(before: int, now: int, most: int) -> Iterator[Sequence[int]]:
    """The groups of the side that has fewer, first as they are: then in all other ways, where these are no more than
    `most`, or in so many as are drawn."""
    groups = before + now
    present = tuple(range(before) if before < now else range(before, groups))
    yield present
    if _ways(before, now, most) <= most:
        yield from (numbers for numbers in itertools.combinations(range(groups), len(present)) if numbers != present)
        return
    generator = np.random.default_rng(0)
    for _ in range(most):
        yield generator.choice(groups, size=len(present), replace=False, shuffle=False).tolist()


def _ways(before: int, now: int, most: int) -> int:
    """In how many ways groups can be shared out, counted no further than `most`."""
    ways = 1
    for number in range(1, min(before, now) + 1):
        if ways > most:
            break
        ways = ways * (before + now - number + 1) // number
    return ways
