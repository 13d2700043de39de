"""Which of the scored images are taken: those with the highest scores that are not like each other.

The frames of a video are all unsure for one and the same reason, and labelling one of them teaches what ten would. So
near copies are taken once, a group may be limited, and of the most uncertain ones those are chosen that lie farthest
apart: uncertainty first, then k-centre, as Yang et al. 2017 (Suggestive Annotation, arXiv 1706.04737) order the two,
the second one by the greedy 2-approximation of Sener & Savarese 2018 (arXiv 1708.00489, algorithm 1). They measure
distance between features of the network; here it is the bits in which perceptual hashes differ, which every image has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segpipe import masks


class Candidate(NamedTuple):
    """A scored image: `group` is what it belongs to (a clip, a folder), `look` its perceptual hash of 64 bits."""

    name: str
    score: float
    group: str
    look: int


class Choice(NamedTuple):
    """Places of the chosen candidates, highest score first; what was passed over on the way to them, by reason; and how
    many there were to choose the most unlike from."""

    chosen: tuple[int, ...]
    near_copies: int
    group_full: int
    pool: int


def choose(candidates: Sequence[Candidate], count: int, *, spread: int, per_group: int | None = None) -> Choice:
    """`count` candidates at most: out of `spread` times as many with the highest scores (ties go by name) those that
    are least like each other, the highest score always among them.

    One that differs from another in 6 bits of its look or fewer counts as a near copy of it; at most `per_group` of a
    group are taken.
    """
    pool, pool_looks = list[int](), np.empty(min(count * spread, len(candidates)), dtype=np.uint64)
    passed, taken = Counter[str](), Counter[str]()
    for place in sorted(range(len(candidates)), key=lambda at: (-candidates[at].score, candidates[at].name)):
        if len(pool) == count * spread:
            break
        each = candidates[place]
        if masks.near_copies([each.look], pool_looks[: len(pool)]):
            passed["near copy"] += 1
        elif per_group is not None and taken[each.group] >= per_group:
            passed["group"] += 1
        else:
            taken[each.group] += 1
            pool_looks[len(pool)] = each.look
            pool.append(place)
    chosen = tuple(pool[at] for at in sorted(_centres(pool_looks[: len(pool)], count)))
    return Choice(chosen, near_copies=passed["near copy"], group_full=passed["group"], pool=len(pool))


def _centres(looks: np.ndarray[tuple[int], np.dtype[np.uint64]], count: int) -> list[int]:
    """Places of at most `count` looks: the first, then always the one farthest from its nearest centre, the earlier one
    of two."""
    if not len(looks):
        return []
    centres = [0]
    nearest = np.bitwise_count(looks ^ looks[0]).astype(np.int64)
    while len(centres) < min(count, len(looks)):
        nearest[centres[-1]] = -1
        centres.append(int(nearest.argmax()))
        nearest = np.where(nearest < 0, -1, np.minimum(nearest, np.bitwise_count(looks ^ looks[centres[-1]])))
    return centres
