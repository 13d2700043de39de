"""DenseCRF against a slow, obvious version, an example worked by hand, and pydensecrf's answers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from segpipe.errors import InputError
from segpipe.profiles.cost import HeldBytes
from segpipe.refine import crf, dense_crf, dense_crf_batch
from segpipe.refine.crf import kernels, lattice
from segpipe.refine.crf.lattice import lattice_bilateral

Floats = npt.NDArray[np.floating[Any]]
Pictures = tuple[npt.NDArray[np.uint8], Floats, npt.NDArray[np.int64]]


def scene(height: int, width: int, num_classes: int, seed: int) -> Pictures:
    """An image of flat regions with noise, what a network might say of it, and the truth."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(height, width)), height / 8) for _ in range(num_classes)]
    truth = np.argmax(smooth, axis=0)
    palette = rng.integers(40, 216, (num_classes, 3))
    noisy = palette[truth] + rng.normal(0, 8, (height, width, 3))
    blurred = np.stack([ndimage.gaussian_filter((truth == k).astype(float), height / 30) for k in range(num_classes)])
    logits = np.log(0.8 * blurred + 0.2 / num_classes) + rng.normal(0, 1.5, blurred.shape)
    e = np.exp(logits - logits.max(0))
    return noisy.clip(0, 255).astype(np.uint8), (e / e.sum(0)).astype(np.float32), truth


def obvious(
    image: npt.NDArray[np.uint8],
    probabilities: Floats,
    *,
    iterations: int,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
) -> Floats:
    """The definition, pair by pair, in float64."""
    K, H, W = probabilities.shape
    pixels = list(itertools.product(range(H), range(W)))
    near, alike = np.zeros((2, len(pixels), len(pixels)))
    for i, (y, x) in enumerate(pixels):
        for j, (v, u) in enumerate(pixels):
            apart = (y - v) ** 2 + (x - u) ** 2
            colours = ((image[y, x].astype(float) - image[v, u]) ** 2).sum()
            near[i, j] = math.exp(-apart / (2 * gaussian[0] ** 2))
            alike[i, j] = math.exp(-apart / (2 * bilateral[0] ** 2) - colours / (2 * bilateral[1] ** 2))
    total = np.zeros_like(near)
    for kernel, weight in ((near, gaussian[1]), (alike, bilateral[2])):
        root = np.sqrt(kernel.sum(1))
        total += weight * kernel / root[:, None] / root[None, :]
    logs = np.log(np.maximum(probabilities.reshape(K, -1).astype(np.float64), 1e-5))
    found = np.exp(logs) / np.exp(logs).sum(0)
    for _ in range(iterations):
        exponent = logs + found @ total.T
        found = np.exp(exponent - exponent.max(0))
        found /= found.sum(0)
    return found.reshape(K, H, W)


def test_four_pixels_by_hand() -> None:
    """Where exp(-1 / 2 s^2) is 1/2, neighbours weigh 1/2 and the diagonal 1/4; rows sum to 9/4 with the pixel itself,
    so normalised weights are 4/9, 2/9, 2/9, 1/9. Of the pixel (0, 0) with 0.8 and the others with 0.4, one step says:

        (0, 0)  (3.2 + 0.8 + 0.8 + 0.4) / 9 = 5.2 / 9 against 3.8 / 9    odds 4   * exp(w 1.4 / 9)
        (0, 1)  (1.6 + 1.6 + 0.8 + 0.4) / 9 = 4.4 / 9 against 4.6 / 9    odds 2/3 * exp(-w 0.2 / 9)
        (1, 1)  (1.6 + 0.8 + 0.8 + 0.8) / 9 = 4.0 / 9 against 5.0 / 9    odds 2/3 * exp(-w 1.0 / 9)
    """
    first = np.array([[0.8, 0.4], [0.4, 0.4]], dtype=np.float32)
    found = dense_crf(
        np.zeros((2, 2, 3), dtype=np.uint8),
        np.stack((first, 1 - first)),
        iterations=1,
        gaussian=(1 / math.sqrt(2 * math.log(2)), 9 * math.log(2)),
        bilateral=(1, 1, 0),
    )
    odds = np.array([[4 * 2**1.4, 2 / 3 * 2**-0.2], [2 / 3 * 2**-0.2, 1 / 3]])
    np.testing.assert_allclose(found[0], odds / (1 + odds), rtol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-6)


