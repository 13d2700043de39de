"""The graph cut against every labelling there is, a chain that dynamic programming solves, and cuts known by hand."""

import itertools

import numpy as np
import pytest

from segpipe.classical.appearance import COLOURS, PLACES, Appearance, count
from segpipe.classical.graph_cut import (
    SURE,
    Neighbours,
    binary_minimum,
    energy,
    expand,
    neighbours,
    segment,
)


def pairs_of(*edges: tuple[int, int, int]) -> Neighbours:
    return Neighbours(*np.array(edges, dtype=np.int64).reshape(-1, 3).T)


def random_problem(seed: int, num_labels: int, height: int = 2, width: int = 4) -> tuple[np.ndarray, Neighbours]:
    rng = np.random.default_rng(seed)
    grid = neighbours(rng.uniform(0, 100, (height, width, 3)), 1.0)
    weights_e = rng.integers(0, 12, len(grid.first_e))
    return rng.integers(0, 20, (num_labels, height * width)), grid._replace(weights_e=weights_e)


def every_labelling(num_labels: int, num_pixels: int) -> list[np.ndarray]:
    return [np.array(each) for each in itertools.product(range(num_labels), repeat=num_pixels)]


def test_the_energy_is_what_pixels_and_parted_neighbours_cost() -> None:
    unary_Kn = np.array([[1, 2, 3], [10, 20, 30]])
    pairs = pairs_of((0, 1, 100), (1, 2, 1000))
    assert energy(np.array([0, 0, 0]), unary_Kn, pairs) == 6
    assert energy(np.array([0, 1, 1]), unary_Kn, pairs) == 1 + 20 + 30 + 100
    assert energy(np.array([0, 1, 0]), unary_Kn, pairs) == 1 + 20 + 3 + 1100


def test_a_minimum_cut_by_hand() -> None:
    """x0 gains 5 by being 1, x2 loses 4; to part 0 from 1 costs 3, and 1 from 2 costs 2: the cut is there."""
    costs_n, first, second = np.array([-5, 0, 4]), np.array([0, 1, 1, 2]), np.array([1, 0, 2, 1])
    assert binary_minimum(costs_n, first, second, np.array([3, 3, 2, 2])).tolist() == [True, True, False]
    assert binary_minimum(costs_n, first, second, np.array([1, 1, 2, 2])).tolist() == [True, False, False]
    assert binary_minimum(costs_n, first, second, np.array([9, 9, 9, 9])).tolist() == [True, True, True]
    assert binary_minimum(-costs_n, first, second, np.array([0, 0, 0, 0])).tolist()[::2] == [False, True]


@pytest.mark.parametrize("seed", range(20))
def test_a_binary_minimum_is_the_least_of_all(seed: int) -> None:
    """Over all 2^9, with capacities that differ by direction."""
    rng = np.random.default_rng(seed)
    costs_n, (first_e, second_e) = rng.integers(-20, 21, 9), np.stack(list(itertools.permutations(range(9), 2)), axis=1)
    capacities_e = rng.integers(0, 6, len(first_e)) * rng.integers(0, 2, len(first_e))

    def cost(x_n: np.ndarray) -> int:
        return int(costs_n @ x_n + (capacities_e * (1 - x_n[first_e]) * x_n[second_e]).sum())

    found_n = binary_minimum(costs_n, first_e, second_e, capacities_e)
    assert cost(found_n.astype(int)) == min(cost(x_n) for x_n in every_labelling(2, 9))


@pytest.mark.parametrize("seed", range(20))
def test_of_two_labels_it_finds_the_least_of_all(seed: int) -> None:
    unary_Kn, pairs = random_problem(seed, 2, height=3, width=3)
    found = energy(expand(unary_Kn, pairs, cycles=5), unary_Kn, pairs)
    assert found == min(energy(labels_n, unary_Kn, pairs) for labels_n in every_labelling(2, 9))


