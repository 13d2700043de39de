"""Graph cut: the labels of least energy, where neighbours of different classes cost the more the more alike they look.

Fast Approximate Energy Minimization via Graph Cuts, Boykov, Veksler, Zabih, 2001, IEEE TPAMI 23(11): alpha-expansion,
after which no class can win any set of pixels at once and lower the energy, which is then at most twice the least. Each
expansion is one minimum cut (`binary_minimum`). With weights by contrast after Boykov, Jolly, 2001, ICCV:

    E(labels) = sum over pixels p of unary[label of p, p] + sum over neighbours p, q of different labels of weight[p, q]

All energies are whole numbers, `UNIT`s of a natural logarithm, so that every sum is exact. The minimum cut is SciPy's:
its `maximum_flow` (Dinic), and what the source still reaches behind it. That is as fast on such grids as PyMaxflow
(0.10 against 0.07 s for 360 x 480), which is under the GPL; graph cuts of scikit-image and OpenCV are of other energies
(normalised cuts of regions, GrabCut's two labels). The moves of alpha-expansion are made here.

Letter legend: K classes, H W image size, n pixels, e pairs of neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segpipe.classical.appearance import Appearance, Floats, Integers, lab_of, pixel_scores

UNIT = 0.01
# A class that is that much likelier than another is taken at its word; it keeps capacities within 32 bits.
MOST = 50.0
# What a pixel's own class is worth, in logarithms, against every other one: a cut says which, and not how surely.
SURE = 10.0


class Neighbours(NamedTuple):
    """Pairs of pixels, by their places in the flattened image, each once; and what it costs to part them, >= 0."""

    first_e: Integers
    second_e: Integers
    weights_e: Integers


def segment(
    image_HW3: npt.NDArray[np.uint8], known: Appearance, *, smoothness: float, cycles: int
) -> npt.NDArray[np.float32]:
    """(K, H, W) scores: 0 of the class that the cut gives a pixel, `-SURE` of every other."""
    scores_KHW = pixel_scores(image_HW3, known)
    costs_KHW = (scores_KHW.max(axis=0) - scores_KHW).clip(max=MOST)
    unary_Kn = np.rint(costs_KHW / UNIT).astype(np.int64).reshape(len(scores_KHW), -1)
    labels_n = expand(unary_Kn, neighbours(lab_of(image_HW3), smoothness), cycles=cycles)
    found_KHW = np.full(scores_KHW.shape, -SURE, dtype=np.float32)
    np.put_along_axis(found_KHW, labels_n.reshape(1, *scores_KHW.shape[1:]), 0, axis=0)
    return found_KHW


def neighbours(colours_HWC: Floats, smoothness: float) -> Neighbours:
    """Each pixel and the eight around it: `smoothness` exp(-d^2 / (2 mean d^2)) / distance, d that of their colours."""
    height, width = colours_HWC.shape[:2]
    ids_HW: Integers = np.arange(height * width).reshape(height, width)
    across = (slice(None), slice(None, -1)), (slice(None), slice(1, None))
    down = (slice(None, -1), slice(None)), (slice(1, None), slice(None))
    falling = (slice(None, -1), slice(None, -1)), (slice(1, None), slice(1, None))
    rising = (slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))
    pairs = [(ids_HW[a].ravel(), ids_HW[b].ravel()) for a, b in (across, down, falling, rising)]
    lengths_e = np.repeat(np.sqrt([1.0, 1.0, 2.0, 2.0]), [len(a) for a, _ in pairs])
    first_e, second_e = (np.concatenate(each) for each in zip(*pairs, strict=True))
    flat_nC = colours_HWC.reshape(height * width, -1)
    squares_e = ((flat_nC[first_e] - flat_nC[second_e]) ** 2).sum(axis=1)
    mean = squares_e.mean() if squares_e.any() else 1.0
    weights_e = smoothness * np.exp(-squares_e / (2 * mean)) / lengths_e
    return Neighbours(first_e, second_e, np.rint(weights_e / UNIT).astype(np.int64))


def expand(unary_Kn: Integers, pairs: Neighbours, *, cycles: int) -> Integers:
    """(n,) labels of low energy by alpha-expansion, from the cheapest label of each pixel, of equals the first.

    Goes over all labels, at most `cycles` times, until each in turn has won nothing.
    """
    labels_n: Integers = unary_Kn.argmin(axis=0)
    least = energy(labels_n, unary_Kn, pairs)
    settled, num_labels = 0, len(unary_Kn)
    for label in (label for _ in range(cycles) for label in range(num_labels)):
        moved_n = np.where(_expansion(label, labels_n, unary_Kn, pairs), label, labels_n)
        found = energy(moved_n, unary_Kn, pairs)
        if found < least:
            labels_n, least, settled = moved_n, found, 0
        settled += 1  # a label that has just won cannot win more
        if settled == num_labels:
            break
    return labels_n


def energy(labels_n: Integers, unary_Kn: Integers, pairs: Neighbours) -> int:
    parted_e = labels_n[pairs.first_e] != labels_n[pairs.second_e]
    own = np.take_along_axis(unary_Kn, labels_n[None], axis=0).sum()
    return int(own + pairs.weights_e[parted_e].sum())


def _expansion(label: int, labels_n: Integers, unary_Kn: Integers, pairs: Neighbours) -> npt.NDArray[np.bool_]:
    """(n,) which pixels take `label` in the best of all moves in which each takes it or stays as it is.

    A pair costs `stay` where neither moves, `second` or `first` where that one alone does, and nothing where both do.
    Potts is a metric: `first + second >= stay`, so that it is cut by two edges (Kolmogorov, Zabih, 2004). Of all ways
    to say the same the most even one: with one edge, and its cost in the pixels, a flow took a hundred times as long.
    """
    first_e, second_e, weights_e = pairs
    kept_e, other_e = labels_n[first_e], labels_n[second_e]
    stay_e = weights_e * (kept_e != other_e)
    second_moves_e, first_moves_e = weights_e * (kept_e != label), weights_e * (other_e != label)
    gain_second_e = (-stay_e // 2).clip(-first_moves_e, second_moves_e - stay_e)
    gain_n = unary_Kn[label] - np.take_along_axis(unary_Kn, labels_n[None], axis=0)[0]
    np.add.at(gain_n, first_e, -stay_e - gain_second_e)
    np.add.at(gain_n, second_e, gain_second_e)
    return binary_minimum(
        gain_n,
        np.concatenate((first_e, second_e)),
        np.concatenate((second_e, first_e)),
        np.concatenate((second_moves_e - stay_e - gain_second_e, first_moves_e + gain_second_e)),
    )


def binary_minimum(
    costs_n: Integers, first_e: Integers, second_e: Integers, capacities_e: Integers
) -> npt.NDArray[np.bool_]:
    """(n,) the x in {0, 1}^n of least sum of costs_n x + sum of capacities_e (1 - x[first]) x[second], as bool.

    By the maximum flow from "0" to "1"; capacities must not be negative. Of several minima the one with the fewest 0.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    source, sink = len(costs_n), len(costs_n) + 1
    to_one_n, to_zero_n = np.flatnonzero(costs_n < 0), np.flatnonzero(costs_n > 0)
    joined_e = np.flatnonzero(capacities_e)
    starts = np.concatenate((first_e[joined_e], np.full(len(to_zero_n), source), to_one_n))
    ends = np.concatenate((second_e[joined_e], to_zero_n, np.full(len(to_one_n), sink)))
    values = np.concatenate((capacities_e[joined_e], costs_n[to_zero_n], -costs_n[to_one_n])).astype(np.int32)
    places = starts.astype(np.int32), ends.astype(np.int32)
    graph = coo_array((values, places), shape=(sink + 1, sink + 1)).tocsr()
    left = graph - maximum_flow(graph, source, sink, method="dinic").flow
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    is_one_n = np.ones(sink + 1, dtype=np.bool_)
    is_one_n[reached] = False
    return is_one_n[:source]
