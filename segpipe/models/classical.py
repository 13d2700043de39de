"""The classical baselines as models: counts of a training split as buffers, a method of `segpipe/classical` as forward.

No network, and no parameter: what is learned are whole numbers (`classical/appearance.py`), and `observe` adds to them.
So a baseline is trained, saved, loaded, evaluated, registered and served as every other model is.

    images, normalised -> RGB of 8 bits -> a method on each image, with what was counted -> scores of K classes

The methods compute in NumPy on the CPU, image by image. Each is described, with its paper, in its own file.

Letter legend: N batch, K classes, H W image size, C channels, B colours, P places.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segpipe.classical import colour_thresholds, graph_cut, kmeans, spectral, watershed
from segpipe.classical.appearance import COLOURS, PLACES, Appearance, count
from segpipe.errors import InputError
from segpipe.models.parts.colours import check_rgb, rgb_of
from segpipe.models.spec import DenseOutput, Held, ModelSpec, check_counts
from segpipe.types import Task

Method = Callable[..., npt.NDArray[np.float32]]


class Baseline(nn.Module):
    """Maps images_NCHW (normalised RGB, any H, W >= 1) to DenseOutput without auxiliary logits. See `spec.Counting`."""

    colours_KB: Tensor
    places_KP: Tensor

    def __init__(self, num_classes: int, method: Method) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("colours_KB", torch.zeros(num_classes, COLOURS, dtype=torch.int64))
        self.register_buffer("places_KP", torch.zeros(num_classes, PLACES, dtype=torch.int64))
        self._known: Appearance | None = None

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        (n, _, height, width), num_classes = images_NCHW.shape, len(self.colours_KB)
        if images_NCHW.is_meta:  # shapes alone are asked for
            return DenseOutput(scores_NKhw=images_NCHW.new_empty(n, num_classes, height, width))
        known = self._appearance()
        scores = [torch.from_numpy(self.method(image_HW3, known)) for image_HW3 in rgb_of(images_NCHW)]
        return DenseOutput(scores_NKhw=torch.stack(scores).to(images_NCHW.device))

    def observe(self, images_NCHW: Tensor, labels_NHW: Tensor) -> None:
        for image_HW3, labels_HW in zip(rgb_of(images_NCHW), labels_NHW.cpu().numpy(), strict=True):
            found = count(image_HW3, labels_HW, len(self.colours_KB))
            self.colours_KB += torch.from_numpy(found.colours_KB).to(self.colours_KB.device)
            self.places_KP += torch.from_numpy(found.places_KP).to(self.places_KP.device)

    def _appearance(self) -> Appearance:
        """The counts in NumPy: the same object until they change, since methods keep what they derive from it."""
        colours_KB, places_KP = self.colours_KB.cpu().numpy(), self.places_KP.cpu().numpy()
        known = self._known
        if known is None or not (
            np.array_equal(known.colours_KB, colours_KB) and np.array_equal(known.places_KP, places_KP)
        ):
            self._known = known = Appearance(colours_KB=colours_KB.copy(), places_KP=places_KP.copy())
        return known


def build(
    method: Method,
    check: Callable[..., None] | None = None,
    /,
    *,
    num_classes: int,
    in_channels: int,
    **options: Any,
) -> Baseline:
    """A baseline that has counted nothing yet. Raises InputError on options out of range, and unless images are RGB."""
    check_rgb(in_channels)
    if check is not None:
        check(**options)
    return Baseline(num_classes, partial(method, **options))


def _check_positive(**options: float) -> None:
    for name, value in options.items():
        if not 0 < value < float("inf"):
            raise InputError(f"{name}: expected a number above 0, found {value}")


def _check_not_negative(**options: float) -> None:
    for name, value in options.items():
        if not 0 <= value < float("inf"):
            raise InputError(f"{name}: expected a number of at least 0, found {value}")


def _check_kmeans(*, clusters: int, place_weight: float) -> None:
    check_counts(clusters=clusters)
    _check_not_negative(place_weight=place_weight)


def _check_spectral(*, clusters: int, superpixels: int, **scales: float) -> None:
    check_counts(clusters=clusters, superpixels=superpixels)
    _check_positive(**scales)


def _check_watershed(*, smoothing: float, depth: float) -> None:
    _check_positive(smoothing=smoothing)
    _check_not_negative(depth=depth)


def _check_graph_cut(*, smoothness: float, cycles: int) -> None:
    _check_not_negative(smoothness=smoothness)
    check_counts(cycles=cycles)


_COLOURS, _CLUSTERS = "scikit-image", ("scikit-learn", "threadpoolctl")  # L*a*b* of all; k-means and spectral
_SPEC = partial(
    ModelSpec,
    task=Task.SEMANTIC,
    output=DenseOutput,
    tiny={},
    size_divisor=1,
    learns_by="counting",
    held=Held(pixel=24, score=5),
)
_NAMED = (
    "the paper finds regions without naming them: here each gets the class that explains its pixels best, by how often "
    "the classes of the training split have these colours and lie at these places"
)

SPECS = (
    _SPEC(
        name="colour_thresholds",
        paper=(
            "Fast and Inexpensive Color Image Segmentation for Interactive Robots, Bruce, Balch, Veloso, 2000, IROS"
        ),
        build=partial(build, colour_thresholds.segment),
        requires=(_COLOURS,),
        held=Held(pixel=24),
        options={},
        differs=(
            "thresholds are not drawn by hand: of all boxes of colours, a class has the one with the best IoU on the "
            "training split",
            "L*a*b* in 16 steps a channel instead of YUV in 256",
            "a pixel within the thresholds of several classes is of the one that is most often right there, and one "
            "within none of the one whose thresholds are nearest",
            "pixels alone: the connected components of the paper's second half are objects, and not classes",
        ),
    ),
    _SPEC(
        name="kmeans",
        paper="Least Squares Quantization in PCM, Lloyd, 1982, IEEE Transactions on Information Theory 28(2)",
        build=partial(build, kmeans.segment, _check_kmeans),
        requires=(_COLOURS, *_CLUSTERS),
        options={"clusters": 32, "place_weight": 0.5},
        differs=(
            "colours and places of an image's pixels instead of samples of a signal; first centres by k-means++ "
            "(Arthur, Vassilvitskii, 2007), one start, from a fixed seed",
            "centres are found on at most about 16,384 pixels of an image, evenly spaced",
            _NAMED,
        ),
    ),
    _SPEC(
        name="spectral_superpixels",
        paper="Normalized Cuts and Image Segmentation, Shi, Malik, 2000, IEEE TPAMI 22(8)",
        build=partial(build, spectral.segment, _check_spectral),
        requires=(_COLOURS, *_CLUSTERS),
        options={
            "clusters": 32,
            "superpixels": 400,
            "compactness": 10.0,
            "colour_scale": 10.0,
            "place_scale": 0.2,
        },
        differs=(
            "superpixels (SLIC; Achanta and others, 2012, IEEE TPAMI 34(11)) instead of pixels, each like every other "
            "one by colour and place instead of those within a radius",
            "all parts at once from as many eigenvectors, by pivoted QR (Damle, Minden, Ying, 2019), instead of cuts "
            "in two, one after the other",
            _NAMED,
        ),
    ),
    _SPEC(
        name="watershed",
        paper=(
            "Watersheds in Digital Spaces: An Efficient Algorithm Based on Immersion Simulations, Vincent, Soille, "
            "1991, IEEE TPAMI 13(6)"
        ),
        build=partial(build, watershed.segment, _check_watershed),
        requires=(_COLOURS,),
        options={"smoothing": 1.0, "depth": 1.0},
        differs=(
            "floods from minima that are deep enough alone, by a queue (Meyer), and gives the lines between basins to "
            "one of them",
            "the gradient is that of L*a*b* after a Gaussian",
            _NAMED,
        ),
    ),
    _SPEC(
        name="graph_cut",
        paper=("Fast Approximate Energy Minimization via Graph Cuts, Boykov, Veksler, Zabih, 2001, IEEE TPAMI 23(11)"),
        build=partial(build, graph_cut.segment, _check_graph_cut),
        requires=(_COLOURS,),
        held=Held(pixel=320, score=5),  # eight neighbours of each pixel, and the flow to them
        options={"smoothness": 4.0, "cycles": 5},
        differs=(
            "the paper restores images and finds disparities: here the data term is how often a class has a pixel's "
            "colour and place, and neighbours are the eight around a pixel, weighed by contrast (Boykov, Jolly, 2001)",
            "ends after `cycles` rounds over all classes, where the paper goes on until none gains anything",
        ),
    ),
)
