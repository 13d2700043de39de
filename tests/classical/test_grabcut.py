"""GrabCut on objects whose masks are known, in boxes that are kind, empty, everywhere and nowhere."""

import numpy as np
import pytest

from segpipe.classical.grabcut import masks_of


@pytest.fixture(scope="module")
def disc_HW() -> np.ndarray:
    rows, columns = np.ogrid[:80, :100]
    return (rows - 40) ** 2 + (columns - 50) ** 2 < 20**2


@pytest.fixture(scope="module")
def image_HW3(disc_HW: np.ndarray) -> np.ndarray:
    """A red disc on green, both noisy, and a second one far away, which no box has."""
    image_HW3 = np.where(disc_HW[..., None], (200, 60, 60), (60, 120, 60))
    image_HW3[5:12, 85:97] = (200, 60, 60)
    return (image_HW3 + np.random.default_rng(0).integers(-15, 16, image_HW3.shape)).astype(np.uint8)


def test_a_disc_within_a_box_is_found_to_the_pixel(image_HW3: np.ndarray, disc_HW: np.ndarray) -> None:
    (found_HW,) = masks_of(image_HW3, np.array([[25.0, 15, 75, 65]]), iterations=5, context=0.5, least_side=1)
    assert (found_HW & disc_HW).sum() / (found_HW | disc_HW).sum() > 0.98


def test_a_mask_ends_at_its_box(image_HW3: np.ndarray, disc_HW: np.ndarray) -> None:
    """Whose edges lie within pixels: these belong to it."""
    (found_HW,) = masks_of(image_HW3, np.array([[40.5, 30.2, 55.5, 60.0]]), iterations=2, context=1.0, least_side=1)
    assert not found_HW[:30].any()
    assert not found_HW[60:].any()
    assert not found_HW[:, :40].any()
    assert not found_HW[:, 56:].any()


def test_every_box_is_answered_in_order_and_the_same_each_time(image_HW3: np.ndarray) -> None:
    boxes_M4 = np.array([[25.0, 15, 75, 65], [80, 2, 99, 16], [25, 15, 75, 65]])
    found_MHW, again_MHW = (masks_of(image_HW3, boxes_M4, iterations=3, context=0.5, least_side=1) for _ in range(2))
    assert np.array_equal(found_MHW, again_MHW)
    assert np.array_equal(found_MHW[0], found_MHW[2]), "whatever was asked before"
    assert found_MHW[1, 5:12, 85:97].mean() > 0.95
    assert not found_MHW[1, :, :80].any()
    assert masks_of(image_HW3, np.zeros((0, 4)), iterations=3, context=0.5, least_side=1).shape == (0, 80, 100)


def test_where_nothing_tells_inside_from_outside_the_mask_is_the_box(image_HW3: np.ndarray) -> None:
    boxes_M4 = np.array([[0.0, 0, 100, 80], [-50, -50, 200, 200], [10.2, 10.5, 10.9, 10.8], [-5, -5, 1, 1]])
    found_MHW = masks_of(image_HW3, boxes_M4, iterations=1, context=0.5, least_side=1)
    assert found_MHW.sum(axis=(1, 2)).tolist() == [8000, 8000, 1, 1]
    assert found_MHW[2, 10, 10]
    assert found_MHW[3, 0, 0]
    assert masks_of(
        np.zeros((1, 1, 3), np.uint8), np.array([[0.0, 0, 1, 1]]), iterations=1, context=0.5, least_side=1
    ).all()


def test_a_box_beyond_the_image_has_nothing(image_HW3: np.ndarray) -> None:
    assert not masks_of(image_HW3, np.array([[120.0, 10, 150, 30]]), iterations=1, context=0.5, least_side=1).any()


def test_what_is_small_is_looked_at_enlarged(image_HW3: np.ndarray, disc_HW: np.ndarray) -> None:
    """Every sixth pixel of the disc: seven are left across, which vanish as they are."""
    small_HW3, small_HW = image_HW3[::6, ::6], disc_HW[::6, ::6]
    box_14 = np.array([[4.0, 2, 13, 12]])
    shares = []
    for least_side in (1, 64):
        (found_HW,) = masks_of(small_HW3, box_14, iterations=5, context=0.5, least_side=least_side)
        assert found_HW.shape == small_HW.shape
        shares.append((found_HW & small_HW).sum() / (found_HW | small_HW).sum())
    assert shares[1] > 0.9
    assert shares[1] >= shares[0]
