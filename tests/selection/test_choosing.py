"""segpipe/selection/choosing.py: high scores, and not the same picture ten times."""

import numpy as np

from segpipe.selection import Candidate, choose

RANDOM = [int(each) for each in np.random.default_rng(5).integers(1, 2**63, 40)]


def candidates(scores: list[float], looks: list[int] | None = None, groups: list[str] | None = None) -> list[Candidate]:
    looks, groups = looks or RANDOM, groups or [str(n) for n in range(len(scores))]
    return [Candidate(f"{n:02d}", score, groups[n], looks[n]) for n, score in enumerate(scores)]


def test_the_highest_scores_with_ties_by_name() -> None:
    found = choose(candidates([0.1, 0.5, 0.5, 0.9, 0.2]), 3, spread=1)
    assert found.chosen == (3, 1, 2)
    assert found.pool == 3


def test_of_near_copies_the_least_sure_is_taken() -> None:
    looks = [RANDOM[0], RANDOM[0] ^ 0b111, RANDOM[1], RANDOM[0] ^ (2**40 - 1)]
    found = choose(candidates([0.7, 0.9, 0.5, 0.4], looks), 3, spread=1)
    assert found.chosen == (1, 2, 3)
    assert found.near_copies == 1


def test_pictures_without_structure_are_no_copies_of_each_other() -> None:
    assert choose(candidates([0.3, 0.2], [0, 0]), 2, spread=1).chosen == (0, 1)


def test_so_many_of_a_group() -> None:
    found = choose(candidates([0.9, 0.8, 0.7, 0.6], groups=["a", "a", "a", "b"]), 3, spread=1, per_group=1)
    assert (found.chosen, found.group_full) == ((0, 3), 2)


def test_of_twice_as_many_the_least_alike() -> None:
    """Frames of two videos: the second video is taken before a further frame of the first."""
    first = [RANDOM[0] ^ (0x7F << 7 * n) for n in range(4)]  # seven bits from the middle, fourteen from each other
    looks = [*first, RANDOM[9]]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]
    assert choose(candidates(scores, looks), 2, spread=1).chosen == (0, 1)
    assert choose(candidates(scores, looks), 2, spread=3).chosen == (0, 4)


def test_centres_are_those_of_the_greedy_algorithm() -> None:
    scores = np.random.default_rng(6).random(40).tolist()
    found = choose(candidates(scores), 10, spread=4)
    order = sorted(range(40), key=lambda at: -scores[at])
    centres = [order[0]]
    while len(centres) < 10:
        centres.append(max(
            (at for at in order if at not in centres),
            key=lambda at: (min((RANDOM[at] ^ RANDOM[c]).bit_count() for c in centres), scores[at]),
        ))  # fmt: skip
    assert sorted(found.chosen) == sorted(centres)
    assert list(found.chosen) == sorted(found.chosen, key=order.index)


def test_nothing_and_less_than_asked() -> None:
    assert choose([], 3, spread=2).chosen == ()
    assert choose(candidates([0.1, 0.2]), 5, spread=2).chosen == (1, 0)


def test_a_copy_of_any_that_is_taken_is_passed_over() -> None:
    """As an obvious loop has it: five looks, each met eight times with a few bits changed."""
    random = np.random.default_rng(7)
    looks = [RANDOM[n % 5] ^ (0b111 << int(random.integers(0, 20))) for n in range(40)]
    scores = random.random(40).tolist()
    taken: list[int] = []
    for at in sorted(range(40), key=lambda at: -scores[at]):
        if len(taken) < 5 and all((looks[at] ^ looks[other]).bit_count() > 6 for other in taken):
            taken.append(at)
    found = choose(candidates(scores, looks), 5, spread=1)
    assert list(found.chosen) == taken
    assert found.near_copies > 0
