"""COCO's scores over a split that several workers evaluate: an additive meter, bit for bit the same for any number.

Each image is matched by itself (`coco_match.py`), its matches are kept, and `scores` goes through them by image id, as
pycocotools does. Letter legend: N detections of the split, T IoU thresholds, R recalls, K categories, A area ranges, M
most detections an image and category.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.bootstrap_ap import ApEvidence
from segpipe.metrics.coco import (
    AREAS,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    RECALLS,
    FloatArray,
    category_ap,
    check_measure,
    summary,
)
from segpipe.metrics.coco_entries import CocoIndex, Entry, IouType, read_detections, read_index, read_truths
from segpipe.metrics.coco_match import ImageMatches, match_image
from segpipe.metrics.once import in_order, refuse_twice, refuse_unlike
from segpipe.metrics.precision import PrecisionRecall, precision_recall

ImageId = int | str


class DetectionMeter:
    """Gathers detections and truths image by image; meters of parts of a split merge in any order to equal scores.

    Every image counts exactly once. What is kept of one is a few bytes a detection, never a mask. The sizes of a mask's
    detections go by their boxes where they have any: let all have one, or none (`coco_average_precision`).
    """

    def __init__(self, category_ids: Sequence[int], iou_type: IouType = "segm", *, use_categories: bool = True) -> None:
        check_measure(iou_type, use_categories)
        categories = [{"id": category} for category in category_ids]
        index = read_index({"images": [], "annotations": [], "categories": categories}, iou_type)
        self.categories = index.categories
        self.iou_type = iou_type
        self.use_categories = use_categories
        self.images: dict[ImageId, ImageMatches] = {}

    def update(
        self,
        image_id: ImageId,
        size: tuple[int, int],
        annotations: Sequence[Mapping[str, Any]],
        detections: Sequence[Mapping[str, Any]],
    ) -> None:
        """Counts one image of `size` (height, width) in pixels: its annotations and detections as in COCO's files.

        They need no "image_id", but none of another image. Also an image without either is to be given, once. Raises
        InputError as `coco_average_precision` does, naming the image and the entry; nothing is counted then.
        """
        refuse_twice([image_id], self.images)
        try:
            sized = {"id": 0, "height": size[0], "width": size[1]}
            images = read_index({"images": [sized], "annotations": [], "categories": []}, self.iou_type).images
            index = CocoIndex(images=images, categories=self.categories)
            truths = read_truths(_of_image(annotations, image_id), index, self.iou_type)
            found = read_detections(_of_image(detections, image_id), index, self.iou_type)
        except InputError as error:
            raise InputError(f"image {image_id!r}: {error}") from None
        for entry in (*truths, *found):
            entry["place"] = self.categories[entry["category_id"]] if self.use_categories else 0
        self.images[image_id] = match_image(truths, found, self.iou_type)

    def merge(self, other: DetectionMeter) -> None:
        """Adds what `other` counted. Raises InputError on another measure, other categories, or an image in both."""
        mine, theirs = (
            {"measure": meter.iou_type, "by category": meter.use_categories, "categories": list(meter.categories)}
            for meter in (self, other)
        )
        refuse_unlike(mine, theirs)
        refuse_twice(other.images, self.images)
        self.images.update(other.images)

    def scores(self) -> dict[str, Any]:
        """What `coco_average_precision` gives for the images so far: the same keys, equal to the last bit."""
        return summary(*self._accumulated(), self.iou_type, self._told_apart())

    def metrics(self) -> dict[str, float]:
        """The defined scores under names that say the protocol: "ap/coco/segm", "ap50/coco/segm", "ar100/coco/segm"."""
        return {name: value for name, value in self.tables()[0].items() if value is not None}

    def tables(self) -> tuple[dict[str, float | None], dict[int, dict[str, float | None]]]:
        """All scores by those names, and {"ap", "ap50"} of each category; None where no truth defines one."""
        precision, recall = self._accumulated()
        numbers = summary(precision, recall, self.iou_type, self._told_apart())
        per_class = {
            category: {"ap": _defined(ap), "ap50": _defined(category_ap(precision, k, threshold=0.5))}
            for k, (category, ap) in enumerate(numbers.pop("per_class").items())
        }
        protocol = f"coco/{self.iou_type}" + ("" if self.use_categories else "/class-agnostic")
        return {f"{name.lower()}/{protocol}": _defined(value) for name, value in numbers.items()}, per_class

    def curve(self, category_id: int | None = None, *, iou_threshold: float = 0.5) -> PrecisionRecall:
        """What each score threshold buys in one category, or in all together: detections that match at an IoU (or OKS)
        of `iou_threshold`, one of COCO's 0.5, 0.55, ..., 0.95; those on crowds are left out.

        Raises InputError on another category or threshold.
        """
        chosen = np.flatnonzero(np.abs(IOU_THRESHOLDS - iou_threshold) < 1e-9)
        if not chosen.size:
            raise InputError(f"detection meter: iou_threshold {iou_threshold!r}; expected one of 0.5, 0.55, ..., 0.95")
        if category_id is not None and (not self.use_categories or category_id not in self.categories):
            raise InputError(
                f"detection meter: category {category_id!r} is not told apart; it has {list(self.categories)}"
            )
        scores, hits, truths = [np.zeros(0)], [np.zeros(0, dtype=bool)], 0
        for image in self._ordered():
            right, wrong = (outcome[chosen[0]] for outcome in _outcomes(image.matched[:, 0], image.ignored[:, 0]))
            place = None if category_id is None else self.categories[category_id]
            counted = (right | wrong) & (True if place is None else image.categories == place)
            scores.append(image.scores[counted])
            hits.append(right[counted])
            truths += int(sum(row[1] for row in image.truths if place in (None, row[0])))
        return precision_recall(np.concatenate(scores), np.concatenate(hits), truths)

    def evidence(self, image_ids: Sequence[ImageId]) -> ApEvidence:
        """What matched in which image, for the bootstrap: images are places in `image_ids`, classes in `categories`.

        Detections stand in the order in which `scores` meets them. Raises InputError unless `image_ids` are those that
        were counted.
        """
        places = {image: place for place, image in enumerate(in_order(image_ids, self.images))}
        truths = np.zeros((len(places), self._num_places()), dtype=np.int64)
        for image, matches in self.images.items():
            truths[places[image], matches.truths[:, 0]] = matches.truths[:, 1]
        counted = [(places[image], self.images[image]) for image in in_order(None, self.images)]
        images, classes = (np.zeros(0, dtype=np.int64) for _ in range(2))
        scores, matched, ignored = np.zeros(0), np.zeros(0, dtype=np.uint16), np.zeros(0, dtype=np.uint16)
        return ApEvidence(
            images_D=np.concatenate([images, *(np.full(len(m.scores), place) for place, m in counted)]),
            classes_D=np.concatenate([classes, *(m.categories for _, m in counted)]),
            scores_D=np.concatenate([scores, *(m.scores for _, m in counted)]),
            matched_D=np.concatenate([matched, *(m.matched[:, 0] for _, m in counted)]),
            ignored_D=np.concatenate([ignored, *(m.ignored[:, 0] for _, m in counted)]),
            truths_nK=truths,
        )

    def _accumulated(self) -> tuple[FloatArray, FloatArray]:
        return accumulate(self._ordered(), self._num_places(), self.iou_type)

    def _told_apart(self) -> list[int]:
        return list(self.categories) if self.use_categories else []

    def _ordered(self) -> list[ImageMatches]:
        return [self.images[image] for image in in_order(None, self.images)]

    def _num_places(self) -> int:
        return len(self.categories) if self.use_categories else 1


def accumulate(images: Sequence[ImageMatches], num_places: int, iou_type: str) -> tuple[FloatArray, FloatArray]:
    """pycocotools' arrays over all images: precision (T, R, K, A, M) and recall (T, K, A, M), -1 without truths."""
    most, num_areas = MAX_DETECTIONS[iou_type], len(AREAS[iou_type])
    precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), num_places, num_areas, len(most)), -1.0)
    recall = np.full((len(IOU_THRESHOLDS), num_places, num_areas, len(most)), -1.0)
    if not images:
        return precision, recall
    truths = np.zeros((num_places, num_areas), dtype=np.int64)
    for image in images:
        truths[image.truths[:, 0]] += image.truths[:, 1:]
    ranks = np.concatenate([_ranks(image) for image in images])
    categories, scores, matched, ignored = (
        np.concatenate([getattr(image, name) for image in images])
        for name in ("categories", "scores", "matched", "ignored")
    )
    order = np.argsort(-scores, kind="stable")
    for k in range(num_places):
        mine = order[categories[order] == k]
        for a in np.flatnonzero(truths[k]):
            right, wrong = _outcomes(matched[mine, a], ignored[mine, a])
            for m, limit in enumerate(most):
                kept = ranks[mine] < limit
                curves_TR, recall_T = _curves(right[:, kept], wrong[:, kept], int(truths[k, a]))
                precision[:, :, k, a, m], recall[:, k, a, m] = curves_TR, recall_T
    return precision, recall


