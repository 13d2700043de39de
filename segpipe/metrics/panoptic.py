"""Panoptic quality: PQ, SQ and RQ over categories, and the meter that gathers them over a split.

Source: Kirillov et al. 2019 (arXiv 1801.00868, section 4); the rules that the paper leaves open, and the order in which
floats are added, are panopticapi's, so that values equal those of its evaluator in one process to the last digit (its
several processes add in another order). `segments.py` counts one image. Letter legend: n images, K categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.bootstrap import mean_ratio
from segpipe.metrics.once import in_order, refuse_twice, refuse_unlike
from segpipe.metrics.segments import SegmentCounts, count_segments

ImageId = int | str

SCORES = ("pq", "sq", "rq")


def panoptic_quality(
    ground_truth: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
    *,
    dilation_ratio: float | None = None,
) -> dict[str, Any]:
    """{"all", "things", "stuff"}: {"pq", "sq", "rq", "n"}, and "per_class": {category id: {"pq", "sq", "rq"}}.

    An item is {"image_id", "map", "segments_info": [{"id", "category_id", "iscrowd"}]}, its map (H, W) integer segment
    ids with 0 = void, NumPy or torch; a category is {"id", "isthing"}. `iscrowd` may be absent, which means 0. A
    prediction for an image without truth is passed over.

    A prediction matches a segment of its category that is no crowd when their IoU, of which the truth's void pixels are
    no part, exceeds 0.5. What matches nothing and lies by more than half in void, or in its category's crowd, is no
    false positive. Means are over the n categories with a segment that counts; nan when n is 0. A category that counts
    nowhere has zeros in "per_class". With `dilation_ratio` (COCO: 0.02) the overlap is min(IoU, boundary IoU), which is
    boundary PQ (Cheng et al. 2021).

    Raises InputError, with image and segment, on ids of a map that segments_info lacks or the reverse, on categories
    that are not listed, other sizes, double ids, and images without a prediction.
    """
    meter = PanopticMeter(categories, dilation_ratio=dilation_ratio)
    wanted = list(_by_image(ground_truth, "truth"))
    found = _by_image(predictions, "prediction")
    if missing := [image_id for image_id in wanted if image_id not in found]:
        raise InputError(
            f"panoptic quality: image {missing[0]!r} has no prediction ({len(missing)} such of {len(wanted)} images); "
            "an image in which nothing was found has a map of zeros"
        )
    meter.update(ground_truth, [found[image_id] for image_id in wanted])
    return meter.scores(wanted)


def dataset_pq(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """PQ over all categories of summed `PanopticMeter.counts` (..., K, 4), shape (...); nan where nothing counted.

    Categories without a segment drop out of the mean. For resampling: floats are added in another order than by
    `PanopticMeter.scores`, whose last digits are panopticapi's.
    """
    table = np.asarray(counts, dtype=np.float64)
    below = table[..., 1] + 0.5 * table[..., 2] + 0.5 * table[..., 3]
    return mean_ratio(np.stack([table[..., 0], below], axis=-1))


class PanopticMeter:
    """Gathers panoptic quality over a split; every image counts exactly once, and parts merge in any order.

    What is kept is by image, and summed at the end in one order: scores are bit-equal for any number of workers.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]], *, dilation_ratio: float | None = None) -> None:
        self.is_thing = _is_thing(categories)
        self.dilation_ratio = dilation_ratio
        self.per_sample: dict[ImageId, SegmentCounts] = {}

    def update(self, ground_truth: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]) -> None:
        """Counts images; item i of both is one image. Raises InputError as `panoptic_quality`; nothing counts then."""
        if len(ground_truth) != len(predictions):
            raise InputError(
                f"panoptic quality: {len(ground_truth)} truths and {len(predictions)} predictions; expected one of each"
            )
        positions = {category_id: place for place, category_id in enumerate(self.is_thing)}
        part: dict[ImageId, SegmentCounts] = {}
        for truth, prediction in zip(ground_truth, predictions, strict=True):
            image_id = _image_id(truth, "truth")
            if image_id != _image_id(prediction, "prediction"):
                raise InputError(
                    f"panoptic quality: truth of image {image_id!r} stands beside the prediction of image "
                    f"{prediction['image_id']!r}; expected both lists in one order"
                )
            refuse_twice([image_id], part)
            part[image_id] = count_segments(truth, prediction, positions, self.dilation_ratio)
        refuse_twice(part, self.per_sample)
        self.per_sample.update(part)

    def merge(self, other: PanopticMeter) -> None:
        """Adds what `other` counted. Raises InputError on other categories or boundaries, or an image in both."""
        mine, theirs = (
            {"categories": list(meter.is_thing.items()), "dilation_ratio": meter.dilation_ratio}
            for meter in (self, other)
        )
        refuse_unlike(mine, theirs)
        refuse_twice(other.per_sample, self.per_sample)
        self.per_sample.update(other.per_sample)

    def counts(self, image_ids: Sequence[ImageId] | None = None) -> npt.NDArray[np.float64]:
        """(n, K, 4): sum of the matches' IoU, true positives, false positives and false negatives, by image.

        In the order of `image_ids` (default: sorted). Raises InputError when these are not the images counted.
        """
        wanted = in_order(image_ids, self.per_sample)
        table: npt.NDArray[np.float64] = np.zeros((len(wanted), len(self.is_thing), 4))
        for row, image_id in zip(table, wanted, strict=True):
            counted = self.per_sample[image_id]
            for k, iou in zip(counted.matched, counted.ious, strict=True):
                row[k, :2] += (iou, 1)
            row[:, 2], row[:, 3] = counted.false_positives, counted.false_negatives
        return table

    def scores(self, image_ids: Sequence[ImageId] | None = None) -> dict[str, Any]:
        """The scores of `panoptic_quality`. Floats are added in the order of `image_ids` (default: sorted)."""
        wanted = in_order(image_ids, self.per_sample)
        iou = dict.fromkeys(range(len(self.is_thing)), 0.0)
        for image_id in wanted:
            # One match after the other, since sums of sums would differ from panopticapi's in the last digits.
            for k, value in zip(self.per_sample[image_id].matched, self.per_sample[image_id].ious, strict=True):
                iou[k] += value
        totals = self.counts(wanted)[:, :, 1:].sum(axis=0).astype(np.int64).tolist()
        per_class = {}
        occurs = {}
        for k, category_id in enumerate(self.is_thing):
            true_positives, false_positives, false_negatives = totals[k]
            below = true_positives + 0.5 * false_positives + 0.5 * false_negatives
            occurs[category_id] = below > 0
            per_class[category_id] = {
                "pq": iou[k] / below if below else 0.0,
                "sq": iou[k] / true_positives if true_positives else 0.0,
                "rq": true_positives / below if below else 0.0,
            }
        kinds = {"all": (True, False), "things": (True,), "stuff": (False,)}
        means: dict[str, Any] = {
            name: _mean([per_class[c] for c, thing in self.is_thing.items() if thing in kind and occurs[c]])
            for name, kind in kinds.items()
        }
        return means | {"per_class": per_class}

    def tables(
        self, image_ids: Sequence[ImageId] | None = None
    ) -> tuple[dict[str, float | None], dict[int, dict[str, float | None]]]:
        """The scores as "pq/all", "sq/things", "rq/stuff" and so on, and {"pq", "sq", "rq"} of each category; None
        where nothing counted."""
        found, counts_nK4 = self.scores(image_ids), self.counts(image_ids)
        metrics = {
            f"{score}/{kind}": found[kind][score] if found[kind]["n"] else None
            for score in SCORES
            for kind in ("all", "things", "stuff")
        }
        per_class = {
            category_id: scores if counts_nK4[:, k, 1:].any() else dict.fromkeys(SCORES)
            for k, (category_id, scores) in enumerate(found["per_class"].items())
        }
        return metrics, per_class


