"""What an evaluation counts beside the confusion matrix, against slow ways of counting the same."""

import math

import numpy as np
import pytest

from segpipe.metrics import CloseLook, boundary_iou, semantic_scores
from segpipe.metrics.close_look import MAP_PIXELS, SIZE_EDGES
from segpipe.predictions import GRID_PIXELS, LEVELS, grid, level_probabilities, shrunk
from segpipe.report.card import numbers
from segpipe.tasks.semantic import _details

K, IGNORE = 3, 255
Maps = tuple[np.ndarray, np.ndarray]


def blobs(seed: int, size: tuple[int, int] = (40, 56)) -> Maps:
    """Prediction and truth (H, W) in patches, the truth with ignored ones."""
    random = np.random.default_rng(seed)
    truth_HW = np.kron(random.choice([0, 1, 2, IGNORE], (10, 14), p=[0.4, 0.3, 0.2, 0.1]), np.ones((4, 4), int))
    said_HW = np.where(random.random(truth_HW.shape) < 0.85, np.minimum(np.roll(truth_HW, 1, axis=1), 2), 1)
    return said_HW[: size[0], : size[1]].astype(np.uint8), truth_HW[: size[0], : size[1]].astype(np.uint8)


def levels(seed: int, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    points = np.broadcast(*grid(*size)).size
    return np.random.default_rng(seed).integers(0, LEVELS, (K, points)).astype(np.uint8)


def looked(*images: Maps, with_levels: bool = True) -> CloseLook:
    meter = CloseLook(K, IGNORE)
    for n, (said_HW, truth_HW) in enumerate(images):
        meter.update(said_HW, truth_HW, levels(n, truth_HW.shape) if with_levels else None)
    return meter


def state(meter: CloseLook) -> list[list[int]]:
    return [
        each.ravel().tolist() for each in (meter.confidence_L2, meter.levels_KL2, meter.borders_K3, meter.regions_KS4)
    ]


def test_parts_merge_in_any_order_to_the_same_integers() -> None:
    images = [blobs(seed) for seed in range(4)]
    whole = CloseLook(K, IGNORE)
    for n, (said_HW, truth_HW) in enumerate(images):
        whole.update(said_HW, truth_HW, levels(n))
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        merged = CloseLook(K, IGNORE)
        for n in order:
            part = CloseLook(K, IGNORE)
            part.update(*images[n], levels(n))
            merged.merge(part)
        assert state(merged) == state(whole)


def test_levels_count_each_labelled_pixel_of_the_grid_once() -> None:
    said_HW, truth_HW = blobs(0)
    meter, known = looked((said_HW, truth_HW)), levels(0)
    rows, columns = grid(*truth_HW.shape)
    confidence = np.zeros((LEVELS, 2), int)
    by_class = np.zeros((K, LEVELS, 2), int)
    for p, (said, true) in enumerate(zip(said_HW[rows, columns].flat, truth_HW[rows, columns].flat, strict=True)):
        if true == IGNORE:
            continue
        confidence[known[said, p]] += (1, said == true)
        for k in range(K):
            by_class[k, known[k, p], int(k == true)] += 1
    assert (meter.confidence_L2 == confidence).all()
    assert (meter.levels_KL2 == by_class).all()


def test_borders_are_those_of_boundary_iou() -> None:
    said_HW, truth_HW = blobs(1)
    truth_HW = np.where(truth_HW == IGNORE, 0, truth_HW).astype(np.uint8)
    found = numbers.boundary_ious(_details(looked((said_HW, truth_HW))))
    assert found == [pytest.approx(boundary_iou(said_HW == k, truth_HW == k)) for k in range(K)]


def flooded(ids_HW: np.ndarray) -> list[np.ndarray]:
    """Every region of a map, found by walking through it."""
    left, found = set(np.ndindex(ids_HW.shape)), []
    while left:
        ids, region, waiting = None, np.zeros(ids_HW.shape, bool), [left.pop()]
        ids = ids_HW[waiting[0]]
        while waiting:
            y, x = waiting.pop()
            region[y, x] = True
            for step in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if step in left and ids_HW[step] == ids:
                    left.remove(step)
                    waiting.append(step)
        found.append(region)
    return found


def test_regions_count_by_their_size() -> None:
    said_HW, truth_HW = blobs(2)
    valid_HW = truth_HW != IGNORE
    right_HW = valid_HW & (said_HW == truth_HW)
    expected = np.zeros((K, len(SIZE_EDGES) + 1, 4), int)
    for column, ids_HW in ((0, truth_HW), (2, np.where(valid_HW, said_HW, IGNORE))):
        for region in flooded(ids_HW):
            k = int(ids_HW[region][0])
            if k != IGNORE:
                size = sum(region.sum() / region.size >= edge for edge in SIZE_EDGES)
                expected[k, size, column : column + 2] += (region.sum(), (region & right_HW).sum())
    assert (looked((said_HW, truth_HW)).regions_KS4 == expected).all()


def test_regions_of_all_sizes_together_have_the_iou_of_the_class() -> None:
    said_HW, truth_HW = blobs(3)
    meter = looked((said_HW, truth_HW))
    meter.regions_KS4 = meter.regions_KS4.sum(axis=1, keepdims=True)
    valid = truth_HW != IGNORE
    confusion = np.zeros((K, K), int)
    np.add.at(confusion, (truth_HW[valid], said_HW[valid]), 1)
    ious = semantic_scores(confusion)["iou"]
    assert [sizes[0] for sizes in numbers.size_ious(_details(meter))] == [pytest.approx(iou) for iou in ious]


def test_a_large_map_is_thinned_and_sizes_stay_shares() -> None:
    side = math.isqrt(MAP_PIXELS) * 2
    truth_HW = np.zeros((side, side), np.uint8)
    truth_HW[: side // 20, : side // 10] = 1  # half a percent
    counts = looked((truth_HW, truth_HW), with_levels=False).regions_KS4
    assert counts.sum(axis=(0, 1))[0] <= MAP_PIXELS
    assert np.flatnonzero(counts[1, :, 0]).tolist() == [2]
    assert np.flatnonzero(counts[0, :, 0]).tolist() == [4]


def test_where_nothing_is_labelled_nothing_is_counted() -> None:
    truth_HW = np.full((8, 8), IGNORE, np.uint8)
    meter = looked((np.zeros((8, 8), np.uint8), truth_HW))
    assert not any(sum(each) for each in state(meter))
    details = _details(meter)
    assert numbers.calibration(details) is None
    assert numbers.boundary_ious(details) == [None] * K
    assert details.confidence == details.levels == ()


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated() -> None:
    meter = CloseLook(K, IGNORE)
    probabilities = level_probabilities()
    meter.confidence_L2[:, 0] = 1_000_000
    meter.confidence_L2[:, 1] = np.round(1_000_000 * probabilities).astype(int)
    found = numbers.calibration(_details(meter))
    assert found is not None
    assert found.error == pytest.approx(0, abs=1e-6)
    assert sum(found.share) == pytest.approx(1)
    meter.confidence_L2[:, 1] = 0
    never = numbers.calibration(_details(meter))
    assert never is not None
    assert never.error == pytest.approx(probabilities.mean())


def test_precision_and_recall_are_those_of_every_threshold() -> None:
    random = np.random.default_rng(4)
    counts_L2 = random.integers(0, 9, (LEVELS, 2))
    meter = CloseLook(K, IGNORE)
    meter.confidence_L2[0] = 1
    meter.levels_KL2[1] = counts_L2
    curves = numbers.precision_recall(_details(meter))
    assert curves[0] is None
    assert curves[1] is not None
    area, before = 0.0, 0.0
    for level in range(LEVELS - 1, -1, -1):
        others, own = counts_L2[level:].sum(axis=0)
        recall = own / counts_L2[:, 1].sum()
        area, before = area + (recall - before) * own / max(own + others, 1), recall
    assert curves[1].area == pytest.approx(area)
    assert curves[1].recall[-1] == 1.0
    assert len(curves[1].recall) <= numbers.MOST_POINTS


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 63), (3000, 2), (1024, 2048)])
def test_a_grid_is_spread_over_the_image_and_bounded(size: tuple[int, int]) -> None:
    rows, columns = grid(*size)
    assert 1 <= rows.size * columns.size <= GRID_PIXELS
    for places, side in ((rows.ravel(), size[0]), (columns.ravel(), size[1])):
        assert places[0] >= 0
        assert places[-1] < side
        assert side < 2 * 64 or side - places[-1] <= np.diff(places).max()


def test_a_shrunk_map_has_whole_ids_and_fits_its_image() -> None:
    ids_HW = np.arange(720 * 1000).reshape(720, 1000)
    small = shrunk(ids_HW)
    assert small.shape == (259, 360)
    assert set(small.ravel()) <= set(ids_HW.ravel())
    assert shrunk(ids_HW[:30, :40]).tolist() == ids_HW[:30, :40].tolist()
    assert shrunk(np.zeros((2000, 2, 3), np.uint8)).shape == (360, 1, 3)
