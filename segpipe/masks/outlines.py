"""A mask -> one polygon that rasterises back to the very same mask. Part of the room `masks`.

The polygon runs along the edges between pixels. Filling is by parity, in COCO's rasteriser (`polygon_to_mask`) as in
OpenCV's: a path that is walked twice, there and back, changes nothing. So parts that lie apart, and holes, hang on one
polygon by bridges. OpenCV also paints the path itself: there a bridge is a line of one pixel.
Letter legend: H W image size in pixels; points are (x, y) of the corners between pixels, 0..W and 0..H.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.int64]


def polygon_of_mask(mask_HW: npt.ArrayLike) -> Points:
    """(n, 2) corners of one closed polygon that fills exactly the non-zero pixels of a mask; (0, 2) for an empty one.

    The same mask gives the same polygon.
    """
    loops = _loops(np.asarray(mask_HW) != 0)
    if not loops:
        return np.empty((0, 2), dtype=np.int64)
    there: list[Points] = []
    back: list[Points] = []
    loop = loops[0]
    for following in loops[1:]:
        # Each loop hangs on the one before it, where the two are nearest: it is left and taken up again there.
        leave, enter = _nearest(loop, following)
        there.append(loop[: leave + 1])
        back.append(np.concatenate((loop[leave:], loop[:1])))
        loop = np.roll(following, -enter, axis=0)
    return np.concatenate((*there, loop, loop[:1], *back[::-1]))


def _loops(inside_HW: npt.NDArray[np.bool_]) -> list[Points]:
    """The closed paths between inside and outside, each as its corners, horizontal and vertical steps in turn.

    A corner is a point with one or three inside pixels around it. Along its row the corners pair up, and along its
    column; at a point where two pixels touch diagonally the paths cross, which parity does not mind.
    """
    padded = np.pad(inside_HW, 1)
    around = padded[:-1, :-1] ^ padded[:-1, 1:] ^ padded[1:, :-1] ^ padded[1:, 1:]
    y, x = np.nonzero(around)
    across = np.arange(len(x)) ^ 1
    by_column = np.lexsort((y, x))
    down = np.empty_like(by_column)
    down[by_column] = by_column[np.arange(len(x)) ^ 1]
    corners = np.stack((x, y), axis=1).astype(np.int64)
    loops, free = [], np.ones(len(x), dtype=bool)
    for start in range(len(x)):
        if not free[start]:
            continue
        path, at = [], start
        while free[at]:
            beside = int(across[at])
            path += [at, beside]
            free[at] = free[beside] = False
            at = int(down[beside])
        loops.append(corners[path])
    return loops


def _nearest(first: Points, second: Points) -> tuple[int, int]:
    """The places of the two corners that are nearest to each other. A few hundred of each loop are asked: a bridge need
    not be the shortest."""
    one, two = (np.arange(0, len(loop), max(1, len(loop) // 256)) for loop in (first, second))
    apart = np.abs(first[one][:, None] - second[two][None]).sum(axis=2)
    place = int(apart.argmin())
    return int(one[place // len(two)]), int(two[place % len(two)])
