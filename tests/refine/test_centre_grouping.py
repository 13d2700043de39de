"""Grouping by centres: what is a centre, who belongs to it, who votes, on maps small enough to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from segpipe.refine import centre_grouping
from segpipe.refine.centre_grouping import find_centres, group_by_centre, nearest_centre

# Class 0 is stuff, 1 and 2 are things, 9 is no class.
IS_THING = (False, True, True)


def labels(text: str) -> Tensor:
    return torch.tensor([[int(letter) for letter in row] for row in text.split()], dtype=torch.uint8)


def heat(height: int, width: int, **peaks: float) -> Tensor:
    """Zero but for peaks such as r0c3=0.9."""
    found = torch.zeros(height, width)
    for name, value in peaks.items():
        row, column = map(int, name[1:].split("c"))
        found[row, column] = value
    return found


def drawn(ids_HW: np.ndarray) -> str:
    return " ".join("".join(map(str, row)) for row in ids_HW.tolist())


def test_centres_are_the_maxima_of_their_window_best_first() -> None:
    found = heat(9, 9, r0c0=0.5, r0c3=0.6, r0c8=0.4, r8c0=0.1, r5c5=0.9)
    keep = {"threshold": 0.1, "most": 10}
    assert find_centres(found, window=7, **keep).tolist() == [[5, 5], [0, 3], [0, 8]], "0.5 lies within 3 of 0.6"
    assert find_centres(found, window=5, **keep).tolist() == [[5, 5], [0, 3], [0, 0], [0, 8]], "0.1 is not above 0.1"
    assert find_centres(found, window=5, threshold=0.45, most=10).tolist() == [[5, 5], [0, 3], [0, 0]]
    assert find_centres(found, window=5, threshold=0.1, most=2).tolist() == [[5, 5], [0, 3]]
    assert find_centres(torch.zeros(4, 4), window=7, **keep).tolist() == [], "nothing is above the threshold"
    assert find_centres(heat(1, 9, r0c1=0.7, r0c3=0.7), window=7, **keep).tolist() == [[0, 1], [0, 3]]


def test_a_level_summit_is_one_centre() -> None:
    keep = {"window": 7, "threshold": 0.1, "most": 10}
    level = heat(4, 9, r1c2=0.5, r1c3=0.5, r2c1=0.5, r2c2=0.5, r2c7=0.5, r3c6=0.5)
    assert find_centres(level, **keep).tolist() == [[1, 2], [2, 7]]
    assert find_centres(torch.full((5, 6), 0.5), **keep).tolist() == [[0, 0]]
    larger = torch.nn.functional.interpolate(heat(5, 5, r2c2=0.9)[None, None], scale_factor=4.0, mode="bilinear")
    assert find_centres(larger[0, 0], **keep).tolist() == [[9, 9]]


def test_each_thing_pixel_joins_the_centre_that_it_points_at() -> None:
    labels_HW = labels("110011 110011")
    heat_HW = heat(2, 6, r0c0=0.9, r0c5=0.8)
    still = torch.zeros(2, 2, 6)
    found = group_by_centre(labels_HW, heat_HW, still, IS_THING, window=3)
    assert drawn(found.ids_HW) == "113322 113322"
    assert [(s.segment_id, s.class_id, s.area) for s in found.segments] == [(1, 1, 4.0), (2, 1, 4.0), (3, 0, 4.0)]
    # The lower left pixel says that its centre is five columns to the right and a row up.
    still[:, 1, 0] = torch.tensor([-1.0, 5.0])
    assert drawn(group_by_centre(labels_HW, heat_HW, still, IS_THING, window=3).ids_HW) == "113322 213322"


def test_the_pixels_of_a_centre_vote_and_stuff_has_no_vote() -> None:
    found = group_by_centre(labels("1122200"), heat(1, 7, r0c2=0.9), torch.zeros(2, 1, 7), IS_THING)
    assert [(s.class_id, s.area) for s in found.segments] == [(2, 5.0), (0, 2.0)]
    tie = group_by_centre(labels("1122000"), heat(1, 7, r0c2=0.9), torch.zeros(2, 1, 7), IS_THING)
    assert [s.class_id for s in tie.segments] == [1, 0], "the lower id of equally many"


def test_without_a_centre_things_are_void_and_a_centre_without_pixels_is_none() -> None:
    found = group_by_centre(labels("1100 9900"), torch.zeros(2, 4), torch.zeros(2, 2, 4), IS_THING)
    assert drawn(found.ids_HW) == "0011 0011"
    assert [s.class_id for s in found.segments] == [0]
    lonely = heat(1, 12, r0c0=0.9, r0c11=0.9)
    found = group_by_centre(labels("110000000000"), lonely, torch.zeros(2, 1, 12), IS_THING)
    assert [(s.segment_id, s.class_id, s.area) for s in found.segments] == [(1, 1, 2.0), (2, 0, 10.0)]
    assert found.ids_HW.dtype == np.int32


def test_stuff_below_the_limit_is_void() -> None:
    found = group_by_centre(labels("1100"), heat(1, 4, r0c0=0.9), torch.zeros(2, 1, 4), IS_THING, stuff_area_limit=3)
    assert drawn(found.ids_HW) == "1100"


def test_pixels_are_compared_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    places_P2, centres_C2 = torch.rand(57, 2, generator=draw) * 20, torch.randint(0, 20, (5, 2), generator=draw)
    slow = [min(range(5), key=lambda c: float((place - centres_C2[c]).square().sum())) for place in places_P2]
    assert nearest_centre(places_P2, centres_C2).tolist() == slow
    monkeypatch.setattr(centre_grouping, "DISTANCES_AT_ONCE", 20)
    assert nearest_centre(places_P2, centres_C2).tolist() == slow
