"""The arithmetic of successive halving, beside the worked examples of its papers and what must hold for any budget."""

import random

import pytest

from segpipe.stages.halving.ladder import (
    Climb,
    Fate,
    Rung,
    counts,
    decided,
    from_first,
    full_grid,
    lay_out,
    next_steps,
    total,
)

THIRD = 0.334  # 1/3 of 81 in floating point is below 27


def test_the_rungs_are_those_of_hyperband_s_table() -> None:
    """Li et al. 2018, table 1, of R = 81 and eta = 3: n_i and r_i of the brackets that start with 81 and with 34."""
    most = lay_out([81.0] * 81, THIRD, rest=81 * 1 + 27 * 2 + 9 * 6 + 3 * 18 + 1 * 54, least=1 / 243)
    assert most is not None
    assert [(step.count, round(81 * step.share, 6)) for step in most] == [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)]
    assert [round(step.hours, 6) for step in most] == [81, 54, 54, 54, 54], (
        "equal shares of the budget, after the first"
    )
    fewer = lay_out([81.0] * 34, THIRD, rest=34 * 3 + 11 * 6 + 3 * 18 + 1 * 54, least=1 / 243)
    assert fewer is not None
    assert [(step.count, round(81 * step.share, 6)) for step in fewer] == [(34, 3), (11, 9), (3, 27), (1, 81)]


def test_halves_are_rounded_down_and_one_stays() -> None:
    """Jamieson and Talwalkar 2016: S_(k+1) is the better floor(|S_k| / 2), until one is left."""
    assert counts(16, 0.5) == [16, 8, 4, 2, 1]
    assert counts(5, 0.5) == [5, 2, 1]
    assert counts(3, 0.5) == [3, 1]
    assert counts(2, 0.99) == [2, 1]
    assert counts(1, 0.5) == [1]


def test_all_are_trained_to_their_ends_where_the_budget_holds_that() -> None:
    steps = lay_out([2.0, 3.0], 0.5, rest=5.0, least=0.1)
    assert steps is not None
    assert [(step.count, step.share, step.hours) for step in steps] == [(2, 1.0, 5.0)]


@pytest.mark.parametrize("seed", range(40))
def test_any_budget_is_kept_and_used_and_more_of_it_makes_longer_rungs(seed: int) -> None:
    chance = random.Random(seed)
    costs = [chance.uniform(0.1, 9) for _ in range(chance.randint(2, 30))]
    keep, reached = chance.choice([0.25, THIRD, 0.5, 0.7]), chance.choice([0.0, 0.05])
    least, starts = max(0.02, 1.1 * reached), [reached] * len(costs)
    lowest = total(from_first(least, costs, keep, starts))
    whole = full_grid(costs, starts)
    assert whole == pytest.approx((1 - reached) * sum(costs))
    assert lay_out(costs, keep, rest=0.999 * lowest, least=least, starts=starts) is None
    before = 0.0
    for part in (0.0, 0.2, 0.6, 0.99):
        rest = lowest + part * (whole - lowest)
        steps = lay_out(costs, keep, rest=rest * (1 + 1e-9), least=least, starts=starts)
        assert steps is not None
        assert total(steps) == pytest.approx(rest, rel=1e-6), "all of it is planned with, and no more"
        assert [step.count for step in steps] == counts(len(costs), keep)
        assert steps[-1].share == 1, "one is trained in full"
        assert [step.share for step in steps] == sorted(step.share for step in steps)
        assert steps[0].share >= before
        before = steps[0].share
        # Whoever goes on, the cost is at most what was planned.
        shares = [reached, *(step.share for step in steps)]
        drawn = [chance.sample(costs, step.count) for step in steps]
        told = sum(sum(some) * (b - a) for some, a, b in zip(drawn, shares, shares[1:], strict=False))
        assert told <= total(steps) * (1 + 1e-9)


def test_a_plan_made_again_after_a_rung_as_planned_is_the_same_plan() -> None:
    first = lay_out([6.0] * 8, 0.5, rest=14.0, least=0.01)
    assert first is not None
    again = lay_out([6.0] * 4, 0.5, rest=14.0 - first[0].hours, least=0.01, starts=[first[0].share] * 4)
    assert again is not None
    assert [step.share for step in again] == pytest.approx([step.share for step in first[1:]], rel=1e-6)


