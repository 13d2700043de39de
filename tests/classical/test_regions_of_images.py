"""The methods that find regions without learning, on images whose regions are known; and the classes of regions."""

import numpy as np
import pytest
from scipy import ndimage

from segpipe.classical import kmeans, spectral, watershed
from segpipe.classical.appearance import COLOURS, PLACES, Appearance, count
from segpipe.classical.regions import region_scores

RED, BLUE, GREY = (220, 30, 30), (30, 60, 220), (128, 128, 128)


def painted(labels_HW: np.ndarray, *colours: tuple[int, int, int], noise: int = 0) -> np.ndarray:
    image_HW3 = np.array(colours, dtype=np.int64)[labels_HW]
    image_HW3 += np.random.default_rng(0).integers(-noise, noise + 1, image_HW3.shape)
    return image_HW3.clip(0, 255).astype(np.uint8)


def disc(height: int, width: int, row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def same_partition(a_HW: np.ndarray, b_HW: np.ndarray) -> bool:
    pairs = np.unique(np.stack((a_HW.ravel(), b_HW.ravel()), axis=1), axis=0)
    return len(pairs) == len(np.unique(a_HW)) == len(np.unique(b_HW))


def test_a_region_has_the_mean_scores_of_its_pixels() -> None:
    regions_HW = np.array([[0, 0, 3], [0, 3, 3]])
    scores_KHW = np.array([[[1, 2, 3], [6, 5, 4]], [[0, 0, -1], [-3, -1, -1]]], dtype=np.float32)
    expected = [[[3, 3, 4], [3, 4, 4]], [[-1, -1, -1], [-1, -1, -1]]]
    assert region_scores(regions_HW, scores_KHW).tolist() == expected


@pytest.mark.parametrize("place_weight", [0.0, 0.2])
def test_kmeans_parts_two_flat_colours(place_weight: float) -> None:
    truth_HW = disc(40, 50, 20, 30, 12).astype(np.int64)
    found_HW = kmeans.cluster_map(painted(truth_HW, RED, BLUE, noise=12), clusters=2, place_weight=place_weight)
    assert same_partition(found_HW, truth_HW)


def test_kmeans_of_places_alone_halves_a_flat_image() -> None:
    found_HW = kmeans.cluster_map(np.full((10, 40, 3), 90, np.uint8), clusters=2, place_weight=1.0)
    assert same_partition(found_HW, np.tile(np.arange(40) // 20, (10, 1)))


def test_kmeans_has_no_more_clusters_than_there_are_colours() -> None:
    assert not kmeans.cluster_map(np.full((9, 9, 3), 7, np.uint8), clusters=5, place_weight=0.0).any()


def test_its_centres_are_lloyds_fixed_point() -> None:
    """Each centre is the mean of its pixels, and each pixel is with its nearest centre."""
    image_HW3 = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found_n = kmeans.cluster_map(image_HW3, clusters=6, place_weight=0.5).ravel()
    features_n5 = kmeans.features_of(image_HW3, 0.5).reshape(-1, 5)
    centres_65 = np.stack([features_n5[found_n == each].mean(axis=0) for each in range(6)])
    distances_n6 = ((features_n5[:, None] - centres_65) ** 2).sum(axis=2)
    assert np.array_equal(distances_n6.argmin(axis=1), found_n)


def test_superpixels_keep_to_the_borders_of_colours() -> None:
    truth_HW = (np.arange(60) // 30 + np.zeros((40, 1))).astype(np.int64)
    found_HW = spectral.superpixel_map(painted(truth_HW, RED, BLUE), superpixels=24, compactness=10.0)
    assert sorted(np.unique(found_HW)) == list(range(found_HW.max() + 1))
    assert 12 <= found_HW.max() + 1 <= 36
    assert all(len(np.unique(truth_HW[found_HW == each])) == 1 for each in range(found_HW.max() + 1))


def test_likeness_is_that_of_colours_and_places() -> None:
    """Two superpixels of one column each, 30 apart in L*, and side by side in an image two pixels wide."""
    black_and_grey = np.array([[[0, 0, 0], [71, 71, 71]]] * 2, dtype=np.uint8)  # L* 0 and 30.2
    found_SS = spectral.likeness(black_and_grey, np.array([[0, 1]] * 2), colour_scale=30.0, place_scale=0.5)
    expected = np.exp(-((30.15 / 30) ** 2)) * np.exp(-((0.5 / 0.5) ** 2))
    np.testing.assert_allclose(found_SS, [[1, expected], [expected, 1]], rtol=5e-3)


def test_a_normalised_cut_is_the_least_of_all_cuts() -> None:
    """Two groups of six with weak ties between them: the parts are those of the least normalised cut over all 2^12."""
    rng = np.random.default_rng(4)
    likeness_SS = rng.uniform(0.5, 1, (12, 12))
    likeness_SS[:7, 7:] *= 0.1
    likeness_SS = np.minimum(likeness_SS, likeness_SS.T)

    def normalised_cut(mask_S: np.ndarray) -> float:
        between = likeness_SS[mask_S][:, ~mask_S].sum()
        return float(between / likeness_SS[mask_S].sum() + between / likeness_SS[~mask_S].sum())

    masks = [np.array([number >> bit & 1 for bit in range(12)], dtype=bool) for number in range(1, 2**11)]
    best_S = min(masks, key=normalised_cut)
    assert same_partition(spectral.cut(likeness_SS, 2), best_S)


def test_no_more_clusters_than_superpixels_and_one_is_everything() -> None:
    assert spectral.cut(np.ones((3, 3)), 3).tolist() == [0, 1, 2]
    assert spectral.cut(np.ones((3, 3)), 1).tolist() == [0, 0, 0]


def test_spectral_clustering_joins_what_its_superpixels_have_parted() -> None:
    truth_HW = disc(60, 80, 30, 40, 20).astype(np.int64)
    image_HW3 = painted(truth_HW, GREY, BLUE)
    superpixels_HW = spectral.superpixel_map(image_HW3, superpixels=60, compactness=5.0)
    likeness_SS = spectral.likeness(image_HW3, superpixels_HW, colour_scale=20.0, place_scale=1.0)
    found_HW = spectral.cut(likeness_SS, 2)[superpixels_HW]
    assert (found_HW[truth_HW == 1] == found_HW[30, 40]).mean() > 0.98
    assert (found_HW[truth_HW == 0] == found_HW[0, 0]).mean() > 0.98
    assert found_HW[30, 40] != found_HW[0, 0]


def test_basins_meet_on_the_ridge() -> None:
    """A profile with three minima, of which the middle one is one deep: the walls stand on the heights between."""
    profile = np.array([3, 1, 0, 2, 5, 4, 4, 5, 2, 0, 1, 4], dtype=float)
    heights_HW = np.tile(profile, (4, 1))
    assert same_partition(
        watershed.basins(heights_HW, 0.0)[:, [0, 3, 5, 6, 8, 11]], np.tile([0, 0, 1, 1, 2, 2], (4, 1))
    )
    deep_HW = watershed.basins(heights_HW, 1.5)
    assert np.unique(deep_HW).tolist() == [0, 1]
    assert same_partition(deep_HW[:, [0, 3, 8, 11]], np.tile([0, 0, 1, 1], (4, 1)))


def test_touching_discs_are_parted_by_a_watershed_of_their_distance() -> None:
    two_HW = disc(40, 70, 20, 20, 14) | disc(40, 70, 20, 46, 14)
    found_HW = watershed.basins(-ndimage.distance_transform_edt(two_HW), 1.0)
    inside = found_HW[two_HW]
    assert len(np.unique(inside)) == 2
    assert (found_HW[two_HW & (np.arange(70) < 33)] == found_HW[20, 20]).all()
    assert (found_HW[two_HW & (np.arange(70) > 33)] == found_HW[20, 46]).all()


def test_a_flat_image_is_one_basin() -> None:
    flat_HW3 = np.full((6, 9, 3), 40, np.uint8)
    assert not watershed.basins(watershed.gradient(flat_HW3, 1.0), 0.0).any()


METHODS = {
    "kmeans": (kmeans.segment, {"clusters": 4, "place_weight": 0.3}),
    "spectral": (
        spectral.segment,
        {"clusters": 4, "superpixels": 80, "compactness": 10.0, "colour_scale": 10.0, "place_scale": 0.3},
    ),
    "watershed": (watershed.segment, {"smoothing": 1.0, "depth": 1.0}),
}


@pytest.mark.parametrize("name", METHODS)
def test_regions_get_the_classes_that_have_their_colours(name: str) -> None:
    method, options = METHODS[name]
    learnt_HW, asked_HW = (np.zeros((48, 64), np.int64) for _ in range(2))
    learnt_HW[10:30, 5:40], asked_HW[15:40, 20:60] = 1, 1
    known = count(painted(learnt_HW, RED, BLUE, noise=10), learnt_HW, 3)
    scores_KHW = method(painted(asked_HW, RED, BLUE, noise=10), known, **options)
    assert scores_KHW.dtype == np.float32
    assert scores_KHW.shape == (3, 48, 64)
    assert (scores_KHW.argmax(axis=0) == asked_HW).mean() > 0.96
    again = method(painted(asked_HW, RED, BLUE, noise=10), known, **options)
    assert scores_KHW.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (2, 2)])
def test_images_of_a_pixel_or_two(name: str, size: tuple[int, int]) -> None:
    method, options = METHODS[name]
    nothing = Appearance(colours_KB=np.zeros((2, COLOURS), np.int64), places_KP=np.zeros((2, PLACES), np.int64))
    image_HW3 = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.isfinite(method(image_HW3, nothing, **options)).all()