@pytest.mark.parametrize("seed", range(20))
def test_of_three_no_expansion_is_left_that_gains_and_the_bound_of_the_paper_holds(seed: int) -> None:
    unary_Kn, pairs = random_problem(seed, 3)
    found_n = expand(unary_Kn, pairs, cycles=10)
    found = energy(found_n, unary_Kn, pairs)
    for label in range(3):
        for moves_n in every_labelling(2, 8):
            assert energy(np.where(moves_n, label, found_n), unary_Kn, pairs) >= found
    least = min(energy(labels_n, unary_Kn, pairs) for labels_n in every_labelling(3, 8))
    assert least <= found <= 2 * least


@pytest.mark.parametrize("seed", range(5))
def test_a_chain_of_two_labels_is_what_dynamic_programming_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    unary_Kn, weights_e = rng.integers(0, 30, (2, 400)), rng.integers(0, 25, 399)
    pairs = Neighbours(np.arange(399), np.arange(1, 400), weights_e)
    best_K = unary_Kn[:, 0]
    for at in range(1, 400):
        best_K = np.minimum(best_K, best_K[::-1] + weights_e[at - 1]) + unary_Kn[:, at]
    assert energy(expand(unary_Kn, pairs, cycles=5), unary_Kn, pairs) == best_K.min()


def test_a_pixel_has_eight_neighbours_weighed_by_contrast_and_distance() -> None:
    colours_HW1 = np.array([[[0.0], [0.0], [6.0]], [[0.0], [0.0], [6.0]], [[0.0], [0.0], [6.0]]])
    pairs = neighbours(colours_HW1, 10.0)
    found = {(a, b): w for a, b, w in zip(*(each.tolist() for each in pairs), strict=True)}
    assert len(found) == 20, "6 across, 6 down, 4 each way on the diagonal"
    assert {a for a, b in found if b == 4} | {b for a, b in found if a == 4} == {0, 1, 2, 3, 5, 6, 7, 8}
    mean = 36 * 7 / 20  # of the squared differences: 3 across and 4 diagonal pairs meet the edge
    assert found[0, 1] == 1000
    assert found[0, 4] == round(1000 / 2**0.5)
    assert found[1, 2] == round(1000 * np.exp(-36 / (2 * mean)))
    assert found[2, 4] == round(1000 * np.exp(-36 / (2 * mean)) / 2**0.5)


def test_noise_that_misleads_single_pixels_is_cut_away() -> None:
    """Two halves whose colours differ by less than the noise: of single pixels a tenth is wrong, of the cut's few."""
    rng, truth_HW = np.random.default_rng(0), np.zeros((60, 80), np.int64)
    truth_HW[:, 45:] = 1
    images = [
        (np.array([[150, 120, 110], [110, 120, 150]])[truth_HW] + rng.normal(0, 25, (60, 80, 3))).clip(0, 255)
        for _ in range(2)
    ]
    learnt_HW3, asked_HW3 = (image_HW3.astype(np.uint8) for image_HW3 in images)
    counted = count(learnt_HW3, truth_HW, 2)
    known = Appearance(colours_KB=counted.colours_KB, places_KP=np.zeros((2, PLACES), np.int64))
    alone_KHW, cut_KHW = (segment(asked_HW3, known, smoothness=each, cycles=5) for each in (0.0, 3.0))
    assert np.unique(cut_KHW).tolist() == [-SURE, 0]
    assert (alone_KHW.argmax(axis=0) != truth_HW).mean() > 0.1
    assert (cut_KHW.argmax(axis=0) != truth_HW).mean() < 0.01


def test_an_image_of_one_pixel_and_one_of_one_class() -> None:
    nothing = Appearance(colours_KB=np.zeros((1, COLOURS), np.int64), places_KP=np.zeros((1, PLACES), np.int64))
    for size in ((1, 1), (1, 4), (3, 1)):
        assert not segment(np.zeros((*size, 3), np.uint8), nothing, smoothness=4.0, cycles=2).any()
