"""COCO's documents, checked entry by entry and rewritten as the evaluator needs them.

The evaluator is compiled code that trusts what it is given: here every id is known, every number finite, and every mask
its runs and size, before `coco.py` and `coco_meter.py` pass them on. Only the fields that the measure needs are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, NamedTuple

import numpy as np

from segpipe.errors import BadSampleError, InputError
from segpipe.masks import MAX_PIXELS, plain_areas, polygon_points, rle_of_runs, rle_runs
from segpipe.metrics.precision import finite

IouType = Literal["segm", "boundary", "bbox", "keypoints"]
Entry = dict[str, Any]

MASKS = ("segm", "boundary")  # the measures that read masks
NUM_KEYPOINTS = 17  # COCO gives the tolerances of a person's 17 joints, and of nothing else
MAX_COORDINATE = 1e7  # pixels; beyond, products overflow to inf, and inf / inf matches everything


@dataclass(frozen=True, kw_only=True)
class CocoIndex:
    """What entries may point to: (height, width) of each image by id, (0, 0) where no mask is measured; the place of
    each category, by its id, among the rising ids."""

    images: dict[int, tuple[int, int]]
    categories: dict[int, int]


def read_index(ground_truth: Mapping[str, Any], iou_type: IouType) -> CocoIndex:
    """The images and categories of a COCO document. Raises InputError naming the entry, also for an id met twice."""
    for name in ("images", "annotations", "categories"):
        if not isinstance(ground_truth, Mapping) or not isinstance(ground_truth.get(name), Sequence):
            raise InputError(f"COCO ground truth: expected a dict with a list of {name}; load the JSON file first")
    images: dict[int, tuple[int, int]] = {}
    for where, entry in _entries("images", ground_truth["images"]):
        image = _new(images, entry, where)
        size = (_whole(entry, "height", where), _whole(entry, "width", where)) if iou_type in MASKS else (0, 0)
        if iou_type in MASKS and (min(size) < 1 or size[0] * size[1] > MAX_PIXELS):
            raise InputError(f"{where}: size {size[0]} x {size[1]}; expected 1 to {MAX_PIXELS} pixels")
        images[image] = size
    categories: dict[int, None] = {}
    for where, entry in _entries("categories", ground_truth["categories"]):
        categories[_new(categories, entry, where)] = None
    return CocoIndex(images=images, categories={category: k for k, category in enumerate(sorted(categories))})


def read_truths(annotations: Sequence[Any], index: CocoIndex, iou_type: IouType) -> list[Entry]:
    """The annotations as {"image_id", "category_id", "iscrowd", "ignore", "area"} and, by the measure, "rle", "bbox" or
    "keypoints" with "bbox". Raises InputError naming the entry."""
    seen: dict[int, None] = {}
    truths, named = [], _entries("annotations", annotations)
    for where, entry in named:
        seen[_new(seen, entry, where)] = None
        truth = _places(entry, index, where)
        crowd = _whole(entry, "iscrowd", where) if "iscrowd" in entry else 0
        if crowd not in (0, 1):
            raise InputError(f"{where}: iscrowd {crowd}; expected 0 or 1")
        truth |= {"iscrowd": crowd, "ignore": crowd, "area": _number(entry, "area", where)}
        if truth["area"] < 0:
            raise InputError(f"{where}: area {truth['area']}; expected pixels, 0 or more")
        if iou_type not in MASKS:
            truth["bbox"] = _box(entry, where)
        if iou_type == "keypoints":
            truth["keypoints"] = _keypoints(entry, where)
            truth["num_keypoints"] = _whole(entry, "num_keypoints", where)
            truth["ignore"] = int(crowd or truth["num_keypoints"] == 0)
        truths.append(truth)
    if iou_type in MASKS:
        for truth, (rle, _) in zip(truths, _masks(named, truths, index), strict=True):
            truth["rle"] = rle
    return truths


def read_detections(detections: Sequence[Any], index: CocoIndex, iou_type: IouType) -> list[Entry]:
    """The detections as {"image_id", "category_id", "score", "area"} and, by the measure, "rle", "bbox" or "keypoints".

    As in pycocotools a detection that has a "bbox" is small, medium or large by its box, one that has none by its mask
    or the extent of its keypoints. Raises InputError naming the entry.
    """
    found: list[Entry] = []
    named = _entries("detections", detections)
    for where, entry in named:
        detection = _places(entry, index, where)
        detection["score"] = _number(entry, "score", where)
        if iou_type == "bbox" or "bbox" in entry:
            detection["bbox"] = box = _box(entry, where)
            detection["area"] = box[2] * box[3]
        if iou_type == "keypoints":
            detection["keypoints"] = points = _keypoints(entry, where)
            x, y = points[0::3], points[1::3]
            detection.setdefault("area", (max(x) - min(x)) * (max(y) - min(y)))
        if found and ("bbox" in detection) != ("bbox" in found[0]):
            raise InputError(f"{where}: some detections have a bbox and some have none; sizes would not compare")
        found.append(detection)
    if iou_type in MASKS:
        for detection, (rle, area) in zip(found, _masks(named, found, index), strict=True):
            detection["rle"] = rle
            detection.setdefault("area", area)
    return found


class _Where(NamedTuple):
    """Which entry an error is about; only an error makes a text of it."""

    what: str
    place: int
    entry: Mapping[str, Any]

    def __str__(self) -> str:
        name = f" (id {self.entry['id']!r:.40})" if "id" in self.entry else ""
        return f"COCO {self.what}[{self.place}]{name}"


def _entries(what: str, entries: object) -> list[tuple[_Where, Mapping[str, Any]]]:
    if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
        raise InputError(f"COCO {what}: expected a list, found {type(entries).__name__}")
    named = []
    for place, entry in enumerate(entries):
        if type(entry) is not dict and not isinstance(entry, Mapping):
            raise InputError(f"COCO {what}[{place}]: expected a dict, found {entry!r:.80}")
        named.append((_Where(what, place, entry), entry))
    return named


def _new(seen: Mapping[int, object], entry: Mapping[str, Any], where: _Where) -> int:
    identity = _whole(entry, "id", where)
    if identity in seen:
        raise InputError(f"{where}: this id was met before; ids are given once")
    return identity


def _places(entry: Mapping[str, Any], index: CocoIndex, where: _Where) -> Entry:
    image, category = _whole(entry, "image_id", where), _whole(entry, "category_id", where)
    if image not in index.images:
        raise InputError(f"{where}: image_id {image} is none of the {len(index.images)} images of the ground truth")
    if category not in index.categories:
        raise InputError(
            f"{where}: category_id {category} is none of the ground truth's; it has {list(index.categories)}"
        )
    return {"image_id": image, "category_id": category}


def _whole(entry: Mapping[str, Any], name: str, where: _Where) -> int:
    value = entry.get(name)
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{where}: {name} is {value!r:.80}; expected a whole number")
    return int(value)


def _number(entry: Mapping[str, Any], name: str, where: _Where) -> float:
    number = finite(entry.get(name))
    if number is None:
        raise InputError(f"{where}: {name} is {entry.get(name)!r:.80}; expected a finite number")
    return number


def _row(entry: Mapping[str, Any], name: str, length: int, where: _Where) -> list[float]:
    value = entry.get(name)
    items = value if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes) else []
    row = [number for number in map(finite, items) if number is not None and abs(number) <= MAX_COORDINATE]
    if not len(row) == len(items) == length:
        raise InputError(f"{where}: {name} is {value!r:.80}; expected {length} numbers within {MAX_COORDINATE:g}")
    return row


def _box(entry: Mapping[str, Any], where: _Where) -> list[float]:
    box = _row(entry, "bbox", 4, where)
    if box[2] < 0 or box[3] < 0:
        raise InputError(f"{where}: bbox {box} has a negative extent; expected [x, y, width, height]")
    return box


def _keypoints(entry: Mapping[str, Any], where: _Where) -> list[float]:
    return _row(entry, "keypoints", 3 * NUM_KEYPOINTS, where)


def _masks(
    named: Sequence[tuple[_Where, Mapping[str, Any]]], read: Sequence[Entry], index: CocoIndex
) -> list[tuple[dict[str, Any], float]]:
    """Run lengths and pixels of every entry, as `_rle` makes them: those that are as they should be all at once."""
    sizes = [index.images[entry["image_id"]] for entry in read]
    texts = [_compressed(entry.get("segmentation"), size) for (_, entry), size in zip(named, sizes, strict=True)]
    areas = plain_areas(texts, [height * width for height, width in sizes]).tolist()
    return [
        ({"size": list(size), "counts": text}, float(area)) if area >= 0 else _rle(entry, size, where)
        for (where, entry), size, text, area in zip(named, sizes, texts, areas, strict=True)
    ]


def _compressed(segmentation: object, size: tuple[int, int]) -> bytes:
    """The text of compressed run lengths of an image of this size, empty for anything else."""
    if type(segmentation) is not dict or segmentation.get("size") not in (list(size), size):
        return b""
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        return counts.encode("ascii", errors="replace")
    return counts if isinstance(counts, bytes) else b""


def _rle(entry: Mapping[str, Any], size: tuple[int, int], where: _Where) -> tuple[dict[str, Any], float]:
    """Checked run lengths, compressed, and their pixels; polygons are drawn by the evaluator's own rasteriser."""
    segmentation = entry.get("segmentation")
    try:
        if isinstance(segmentation, Mapping) and "size" in segmentation:
            runs = rle_runs(segmentation, *size, file=str(where))
            # Two masks that both have an empty run at one pixel would end the evaluator's count of their overlap.
            return rle_of_runs(runs, *size), float(runs[1::2].sum())
        if not isinstance(segmentation, Sequence) or isinstance(segmentation, str | bytes) or not segmentation:
            raise InputError(
                f"{where}: segmentation is {segmentation!r:.80}; expected polygons or run lengths with size and counts"
            )
        polygons = [points.ravel().tolist() for points in polygon_points(segmentation, file=str(where))]
    except BadSampleError as error:
        raise InputError(f"{where}: segmentation: {error.detail}") from None
    from faster_coco_eval.core import mask as compiled

    parts = compiled.frPyObjects(polygons, *size)
    rle = parts[0] if len(parts) == 1 else compiled.merge(parts)
    return rle, float(compiled.area([rle])[0])
