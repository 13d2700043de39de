"""Cityscapes' average precision of instances, as its own script defines it; a pure function on masks.

Source: Cordts et al. 2016 (arXiv 1604.01685, section 4.2) and evalInstanceLevelSemanticLabeling.py of cityscapesScripts
2.3, without AP50m and AP100m, for which it needs disparity maps. It differs from COCO's AP: precision is not
interpolated, objects below 100 pixels and groups only excuse, and each true object takes the best of its predictions.
Letter legend: H W image size, C instance classes, T overlaps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.arrays import as_array

OVERLAPS_T = np.arange(0.5, 1.0, 0.05)  # with their rounding: an overlap must exceed 0.6000000000000001, not 0.6
MIN_REGION = 100  # pixels
INSTANCE_FACTOR = (
    1000  # an instance's id is class * 1000 + number; below it stands a group, or a class without instances
)
# Label ids of the dataset (helpers/labels.py): classes with instances that count, and those that are not evaluated.
INSTANCE_CLASSES = (24, 25, 26, 27, 28, 31, 32, 33)  # person rider car truck bus train motorcycle bicycle
# Caravans (29) and trailers (30) are void as groups alone: the script looks for 29 in maps that hold 29000.
VOID_IDS = (-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
LABEL_IDS = range(-1, 34)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A predicted mask: its score and size, its pixels on void, and those on each true instance of its class."""

    score: float
    pixels: int
    void: int
    common: dict[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Image:
    """One image and class: pixels of the true instances (and groups) by id, and what was predicted."""

    true_pixels: dict[int, int]
    found: list[_Found] = field(default_factory=list)

    def objects(self) -> list[int]:
        """The instances that count: neither groups nor too small."""
        return [id_ for id_, pixels in self.true_pixels.items() if id_ >= INSTANCE_FACTOR and pixels >= MIN_REGION]


def cityscapes_average_precision(
    ground_truth: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """{"AP", "AP50", "per_class": {label id: {"AP", "AP50"}}}, each 0..1, nan for a class without a true object.

    `ground_truth` items are {"image_id", "map"}: the (H, W) integers of `*_gtFine_instanceIds.png`. `predictions` are
    {"image_id", "category_id", "mask", "score"}: the dataset's label id (26 is car), a (H, W) mask, bool or integer,
    non-zero = inside, and a finite score. Arrays are NumPy or torch. Masks without a pixel and labels that are not
    among the eight instance classes do not count.

    AP is the mean over classes and the overlaps 0.5, 0.55, ... 0.95, AP50 that at 0.5. Raises InputError on other
    shapes and types, unknown labels, scores that are not finite, double images, and images without truth.
    """
    table_CT = np.full((len(INSTANCE_CLASSES), len(OVERLAPS_T)), np.nan)
    for row_T, images in zip(table_CT, _by_class(ground_truth, predictions).values(), strict=True):
        row_T[:] = [_precision(images, overlap) for overlap in OVERLAPS_T]
    return {
        "AP": _mean(table_CT),
        "AP50": _mean(table_CT[:, 0]),
        "per_class": {
            class_id: {"AP": float(row.mean()), "AP50": float(row[0])}
            for class_id, row in zip(INSTANCE_CLASSES, table_CT, strict=True)
        },
    }


def _by_class(
    ground_truth: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]
) -> dict[int, list[_Image]]:
    """Every image with its predictions, by class. Raises InputError on what cannot be counted."""
    maps: dict[Any, npt.NDArray[Any]] = {}
    images: dict[int, dict[Any, _Image]] = {class_id: {} for class_id in INSTANCE_CLASSES}
    for truth in ground_truth:
        image_id = truth.get("image_id")
        if not isinstance(image_id, int | str | np.integer):
            raise _bad(image_id, "expected a whole number or a text as image_id of a truth")
        if image_id in maps:
            raise _bad(image_id, "has two truths; expected one an image")
        maps[image_id] = _array(truth.get("map"), image_id, "map")
        pixels = _counts(maps[image_id])
        for class_id in INSTANCE_CLASSES:
            images[class_id][image_id] = _Image(true_pixels=_of_class(pixels, class_id))
    for prediction in predictions:
        image_id, label, score = (prediction.get(name) for name in ("image_id", "category_id", "score"))
        if not isinstance(image_id, int | str | np.integer) or image_id not in maps:
            raise _bad(image_id, "has a prediction and no truth")
        if label not in LABEL_IDS:
            raise _bad(image_id, f"a prediction has category_id {label!r}; expected a Cityscapes label id, 26 for car")
        if not isinstance(score, int | float | np.number) or not math.isfinite(score):
            raise _bad(image_id, f"a prediction has score {score!r}; expected a finite number")
        mask = _array(prediction.get("mask"), image_id, "mask") != 0
        if mask.shape != maps[image_id].shape:
            raise _bad(image_id, f"the map is {maps[image_id].shape}, a predicted mask {mask.shape}; expected one size")
        covered = _counts(maps[image_id][mask])
        if label in images and covered:
            found = _Found(
                score=float(score),
                pixels=sum(covered.values()),
                void=sum(pixels for id_, pixels in covered.items() if id_ in VOID_IDS),
                common=_of_class(covered, label),
            )
            images[label][image_id].found.append(found)
    return {class_id: list(of_class.values()) for class_id, of_class in images.items()}


def _precision(images: Sequence[_Image], overlap: float) -> float:
    """Average precision of one class at one overlap; nan where no object is true."""
    if not any(image.objects() for image in images):
        return math.nan
    if not any(image.found for image in images):
        return 0.0
    right: list[float] = []  # scores
    wrong: list[float] = []
    missed = 0
    for image in images:
        for id_ in image.objects():
            # At one half and more only one object can claim a mask, but several masks one object: the best counts.
            scores = sorted(found.score for found in image.found if _iou(image, found, id_) > overlap)
            missed += not scores
            right += scores[-1:]
            wrong += scores[:-1]
        wrong += [found.score for found in image.found if _is_wrong(image, found, overlap)]
    return _area_under_curve(right, wrong, missed)


def _iou(image: _Image, found: _Found, id_: int) -> float:
    common = found.common.get(id_, 0)
    return common / (image.true_pixels[id_] + found.pixels - common)


def _is_wrong(image: _Image, found: _Found, overlap: float) -> bool:
    """Matches nothing, small objects and groups included, and lies on too little that excuses it."""
    if any(_iou(image, found, id_) > overlap for id_ in found.common):
        return False
    excused = found.void
    for id_, common in found.common.items():
        # A small group excuses twice: as a group, and as a small region.
        excused += common * ((id_ < INSTANCE_FACTOR) + (image.true_pixels[id_] < MIN_REGION))
    return excused / found.pixels <= overlap


def _area_under_curve(right: Sequence[float], wrong: Sequence[float], missed: int) -> float:
    """Area by steps at the middle between neighbours, from the least score kept to none, where precision is 1."""
    scores = np.sort(np.array([*right, *wrong]))
    true = np.sort(np.array(right))
    thresholds = np.unique(scores)
    kept = len(scores) - np.searchsorted(scores, thresholds)
    kept_right = len(true) - np.searchsorted(true, thresholds)
    precision = np.append(kept_right / kept, 1.0)
    # Nothing is in no set of scores: what was found but fell below the threshold is missed with the rest.
    recall = np.append(kept_right / (len(true) + missed), 0.0)
    framed = np.concatenate((recall[:1], recall, [0.0]))
    return float(np.dot(precision, (framed[:-2] - framed[2:]) / 2))


def _counts(ids: npt.NDArray[Any]) -> dict[int, int]:
    values, pixels = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), pixels.tolist(), strict=True))


def _of_class(pixels: Mapping[int, int], class_id: int) -> dict[int, int]:
    """The instances and the group of one class among ids."""
    return {id_: count for id_, count in pixels.items() if id_ == class_id or id_ // INSTANCE_FACTOR == class_id}


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Over what is defined; summed as np.nanmean does, which the script uses."""
    defined = ~np.isnan(values)
    return float(np.where(defined, values, 0).sum() / defined.sum()) if defined.any() else math.nan


def _array(values: Any, image_id: Any, what: str) -> npt.NDArray[Any]:
    array = as_array(values)
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise _bad(image_id, f"expected a {what} of shape (H, W) in integers, found {array.shape} {array.dtype}")
    return array


def _bad(image_id: Any, fault: str) -> InputError:
    return InputError(f"Cityscapes AP: image {image_id!r}: {fault}")