def _mean(classes: Sequence[Mapping[str, float]]) -> dict[str, float | int]:
    n = len(classes)
    # Added one by one: `sum` of Python 3.12 on compensates, and would differ from panopticapi in the last digit.
    means: dict[str, float | int] = {}
    for name in SCORES:
        total = 0.0
        for scores in classes:
            total += scores[name]
        means[name] = total / n if n else float("nan")
    return means | {"n": n}


def _is_thing(categories: Sequence[Mapping[str, Any]]) -> dict[int, bool]:
    """{category id: is a thing}, in the order given."""
    kinds: dict[int, bool] = {}
    for category in categories:
        if not isinstance(category.get("id"), int | np.integer) or category.get("isthing") not in (0, 1):
            raise InputError(f"panoptic quality: category {dict(category)}: expected a whole id, and isthing 0 or 1")
        if category["id"] in kinds:
            raise InputError(f"panoptic quality: category {category['id']} is listed twice")
        kinds[int(category["id"])] = bool(category["isthing"])
    return kinds


def _by_image(items: Sequence[Mapping[str, Any]], what: str) -> dict[ImageId, Mapping[str, Any]]:
    found: dict[ImageId, Mapping[str, Any]] = {}
    for item in items:
        image_id = _image_id(item, what)
        if image_id in found:
            raise InputError(f"panoptic quality: image {image_id!r} has two {what}s; expected one an image")
        found[image_id] = item
    return found


def _image_id(item: Mapping[str, Any], what: str) -> ImageId:
    image_id = item.get("image_id") if isinstance(item, Mapping) else None
    if isinstance(image_id, np.integer):
        return int(image_id)
    if not isinstance(image_id, int | str):
        raise InputError(f"panoptic quality: a {what} has image_id {image_id!r}; expected a whole number or a text")
    return image_id
