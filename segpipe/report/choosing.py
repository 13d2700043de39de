"""Which images a page shows: spread evenly, or by the scores that models had on each. Pure.

Legend: n images of the split, M models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Floats = npt.NDArray[np.float64]


def evenly(things: Sequence[T], some: int) -> list[T]:
    """At most `some` things that lie evenly among all of them, in their order."""
    wanted = min(some, len(things))
    return [things[at * len(things) // wanted] for at in range(wanted)]


def kinds(scores_n: Floats, some: int) -> dict[str, list[int]]:
    """The places of the "best", "median" and "worst" images, at most `some` of each, and each image once; of fewer than
    three all are "best"."""
    ranked = np.argsort(scores_n, kind="stable")[: int(np.isfinite(scores_n).sum())].tolist()
    if len(ranked) < 3:
        return {"best": ranked[::-1]}
    some = min(some, len(ranked) // 3)
    middle = (len(ranked) - some) // 2
    return {"best": ranked[-some:][::-1], "median": ranked[middle : middle + some], "worst": ranked[:some]}


def moved(ours_n: Floats, theirs_n: Floats, some: int) -> tuple[list[int], list[int]]:
    """The places of the images of which our score rose most above theirs, and of which it fell most; at most `some`."""
    rise_n = np.nan_to_num(ours_n - theirs_n)
    order: list[int] = np.argsort(rise_n, kind="stable").tolist()
    risen = [row for row in order[::-1] if rise_n[row] > 0]
    return risen[:some], [row for row in order if rise_n[row] < 0][:some]


def telling(scores: list[Floats], budget: int) -> list[int]:
    """The places of at most `budget` images that tell M models apart: those of which their scores differ most, these
    first, and as many that are spread evenly."""
    scores_Mn = np.stack(scores)
    spread_n = np.nan_to_num(scores_Mn.max(axis=0) - scores_Mn.min(axis=0))
    ranked: list[int] = np.argsort(-spread_n, kind="stable").tolist()
    if len(ranked) <= budget:
        return ranked
    half = budget // 2
    return ranked[:half] + evenly(sorted(ranked[half:]), budget - half)