def test_a_colour_step_stops_the_bilateral_kernel_by_hand() -> None:
    """Two pixels, one column apart in sxy = 1 and d in colour of srgb = d: they weigh exp(-1/2 - 1/2) = 1/e. Rows sum
    to 1 + 1/e: with a = 1 / (1 + 1/e), the pixel itself counts a, the other 1 - a."""
    image = np.array([[[10, 20, 30], [10, 20, 47]]], dtype=np.uint8)
    given = np.array([[[0.9, 0.3]], [[0.1, 0.7]]], dtype=np.float32)
    found = dense_crf(image, given, iterations=1, gaussian=(1, 0), bilateral=(1, 17, 2))
    own = 1 / (1 + math.exp(-1))
    odds = 9 * math.exp(2 * (own * 0.8 - (1 - own) * 0.4))
    assert found[0, 0, 0] == pytest.approx(odds / (1 + odds), rel=1e-5)


@pytest.mark.parametrize("method", ["fast", "exact"])
@pytest.mark.parametrize(("height", "width", "num_classes"), [(1, 1, 2), (1, 9, 1), (7, 1, 3), (11, 14, 4)])
def test_is_the_definition_on_small_images(method: crf.Method, height: int, width: int, num_classes: int) -> None:
    image, given, _ = scene(height, width, num_classes, seed=3)
    for settings in (
        {"gaussian": (3.0, 3.0), "bilateral": (80.0, 13.0, 10.0)},
        {"gaussian": (1, 2), "bilateral": (4, 30, 5)},
    ):
        expected = obvious(image, given, iterations=5, **settings)  # type: ignore[arg-type]
        found = dense_crf(image, given, method=method, **settings)  # type: ignore[arg-type]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blocks_of_the_exact_one_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    image, given, _ = scene(20, 24, 3, seed=1)
    whole = dense_crf(image, given, method="exact")
    monkeypatch.setattr(kernels, "ENTRIES_AT_ONCE", 1000)
    monkeypatch.setattr(crf, "BAND", 200)
    np.testing.assert_allclose(dense_crf(image, given, method="exact"), whole, atol=1e-6)


# pydensecrf 1.0rc3, built from source (DenseCRF2D, unary_from_softmax, its default kernels and normalisation, 5
# iterations, sxy 3 and weight 3, sxy 80 and srgb 13 and weight 10) on `scene(12, 16, 3, seed=7)`: its labels.
PYDENSECRF = """
2222111111111100
2222211001222200
2222210000222000
1111110000000000
1111111000000000
1111111000000000
1111111000011100
1111111001111100
1111111111111222
1111111111111222
1111111111100222
1110111111000000
"""


def test_labels_are_those_of_pydensecrf() -> None:
    image, given, _ = scene(12, 16, 3, seed=7)
    expected = np.array([[int(digit) for digit in line] for line in PYDENSECRF.split()])
    assert np.array_equal(dense_crf(image, given).argmax(0), expected)
    assert (given.argmax(0) != expected).mean() > 0.1  # it had something to do


def test_the_lattice_labels_as_the_exact_kernel_does() -> None:
    image, given, truth = scene(72, 96, 5, seed=2)
    fast, exact = (dense_crf(image, given, method=method) for method in ("fast", "exact"))
    assert (fast.argmax(0) == exact.argmax(0)).mean() >= 0.99
    assert np.abs(fast - exact).mean() < 0.005
    assert (fast.argmax(0) == truth).mean() > (given.argmax(0) == truth).mean() + 0.05


