"""What of a map of objects or segments was missed, invented or misplaced, painted over a pale photograph: one way for
the picture of a panoptic map, and for the cards that show a `Sketch`.

Legend: h w size of a panel in pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpipe.report.drawing import Labels, Pixels, hatch
from segpipe.report.objects import FALSE, FOUND, MISSED, Colour, contour, patches_of_map
from segpipe.report.panels import pale
from segpipe.sketches import Objects

MISPLACED = (112, 92, 214)
NAMES: dict[str, Colour] = {"found": FOUND, "missed": MISSED, "false": FALSE, "pixels of another one found": MISPLACED}
_OPACITY, _FAINT = 0.7, 0.45
_STRIPE, _LARGE = 6, 14  # pixels; a card shrinks the contour of a large object, which can do with a thicker one
_NOTHING = 0


def paint(shown: Image.Image, true_hw: Labels, said_hw: Labels, said: Objects, *, is_whole: bool) -> Pixels:
    """The photograph in pale grey: what was missed, what is false (in stripes where it is both), what belongs to
    another one that was found; borders of what was found.

    Maps hold the numbers of their objects, `said` tells those of the prediction, beside this truth. Where they are
    whole, every pixel belongs to a segment, and what does not in the truth, or is a crowd there, is hatched; else what
    is no object is background, and what is wrong has contours, too.
    """
    missed_hw, false_hw = np.isin(true_hw, said.missed), np.isin(said_hw, said.false)
    found_hw = np.isin(true_hw, [t for t, _ in said.found])
    wrong_hw = ~_together(true_hw, said_hw, said.found) & ~missed_hw & ~false_hw
    if not is_whole:
        wrong_hw &= found_hw & (said_hw != _NOTHING)
    rows, columns = np.indices(true_hw.shape)
    stripe_hw = ((rows + columns) // _STRIPE) % 2 == 0
    picture_hw3 = pale(shown)
    opacity = _OPACITY if is_whole else _FAINT
    for inside_hw, colour in (
        (wrong_hw, MISPLACED),
        (missed_hw & ~(false_hw & stripe_hw), MISSED),
        (false_hw & ~(missed_hw & ~stripe_hw), FALSE),
    ):
        part = picture_hw3[inside_hw]
        picture_hw3[inside_hw] = ((1 - opacity) * part + opacity * np.array(colour)).round()
    if is_whole:
        picture_hw3 = hatch(picture_hw3, np.where(found_hw | missed_hw, 1, _NOTHING), _NOTHING)
        picture_hw3[_borders(said_hw, said)] = FOUND
        return picture_hw3
    _contours(picture_hw3, said_hw, [p for _, p in said.found], FOUND)
    _contours(picture_hw3, true_hw, said.missed, MISSED)
    _contours(picture_hw3, said_hw, said.false, FALSE)
    return picture_hw3


def _together(true_hw: Labels, said_hw: Labels, pairs: Collection[tuple[int, int]]) -> NDArray[np.bool_]:
    """Where truth and prediction are objects that match."""
    of_truth = np.full(int(true_hw.max(initial=0)) + 1, -1)
    for t, p in pairs:
        if t < len(of_truth):
            of_truth[t] = p
    together_hw: NDArray[np.bool_] = of_truth[true_hw] == said_hw
    return together_hw


def _borders(said_hw: Labels, said: Objects) -> NDArray[np.bool_]:
    """Where a segment that was found meets another one that is not false, whose colour ends there: a line of one pixel,
    and none along the image's own border."""
    found_hw, false_hw = np.isin(said_hw, [p for _, p in said.found]), np.isin(said_hw, said.false)
    border_hw = np.zeros(said_hw.shape, dtype=bool)
    for after, before in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        meets = (said_hw[after] != said_hw[before]) & (found_hw[after] | found_hw[before])
        border_hw[after] |= meets & ~(false_hw[after] | false_hw[before])
    return border_hw


def _contours(picture_hw3: Pixels, numbers_hw: Labels, numbers: Sequence[int], colour: Colour) -> None:
    for patch in patches_of_map(numbers_hw, numbers):
        contour(picture_hw3, patch, colour, thickness=1 if min(patch.inside_hw.shape) < _LARGE else 2)