def _ranks(image: ImageMatches) -> npt.NDArray[np.int64]:
    """The place (D,) of each detection among those of its category in the image."""
    return np.arange(len(image.categories)) - np.searchsorted(image.categories, image.categories)


def _outcomes(
    matched: npt.NDArray[np.uint16], ignored: npt.NDArray[np.uint16]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """True and false positives (T, N) from bits (N,)."""
    thresholds = np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)[:, None]
    hit, skipped = (bits >> thresholds & 1 > 0 for bits in (matched, ignored))
    return hit & ~skipped, ~hit & ~skipped


def _curves(
    right: npt.NDArray[np.bool_], wrong: npt.NDArray[np.bool_], num_truths: int
) -> tuple[FloatArray, FloatArray]:
    """Precision at each recall (T, R), and the last recall (T,), of outcomes (T, N) by falling score."""
    found, false = np.cumsum(right, axis=1), np.cumsum(wrong, axis=1)
    recalls = found / num_truths
    precisions = found / np.maximum(found + false, 1)
    envelopes = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
    beyond = np.concatenate((envelopes, np.zeros((len(right), 1))), axis=1)
    at_recalls = [line[np.searchsorted(rising, RECALLS)] for line, rising in zip(beyond, recalls, strict=True)]
    return np.stack(at_recalls), recalls[:, -1] if recalls.shape[1] else np.zeros(len(right))


def _defined(value: float) -> float | None:
    return value if value > -1 else None


def _of_image(entries: Sequence[Mapping[str, Any]], image_id: ImageId) -> list[Entry]:
    """The entries with the one image id that the checks of a single image know, 0."""
    for place, entry in enumerate(entries):
        if isinstance(entry, Mapping) and entry.get("image_id", image_id) != image_id:
            raise InputError(f"entry {place} is of image {entry['image_id']!r}; give each image its own entries")
    return [{**entry, "image_id": 0} if isinstance(entry, Mapping) else entry for entry in entries]