def test_the_lattice_sums_as_the_exact_kernel_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of the normalised kernel, on values of noise, to which errors are largest."""
    image, _, _ = scene(40, 50, 4, seed=5)
    values = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    sums = [
        make(torch.from_numpy(image), 30.0, 13.0)(values)(0, 40)
        for make in (lattice_bilateral, kernels.exact_bilateral)
    ]
    assert float((sums[0] - sums[1]).abs().mean() / sums[1].mean()) < 0.03


def test_where_pixels_are_alone_the_lattice_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and small deviations: hardly a pixel shares a corner, and the corners between would be dozens for each."""
    widest = 0

    def spy(keys: lattice.Keys, axis: int, most: int) -> lattice.Keys:
        nonlocal widest
        wider = widened(keys, axis, most)
        widest = max(widest, len(wider))
        assert most == lattice.ALWAYS_HELD
        return wider

    widened = lattice._widened
    monkeypatch.setattr(lattice, "_widened", spy)
    image = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    values = torch.rand(900, 2, generator=torch.Generator().manual_seed(0))
    sums = [
        make(torch.from_numpy(image), 5.0, 4.0)(values)(0, 30) for make in (lattice_bilateral, kernels.exact_bilateral)
    ]
    assert 6 * 900 < widest <= lattice.ALWAYS_HELD, "more than the corners of the pixels themselves, but not all"
    assert float((sums[0] - sums[1]).abs().mean()) < 0.02


def test_the_lattice_is_symmetric() -> None:
    image, _, _ = scene(12, 10, 3, seed=5)
    sums = lattice_bilateral(torch.from_numpy(image), 6.0, 10.0)(torch.eye(120))(0, 12)
    np.testing.assert_allclose(sums.numpy(), sums.numpy().T, atol=1e-6)
    # With normalisation on both sides, the square roots of the row sums are left as they are, so no value grows.
    assert float(torch.linalg.eigvalsh(sums)[-1]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("sxy", [0.5, 3.0, 11.0])
def test_the_fast_gaussian_is_the_exact_one_but_for_its_tails(sxy: float) -> None:
    values = torch.rand(23 * 17, 3, generator=torch.Generator().manual_seed(0))
    device = torch.device("cpu")
    fast, exact = (make(23, 17, sxy, device)(values) for make in (kernels.fast_gaussian, kernels.exact_gaussian))
    np.testing.assert_allclose(fast(0, 23).numpy(), exact(0, 23).numpy(), atol=6e-3)
    np.testing.assert_allclose(
        torch.cat((fast(0, 5), fast(5, 22), fast(22, 23))).numpy(), fast(0, 23).numpy(), atol=1e-6
    )


def test_a_wide_gaussian_is_cut_to_the_image() -> None:
    """Of a thousand pixels' deviation all is within the image: it sums what the exact one does, in no more memory."""
    values, device = torch.rand(23 * 17, 3), torch.device("cpu")
    fast, exact = (make(23, 17, 1000.0, device)(values) for make in (kernels.fast_gaussian, kernels.exact_gaussian))
    torch.testing.assert_close(fast(0, 23), exact(0, 23))
    torch.testing.assert_close(fast(5, 9), exact(5, 9))
    with HeldBytes() as held:
        kernels.fast_gaussian(23, 17, 1000.0, device)(values)(0, 23)
    assert held.peak < 20 * values.nbytes


def test_bands_and_repetition_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    image, given, _ = scene(70, 61, 3, seed=4)
    first = dense_crf(image, given)
    assert np.array_equal(dense_crf(image, given), first)
    monkeypatch.setattr(crf, "BAND", 1)
    np.testing.assert_allclose(dense_crf(image, given), first, atol=1e-5)


def test_odd_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """One colour, one row, colours at both ends: the lattice has few corners, or many on one axis."""
    monkeypatch.setattr(crf, "SMALL", 0)
    for height, width in ((1, 1), (1, 50), (50, 1), (9, 13)):
        for image in (np.zeros((height, width, 3)), np.random.default_rng(0).choice([0, 255], (height, width, 3))):
            image = image.astype(np.uint8)
            _, given, _ = scene(height, width, 3, seed=0)
            found = dense_crf(image, given)
            exact = dense_crf(image, given, method="exact")
            np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
            assert np.abs(found - exact).mean() < 0.02, (height, width)


def test_large_weights_and_certain_classes_stay_finite() -> None:
    image, given, _ = scene(66, 64, 3, seed=0)
    certain = (given == given.max(0)).astype(np.float32)
    found = dense_crf(image, certain, gaussian=(3, 300), bilateral=(20, 10, 500))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)


