"""COCO's average precision and recall: pycocotools' twelve numbers (ten for keypoints), through faster-coco-eval.

The evaluator sees only what `coco_entries.py` has checked. Letter legend, as in pycocotools' arrays: T IoU thresholds
0.5:0.05:0.95, R recalls 0:0.01:1, K categories, A area ranges, M most detections an image and category.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.coco_entries import MASKS, CocoIndex, Entry, IouType, read_detections, read_index, read_truths

FloatArray = npt.NDArray[np.float64]

IOU_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)
RECALLS: FloatArray = np.linspace(0, 1, 101)
_AREAS = {"all": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
# By measure: the area ranges that are told apart, and the most detections of an image and category.
AREAS: dict[str, dict[str, tuple[float, float]]] = {
    **dict.fromkeys((*MASKS, "bbox"), _AREAS),
    "keypoints": {name: bounds for name, bounds in _AREAS.items() if name != "s"},
}
MAX_DETECTIONS: dict[str, tuple[int, ...]] = {**dict.fromkeys((*MASKS, "bbox"), (1, 10, 100)), "keypoints": (20,)}


def coco_average_precision(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    iou_type: IouType = "segm",
    *,
    use_categories: bool = True,
) -> dict[str, Any]:
    """AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl, each in 0..1 or -1 where no truth defines it, and
    "per_class", {category_id: AP}; for keypoints AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl and "per_class".

    `ground_truth` is a COCO document (images, annotations, categories), `detections` a list as in COCO's result files,
    with "segmentation" (run lengths or polygons), "bbox" [x, y, width, height] or "keypoints" (17 x, y, v) by
    `iou_type`. "boundary" is boundary AP (Cheng et al. 2021): masks overlap by the smaller of their IoU and that of
    their boundaries, 0.02 of the image's diagonal wide, but with a crowd as they do for "segm". The numbers are
    pycocotools' 2.0: equal scores keep their order, crowds and, for keypoints, persons without any are neither found
    nor missed, and where detections have a "bbox" it is what makes them small, medium or large, also for masks.
    `use_categories=False` matches across categories; "per_class" is then empty. The arguments stay as they are. Raises
    InputError naming a bad entry: a malformed mask, one of another size than its image, a score that is not finite, a
    box of negative extent, an unknown image or category, an id met twice.
    """
    check_measure(iou_type, use_categories)
    index = read_index(ground_truth, iou_type)
    truths = read_truths(ground_truth["annotations"], index, iou_type)
    found = read_detections(detections, index, iou_type)
    precision, recall = _evaluate(index, truths, found, iou_type, use_categories)
    return summary(precision, recall, iou_type, list(index.categories) if use_categories else [])


def check_measure(iou_type: str, use_categories: bool) -> None:
    """Raises InputError on a measure that COCO does not define."""
    if iou_type not in get_args(IouType):
        raise InputError(f"COCO: iou_type {iou_type!r}; expected one of {', '.join(get_args(IouType))}")
    if iou_type == "keypoints" and not use_categories:
        raise InputError("COCO: keypoints are measured by category only; leave use_categories as it is")


def summary(
    precision_TRKAM: FloatArray, recall_TKAM: FloatArray, iou_type: str, categories: list[int]
) -> dict[str, Any]:
    """The numbers of `coco_average_precision` from pycocotools' arrays, whose -1 are what no truth defines."""
    areas, last = list(AREAS[iou_type]), len(MAX_DETECTIONS[iou_type]) - 1

    def ap(threshold: float | None = None, area: str = "all") -> float:
        chosen = slice(None) if threshold is None else threshold == IOU_THRESHOLDS
        return _mean(precision_TRKAM[chosen][..., areas.index(area), last])

    def ar(most: int = last, threshold: float | None = None, area: str = "all") -> float:
        chosen = slice(None) if threshold is None else threshold == IOU_THRESHOLDS
        return _mean(recall_TKAM[chosen][..., areas.index(area), most])

    scores: dict[str, Any] = {"AP": ap(), "AP50": ap(0.5), "AP75": ap(0.75)}
    scores |= {f"AP{area}": ap(area=area) for area in areas[1:]}
    if iou_type == "keypoints":
        scores |= {"AR": ar(), "AR50": ar(threshold=0.5), "AR75": ar(threshold=0.75)}
    else:
        scores |= {f"AR{most}": ar(at) for at, most in enumerate(MAX_DETECTIONS[iou_type])}
    scores |= {f"AR{area}": ar(area=area) for area in areas[1:]}
    scores["per_class"] = {category: category_ap(precision_TRKAM, k) for k, category in enumerate(categories)}
    return scores


def category_ap(precision_TRKAM: FloatArray, place: int, *, threshold: float | None = None) -> float:
    """The AP of one category, or that at one IoU threshold; -1 where it has no truth."""
    chosen = slice(None) if threshold is None else threshold == IOU_THRESHOLDS
    return _mean(precision_TRKAM[chosen][:, :, place, 0, -1])


def _mean(values: FloatArray) -> float:
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0


def _evaluate(
    index: CocoIndex, truths: list[Entry], found: list[Entry], iou_type: IouType, use_categories: bool
) -> tuple[FloatArray, FloatArray]:
    """The evaluator's arrays, precision (T, R, K, A, M) and recall (T, K, A, M); the entries become its own.

    Ids are renumbered, in their order, from 1: pycocotools takes a truth of id 0 for none, and ids may be huge.
    """
    from faster_coco_eval.core import COCO, COCOeval_faster

    images = {image: place for place, image in enumerate(sorted(index.images), 1)}
    categories = {category: k + 1 for category, k in index.categories.items()}
    documents = []
    for entries in (truths, found):
        document = COCO()
        document.dataset = {
            "images": [
                {"id": place, "height": index.images[image][0], "width": index.images[image][1]}
                for image, place in images.items()
            ],
            "categories": [{"id": place, "name": str(place)} for place in categories.values()],
            "annotations": entries,
        }
        for place, entry in enumerate(entries, 1):
            entry["id"], entry["image_id"] = place, images[entry["image_id"]]
            entry["category_id"] = categories[entry["category_id"]]
            entry.setdefault("iscrowd", 0)
            if iou_type in MASKS:
                entry["segmentation"] = entry.pop("rle")
        document.createIndex()
        documents.append(document)
    evaluation = COCOeval_faster(*documents, iouType=iou_type)
    evaluation.params.catIds = list(categories.values())
    evaluation.params.useCats = int(use_categories)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])
