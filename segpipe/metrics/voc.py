"""Average precision of boxes by Pascal VOC's rules, as VOCdevkit's VOCevaldet.m counts them.

A box [x1, y1, x2, y2] holds both its edges: it is x2 - x1 + 1 pixels wide. Detections go by falling score, each to the
truth of its class and image that it overlaps most, taken or not. A taken one makes it wrong; a `difficult` one makes it
count neither way, as that truth itself does. Letter legend: n detections, G truths.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.precision import FloatArray, average_precision, finite

Entry = Mapping[str, Any]


def voc_average_precision(
    ground_truth: Sequence[Entry],
    detections: Sequence[Entry],
    *,
    iou_threshold: float = 0.5,
    points: int | None = 11,
) -> dict[str, Any]:
    """{"per_class": {category_id: AP}, "mAP": their mean}, each in 0..1.

    Truths have image_id, category_id, bbox and perhaps `difficult` (absent means no); detections have a score for it.
    `points` is 11 for VOC 2007 to 2009, None for 2010 and later (`average_precision`). Equal scores keep their order. A
    class without a truth that counts, such as one that was only detected, has AP nan and drops out of the mean; mAP is
    nan where none is left. A detection on an image without truths is wrong. Raises InputError naming a bad entry.
    """
    if finite(iou_threshold) is None or not 0 < iou_threshold <= 1:
        raise InputError(f"VOC: iou_threshold = {iou_threshold!r}; expected more than 0, up to 1")
    truths = _by_class("ground_truth", ground_truth)
    found = _by_class("detections", detections)
    per_class: dict[Any, float] = {}
    for category in {**truths, **found}:
        positives = sum(not truth.get("difficult") for truth in truths.get(category, []))
        if not positives:
            per_class[category] = math.nan
            continue
        right, wrong = (np.cumsum(hits) for hits in _outcomes(truths[category], found.get(category, []), iou_threshold))
        counted = right + wrong > 0  # before the first detection that counts, precision is 0 / 0
        right, kept = right[counted], (right + wrong)[counted]
        per_class[category] = average_precision(right / positives, right / kept, points)
    defined = [value for value in per_class.values() if not math.isnan(value)]
    return {"per_class": per_class, "mAP": float(np.mean(defined)) if defined else math.nan}


def _outcomes(
    truths: list[Entry], found: list[Entry], iou_threshold: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """True and false positives (n,) of one class by falling score; what takes a difficult truth is neither."""
    images: dict[Hashable, list[Entry]] = {}
    for truth in truths:
        images.setdefault(truth["image_id"], []).append(truth)
    boxes = {image: np.array([truth["bbox"] for truth in here]) for image, here in images.items()}
    taken = {image: np.zeros(len(here), dtype=bool) for image, here in images.items()}
    right, wrong = np.zeros((2, len(found)), dtype=bool)
    for at, entry in enumerate(sorted(found, key=lambda entry: -entry["score"])):
        image = entry["image_id"]
        overlaps = inclusive_iou(np.array(entry["bbox"]), boxes[image]) if image in boxes else np.zeros(1)
        best = int(overlaps.argmax())
        if overlaps[best] < iou_threshold:
            wrong[at] = True
        elif not images[image][best].get("difficult"):
            right[at], wrong[at] = not taken[image][best], taken[image][best]
            taken[image][best] = True
    return right, wrong


def inclusive_iou(box: FloatArray, boxes: FloatArray) -> FloatArray:
    """Overlaps (G,) in 0..1 of one box (4,) with others (G, 4), in pixels that include both edges."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    width, height = np.clip(high - low + 1, 0, None).T
    area, areas = np.prod(box[2:] - box[:2] + 1), np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1)
    overlaps: FloatArray = width * height / (area + areas - width * height)
    return overlaps


def _by_class(what: str, entries: Sequence[Entry]) -> dict[Hashable, list[Entry]]:
    """The entries of each class in their order, checked, with boxes of floats."""
    wanted = ("image_id", "category_id", "bbox") + (("score",) if what == "detections" else ())
    grouped: dict[Hashable, list[Entry]] = {}
    for place, entry in enumerate(entries):
        where = f"VOC {what}[{place}]"
        if not isinstance(entry, Mapping) or any(name not in entry for name in wanted):
            raise InputError(f"{where}: expected {', '.join(wanted)}, found {entry!r:.120}")
        if not all(isinstance(entry[name], Hashable) for name in wanted[:2]):
            raise InputError(f"{where}: image_id and category_id must be numbers or names, found {entry!r:.120}")
        box = list(entry["bbox"]) if isinstance(entry["bbox"], Sequence | np.ndarray) else []
        if len(box) != 4 or None in map(finite, box) or box[2] < box[0] or box[3] < box[1]:
            raise InputError(
                f"{where}: bbox {entry['bbox']!r:.80}; expected finite [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2"
            )
        if what == "detections" and finite(entry["score"]) is None:
            raise InputError(f"{where}: score {entry['score']!r:.80}; expected a finite number")
        if not isinstance(entry.get("difficult", 0), int | np.integer | np.bool_) or entry.get("difficult", 0) not in (
            0,
            1,
        ):
            raise InputError(f"{where}: difficult {entry['difficult']!r:.80}; expected 0 or 1")
        grouped.setdefault(entry["category_id"], []).append({**entry, "bbox": [float(value) for value in box]})
    return grouped