def test_without_kernels_or_iterations_probabilities_stay() -> None:
    image, given, _ = scene(9, 8, 3, seed=0)
    np.testing.assert_allclose(dense_crf(image, given, gaussian=(0, 0), bilateral=(0, 0, 0)), given, atol=1e-4)
    np.testing.assert_allclose(dense_crf(image, given, iterations=0), given, atol=1e-4)


def test_answers_in_kind_and_several_at_once() -> None:
    made = [scene(67, 65, 3, seed=seed) for seed in (0, 1)]
    images, given = np.stack([each[0] for each in made]), np.stack([each[1] for each in made])
    together = dense_crf_batch(images, given, iterations=2)
    assert isinstance(together, np.ndarray)
    for image, each, found in zip(images, given, together, strict=True):
        assert np.array_equal(dense_crf(image, each, iterations=2), found)
    as_tensors = dense_crf_batch(torch.from_numpy(images), torch.from_numpy(given), iterations=2)
    assert isinstance(as_tensors, torch.Tensor)
    assert np.array_equal(as_tensors.numpy(), together)
    turned = dense_crf(images[0][::-1], given[0][:, ::-1].astype(np.float64), iterations=2)
    np.testing.assert_allclose(turned[:, ::-1], together[0], atol=2e-2)


IMAGE, GIVEN = np.zeros((4, 6, 3), dtype=np.uint8), np.full((2, 4, 6), 0.5, dtype=np.float32)


@pytest.mark.parametrize(
    ("image", "given", "settings", "said"),
    [
        (IMAGE.astype(np.float32), GIVEN, {}, "image is float32 (4, 6, 3); expected uint8 (H, W, 3)"),
        (IMAGE[:, :, :1], GIVEN, {}, "image is uint8 (4, 6, 1)"),
        (IMAGE[:0], GIVEN[:, :0], {}, "at least one pixel"),
        (IMAGE.tolist(), GIVEN, {}, "the image came as list"),
        (IMAGE, GIVEN[:, :, :5], {}, "expected floats (K, 4, 6), the image's size"),
        (IMAGE, GIVEN.astype(np.int64), {}, "probabilities are int64 (2, 4, 6)"),
        (IMAGE, GIVEN * 2, {}, "sum to 2 to 2"),
        (IMAGE, np.stack((GIVEN[0] * 3, -GIVEN[0])), {}, "none negative or NaN"),
        (IMAGE, GIVEN * np.nan, {}, "none negative or NaN: take the softmax of logits first"),
        (IMAGE, GIVEN, {"method": "quick"}, "method is 'quick'; expected 'fast' or 'exact'"),
        (IMAGE, GIVEN, {"iterations": -1}, "iterations are -1; expected a whole number"),
        (IMAGE, GIVEN, {"gaussian": (3, 3, 3)}, "gaussian is (3, 3, 3); expected (sxy, weight)"),
        (IMAGE, GIVEN, {"bilateral": (80, -13, 10)}, "bilateral is (80, -13, 10); expected (sxy, srgb, weight)"),
        (IMAGE, GIVEN, {"bilateral": (80, math.inf, 10)}, "finite numbers and none negative"),
        (IMAGE, GIVEN, {"bilateral": (0, 13, 10)}, "standard deviations above 0, or weight 0"),
    ],
)
def test_refuses_what_it_cannot_use(image: Any, given: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        dense_crf(image, given, **settings)
    assert said in str(caught.value)


def test_refuses_a_batch_of_unlike_lengths_and_a_lattice_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="2 images and probabilities of 1"):
        dense_crf_batch(np.stack((IMAGE, IMAGE)), GIVEN[None])
    monkeypatch.setattr(crf, "SMALL", 0)
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="standard deviations of the bilateral kernel are too small"):
        dense_crf(image, GIVEN, bilateral=(1e-4, 1e-4, 1))