def test_what_a_training_has_behind_it_costs_nothing_more() -> None:
    """Four of 10 hours each, of which one stands at six tenths: it costs nothing before the last rung."""
    steps = from_first(0.25, [10.0] * 4, 0.5, [0.6, 0.0, 0.0, 0.0])
    assert [(step.count, step.share) for step in steps] == [(4, 0.25), (2, 0.5), (1, 1.0)]
    assert [step.hours for step in steps] == [3 * 2.5, 2 * 2.5, 5.0], "whoever it is that goes on"
    assert full_grid([10.0] * 4, [0.6, 0.0, 0.0, 0.0]) == 34.0
    assert from_first(0.25, [10.0] * 2, 0.5, [0.6, 0.4])[0].share == 0.4, "below it nobody would be ranked"


def climb(label: str, score: float | None, fate: Fate = "", until: int = 10) -> Climb:
    return Climb(label=label, start=0, until=until, steps=100, planned=1.0, score=score, fate=fate)


def fates(*climbs: Climb, keep: float = 0.5) -> dict[str, str]:
    rung = decided(Rung(number=1, share=0.1, climbs=climbs), keep)
    assert rung.is_ended
    return {each.label: each.fate for each in rung.climbs}


def test_the_better_part_goes_on_and_of_equal_ones_the_first_of_the_recipe() -> None:
    found = fates(climb("a", 0.2), climb("b", 0.5), climb("c", 0.5), climb("d", 0.5), climb("e", 0.1))
    assert found == {"a": "dropped", "b": "goes on", "c": "goes on", "d": "dropped", "e": "dropped"}


def test_one_that_fails_takes_the_place_of_one_that_is_dropped() -> None:
    found = fates(climb("a", 0.2), climb("b", None, "failed"), climb("c", 0.1), climb("d", None, "failed"))
    assert found == {"a": "goes on", "b": "failed", "c": "goes on", "d": "failed"}
    began = fates(climb("a", 0.2), climb("b", None, "failed", until=0), climb("c", 0.1))
    assert began == {"a": "goes on", "b": "failed", "c": "dropped"}, "a fault before the first step is no competitor"


def test_one_that_is_trained_already_keeps_its_place() -> None:
    """By `patience`: it needs no further step, and is better than the third."""
    found = fates(climb("a", 0.9, "trained"), climb("b", 0.5), climb("c", 0.4), climb("d", 0.3))
    assert found == {"a": "trained", "b": "goes on", "c": "dropped", "d": "dropped"}


def test_one_that_is_ahead_is_not_ranked_and_makes_no_place() -> None:
    found = fates(climb("a", 0.2), climb("b", 0.3), climb("c", None, "ahead", until=40), climb("d", None, "ahead"))
    assert found == {"a": "dropped", "b": "goes on", "c": "ahead", "d": "ahead"}


def test_those_that_are_ahead_go_on_before_the_ranked_and_the_furthest_first() -> None:
    """What stands furthest costs least to its end."""
    climbs = (climb("a", 0.9), climb("b", None, "ahead", until=40), climb("c", None, "ahead", until=70))
    rung = decided(Rung(number=1, share=0.1, climbs=climbs), 0.5)
    assert [each.label for each in rung.onward] == ["c", "b", "a"]
    found = next_steps(rung, dict.fromkeys("abc", 10.0), 0.5, spendable=3.0, rest=3.3)
    assert found is not None
    assert ([each.label for each in found[0]], [step.hours for step in found[1]]) == (["c"], [pytest.approx(3.0)])
    more = next_steps(rung, dict.fromkeys("abc", 10.0), 0.5, spendable=9.0, rest=10.0)
    assert more is not None
    assert len(more[0]) == 3
    assert more[1][0].share > 0.1


def test_with_less_left_than_was_planned_fewer_go_on_the_best_of_them() -> None:
    rung = decided(Rung(number=1, share=0.1, climbs=tuple(climb(each, 0.1 * n) for n, each in enumerate("abcd"))), 0.5)
    costs = dict.fromkeys("abcd", 10.0)

    def left(rest: float) -> tuple[list[str], list[int]] | None:
        found = next_steps(rung, costs, 0.5, spendable=0.9 * rest, rest=rest)
        return None if found is None else ([each.label for each in found[0]], [step.count for step in found[1]])

    assert left(30.0) == (["d", "c"], [2])
    assert left(13.0) == (["d", "c"], [2, 1])
    assert left(9.1) == (["d"], [1]), "the last one needs 9, and nothing is kept back"
    assert left(8.9) is None
