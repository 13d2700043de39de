"""DenseCRF: a model's class probabilities, made to agree with the edges of the image. Part of `refine`.

Kraehenbuehl, Koltun 2011 (Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, arXiv 1210.5644):
mean field inference where every pair of pixels pays for unlike labels, by a kernel over positions and one over
positions and colours. The paper's kernels and update, with three things from the authors' code and from pydensecrf,
where the paper says otherwise or nothing:

    kernels are normalised on both sides (NORMALIZE_SYMMETRIC, the default there);
    a pixel is among its own neighbours (Algorithm 1 of the paper sums over the others; their filters leave it in, and
    normalisation counts it too);
    probabilities below 1e-5 count as 1e-5 (`unary_from_softmax`), so that no class is lost for ever.

    kernels.py   both kernels, exact, and the fast one over positions
    lattice.py   the fast one over positions and colours

Legend: B images, K classes, H W size in pixels, N = H W pixels, P of a band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segpipe.errors import InputError
from segpipe.refine.crf.kernels import Kernel, exact_bilateral, exact_gaussian, fast_gaussian
from segpipe.refine.crf.lattice import lattice_bilateral
from segpipe.types import CrfSettings

__all__ = ["dense_crf", "dense_crf_batch", "numbers_held"]

Array = Tensor | npt.NDArray[Any]
Method = Literal["fast", "exact"]

# What pydensecrf's README and its examples set; no optimum for any data: search one (`segpipe tune-crf`).
DEFAULT = CrfSettings()
LEAST_PROBABILITY = 1e-5
# Up to this many pixels the fast method is the exact one, which is as fast there.
SMALL = 4096
# Numbers of a band of rows, which goes through all steps before the next one: 1 MiB, which a cache holds.
# Whole images took 1.4 times as long, most of it for fresh memory.
BAND = 2**18
# The exponential of more overflows float32, with room for the sum over classes.
LARGEST_EXPONENT = 80.0


def dense_crf(
    image_HW3: Array,
    probabilities_KHW: Array,
    *,
    iterations: int = DEFAULT.iterations,
    gaussian: Sequence[float] = DEFAULT.gaussian,
    bilateral: Sequence[float] = DEFAULT.bilateral,
    method: Method = "fast",
) -> Array:
    """The class probabilities (K, H, W) of one image after `iterations` of mean field: float32, summing to 1.

    `image_HW3` is uint8 RGB, `probabilities_KHW` are floats that sum to 1 over K. Both are NumPy arrays or tensors; the
    answer is of the kind of the probabilities, on their device. `gaussian` is (sxy, weight) and `bilateral` (sxy, srgb,
    weight): standard deviations in pixels and in 0..255, and what a pair of unlike labels costs. A kernel of weight 0
    is left out.

    "exact" sums over all pairs of pixels: N^2 work, for reference; 64 MiB beside what is given. "fast" does linear work
    (`lattice.py`) and takes, beside what is given, 320 to 390 bytes a pixel at 12 classes and the default deviations:
    5 GB for 12 million pixels. Smaller deviations take more, of time too. Up to SMALL pixels it is the exact one. On
    one CPU thread the answer is the same to the last bit for the same input.

    Raises InputError where shapes, types or values are not as said.
    """
    _check_parameters(iterations, gaussian, bilateral, method)
    image = _tensor(image_HW3, "the image")
    given = _tensor(probabilities_KHW, "probabilities")
    _check(image, given)
    with torch.no_grad():
        found_KHW = _mean_field(image.to(given.device), given.float(), iterations, gaussian, bilateral, method)
    return found_KHW if isinstance(probabilities_KHW, Tensor) else found_KHW.cpu().numpy()


def numbers_held(num_classes: int, height: int, width: int) -> float:
    """About how many numbers of 4 bytes `dense_crf` holds of one image, beside what is given.

    The lattice of a photograph has 45 of each pixel and of noise 150 (the default deviations; 480,000 pixels), and
    small deviations do to a photograph what noise does: within two times of what was seen of each.
    """
    return height * width * (4.5 * num_classes + 100)


def dense_crf_batch(
    images_BHW3: Array,
    probabilities_BKHW: Array,
    *,
    iterations: int = DEFAULT.iterations,
    gaussian: Sequence[float] = DEFAULT.gaussian,
    bilateral: Sequence[float] = DEFAULT.bilateral,
    method: Method = "fast",
) -> Array:
    """`dense_crf` of several images of one size. They go one by one, since each has a lattice of its own: the memory is
    that of one, and the answers are those of single calls."""
    if len(images_BHW3) != len(probabilities_BKHW) or not len(images_BHW3):
        raise InputError(
            f"dense_crf: {len(images_BHW3)} images and probabilities of {len(probabilities_BKHW)}; expected as many of "
            "each, and at least one"
        )
    found = [
        dense_crf(image, each, iterations=iterations, gaussian=gaussian, bilateral=bilateral, method=method)
        for image, each in zip(images_BHW3, probabilities_BKHW, strict=True)
    ]
    return torch.stack(found) if isinstance(probabilities_BKHW, Tensor) else np.stack(found)  # type: ignore[arg-type]


def _mean_field(
    image_HW3: Tensor,
    probabilities_KHW: Tensor,
    iterations: int,
    gaussian: Sequence[float],
    bilateral: Sequence[float],
    method: Method,
) -> Tensor:
    K, H, W = probabilities_KHW.shape
    device = probabilities_KHW.device
    exact = method == "exact" or H * W <= SMALL
    terms: list[tuple[Kernel, float]] = []
    if bilateral[2]:
        make = exact_bilateral if exact else lattice_bilateral
        terms.append((make(image_HW3, *bilateral[:2]), bilateral[2]))
    if gaussian[1]:
        made = exact_gaussian if exact else fast_gaussian
        terms.append((made(H, W, gaussian[0], device), gaussian[1]))
    # A row is a pixel: the lattice sums thousands of these, and convolutions are twice as fast.
    logs_NK, found_NK, next_NK = (torch.empty(H * W, K, device=device) for _ in range(3))
    torch.clamp(probabilities_KHW.reshape(K, H * W).T, min=LEAST_PROBABILITY, out=logs_NK).log_()
    rows = max(math.ceil(BAND / (W * K)), math.ceil(2 * gaussian[0]))
    for iteration in range(iterations + 1):
        messages = [(kernel(found_NK), weight) for kernel, weight in terms] if iteration else []
        for top in range(0, H, rows):
            bottom = min(H, top + rows)
            band = slice(top * W, bottom * W)
            exponent_PK = next_NK[band].copy_(logs_NK[band])
            for sums, weight in messages:
                exponent_PK.add_(sums(top, bottom), alpha=weight)
            _normalise(exponent_PK)
        found_NK, next_NK = next_NK, found_NK
    return found_NK.T.contiguous().view(K, H, W)


def _normalise(exponent_PK: Tensor) -> None:
    """The softmax over K, in place. The largest exponent of a pixel is -log K at least, as no message is negative; so
    it needs to be subtracted only where one would overflow."""
    if exponent_PK.max() > LARGEST_EXPONENT:
        exponent_PK -= exponent_PK.amax(1, keepdim=True)
    exponent_PK.exp_()
    exponent_PK /= exponent_PK.sum(1, keepdim=True)


def _tensor(value: Array, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"dense_crf: {what} came as {kind}; expected a NumPy array or tensor of numbers")
    # Tensors have no negative strides, and warn of arrays that must not be written.
    return torch.from_numpy(value.copy() if min(value.strides, default=1) < 0 or not value.flags.writeable else value)


def _check(image: Tensor, given: Tensor) -> None:
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[-1] != 3 or not image.numel():
        raise InputError(
            f"dense_crf: the image is {_named(image)}; expected uint8 (H, W, 3), RGB from 0 to 255, at least one pixel"
        )
    if not given.is_floating_point() or given.dim() != 3 or not len(given) or given.shape[1:] != image.shape[:2]:
        height, width = image.shape[:2]
        raise InputError(
            f"dense_crf: probabilities are {_named(given)}; expected floats (K, {height}, {width}), the image's size"
        )
    # Comparisons that NaN fails.
    if not bool(given.min() >= 0) or not bool(((given.sum(0, dtype=torch.float32) - 1).abs() < 1e-2).all()):
        raise InputError(
            f"dense_crf: probabilities reach from {given.min():g} to {given.max():g} and sum to "
            f"{given.sum(0, dtype=torch.float32).min():g} to {given.sum(0, dtype=torch.float32).max():g} over the "
            "classes of a pixel; expected them to sum to 1, none negative or NaN: take the softmax of logits first"
        )


def _check_parameters(iterations: int, gaussian: Sequence[float], bilateral: Sequence[float], method: str) -> None:
    if method not in ("fast", "exact"):
        raise InputError(f"dense_crf: method is {method!r}; expected 'fast' or 'exact'")
    if not isinstance(iterations, int) or iterations < 0:
        raise InputError(f"dense_crf: iterations are {iterations!r}; expected a whole number, 0 or more")
    for name, names, values in (
        ("gaussian", "(sxy, weight)", gaussian),
        ("bilateral", "(sxy, srgb, weight)", bilateral),
    ):
        if len(values) != names.count(",") + 1 or not all(math.isfinite(value) and value >= 0 for value in values):
            raise InputError(f"dense_crf: {name} is {values!r}; expected {names}, finite numbers and none negative")
        if values[-1] and not all(values):
            raise InputError(
                f"dense_crf: {name} is {values!r}; expected standard deviations above 0, or weight 0 to leave it out"
            )


def _named(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
