"""Drift of images in groups: frames of one drive are alike, and a drive beside a few others proves nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from segpipe import drift
from segpipe.drift import UNSURE, Counts, Levels, Shift, chance


def drive(generator: np.random.Generator, images: int, *, darker: float = 0.0) -> list[Levels]:
    """Frames that are more alike than drives are; `darker` in standard deviations between drives."""
    light, road, doubt = generator.normal(0, 1, 3)
    return [
        {
            "brightness": int(130 + 20 * (light - darker) + generator.normal(0, 5)),
            "contrast": int(50 + 4 * light + generator.normal(0, 2)),
            "share of road": int(np.clip(400 + 100 * road + generator.normal(0, 30), 0, 1000)),
            UNSURE: int(max(0, 100 + 20 * doubt + generator.normal(0, 8))),
        }
        for _ in range(images)
    ]


def drives(number: int, *, seed: int, darker: float = 0.0) -> list[list[Levels]]:
    generator = np.random.default_rng(seed)
    return [drive(generator, int(generator.integers(5, 25)), darker=darker) for _ in range(number)]


def counted(groups: Sequence[Sequence[Levels]]) -> tuple[Counts, tuple[Counts, ...]]:
    images = [(str(number), levels) for number, own in enumerate(groups) for levels in own]
    return drift.counted(levels for _, levels in images), drift.counted_by_group(images)


def compared(
    before: Sequence[Sequence[Levels]], now: Sequence[Sequence[Levels]], *, threshold: float = 0.2, grouped: bool = True
) -> tuple[Shift, ...]:
    (all_before, by_before), (all_now, by_now) = counted(before), counted(now)
    groups = (by_before, by_now) if grouped else None
    return drift.compare(all_before, all_now, groups=groups, threshold=threshold)


def test_groups_are_counted_where_any_two_images_share_one() -> None:
    one, two, three = ({"width": n} for n in (1, 2, 3))
    assert drift.counted_by_group([("a", one), ("b", two)]) == ()
    by_group = ({"width": {"2": 1}}, {"width": {"1": 1, "3": 1}})
    assert drift.counted_by_group([("b", one), ("a", two), ("b", three)]) == by_group
    assert drift.counted_by_group([("b", three), ("b", one), ("a", two)]) == by_group


def test_drives_of_one_kind_raise_an_alarm_in_a_hundredth_of_the_calls_at_most() -> None:
    """60 calls, where 0.01 allows 0.6; more than 3 would come of that in less than one case of a hundred and fifty.
    Image by image most of them are alarms."""
    alarms = {True: 0, False: 0}
    for number, (known, asked) in enumerate([(30, 3), (20, 4), (8, 8)] * 20):
        found = drives(known + asked, seed=number)
        for grouped in alarms:
            shifts = compared(found[:known], found[known:], grouped=grouped, threshold=0.01)
            alarms[grouped] += any(shift.has_moved for shift in shifts)
    assert alarms[True] <= 3
    assert alarms[False] > 40


def test_drives_in_the_dark_are_found() -> None:
    for seed in range(5):
        dark = drives(5, seed=100 + seed, darker=4.0)
        moved = [shift.statistic for shift in compared(drives(30, seed=seed), dark) if shift.has_moved]
        assert "brightness" in moved
        assert "share of road" not in moved


def test_one_drive_beside_three_stands_out_and_is_no_alarm() -> None:
    generator = np.random.default_rng(0)
    *known, dark = (
        [{"brightness": int(generator.normal(light, 10)), "warmth": int(generator.normal(0, 10))} for _ in range(30)]
        for light in (125, 130, 135, 30)
    )
    first, second = compared(known, [dark])
    assert (first.statistic, first.has_moved, first.is_undecided, first.distance) == ("brightness", False, True, 0.9054)
    assert 1 / 4 <= first.chance <= 2 / 4
    assert not second.has_moved
    turned = {shift.statistic: shift for shift in compared([dark, *known[:2]], known[2:])}
    assert not turned["brightness"].is_undecided, "the dark one of the training differs more"


@pytest.mark.parametrize(("before", "now"), [(5, 2), (2, 5), (3, 3)])
def test_the_chance_is_that_of_all_ways_to_share_groups_out(before: int, now: int) -> None:
    generator = np.random.default_rng(0)
    tables = [generator.integers(0, 9, (before + now, bins)) + 1 for bins in (2, 5)]
    apart_S, chance_S, furthest_S = chance.of_groups(before, tables, 0.01)
    ways = list(itertools.combinations(range(before + now), before))
    each = [
        [float(drift.distance(np.stack([table[list(way)].sum(axis=0), np.delete(table, way, axis=0).sum(axis=0)])))]
        for table in tables
        for way in ways
    ]
    each_SD = np.reshape(each, (2, -1))
    present = ways.index(tuple(range(before)))
    np.testing.assert_allclose(apart_S, each_SD[:, present])
    far_SD = (each_SD - each_SD.mean(axis=1, keepdims=True)) / each_SD.std(axis=1, keepdims=True)
    expected = [(far_SD.max(axis=0) >= far_D[present] - 1e-6).mean() for far_D in far_SD]
    np.testing.assert_allclose(chance_S, expected)
    assert furthest_S.tolist() == [bool(each_D[present] >= each_D.max() - 1e-6) for each_D in each_SD]


def test_how_few_groups_can_be_told() -> None:
    """Of three groups beside nine there are 220 choices, each with a chance of 1 in 220."""
    assert chance.are_few(3, 8, 0.005)
    assert not chance.are_few(3, 9, 0.005)
    assert chance.are_few(5, 5, 0.005), "252 choices, of which each is there twice"
    assert drift.enough_groups(3, 0.005) == 9
    assert drift.enough_groups(1, 0.005) == 199
    assert drift.enough_groups(300, 0.005) == 1


def test_many_groups_cost_no_more_than_their_draws() -> None:
    """Groups of two, as pairs of eyes are: the answer is the same however often it is asked."""
    generator = np.random.default_rng(0)
    pairs = [drive(generator, 2) for _ in range(600)]
    assert compared(pairs[:500], pairs[500:]) == compared(pairs[:500], pairs[500:])
    assert not any(shift.has_moved for shift in compared(pairs[:500], pairs[500:]))


def test_a_statistic_that_never_changes_is_no_matter() -> None:
    groups = [[{**levels, "width": 480} for levels in own] for own in drives(12, seed=0)]
    found = {shift.statistic: shift for shift in compared(groups[:8], groups[8:])}
    assert (found["width"].distance, found["width"].has_moved) == (0.0, False)
