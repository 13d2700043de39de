"""One image of panoptic quality: its segments checked, its pairs of segments counted, and those that match.

Below `panoptic.py`, which sums over images. The rules are those of panopticapi (`evaluation.py`), of which Kirillov et
al. 2019 (arXiv 1801.00868, section 4) is the paper. Letter legend: H W image size, K categories, in the order given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.arrays import as_array
from segpipe.metrics.boundary import segment_boundaries
from segpipe.types import Segment

VOID = 0
ID_BITS = 32
Ids = npt.NDArray[Any]
Pairs = dict[tuple[int, int], int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segments:
    """A checked map (H, W) and, by segment id, category, crowd flag, and area where segments_info states one."""

    map_HW: Ids
    category: dict[int, int]
    crowd: dict[int, bool]
    stated_area: dict[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentCounts:
    """What one image adds: category and IoU of every match, and (K,) false positives and negatives."""

    matched: tuple[int, ...]
    ious: tuple[float, ...]
    false_positives: tuple[int, ...]
    false_negatives: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentMatches:
    """Which segments of an image are which: the IoU of every (truth's id, prediction's id) that match, and the ids of
    both sides that count as missed and as spurious. `true` and `predicted` are both sides, checked."""

    true: Segments
    predicted: Segments
    ious: dict[tuple[int, int], float]
    missed: tuple[int, ...]
    spurious: tuple[int, ...]


def panoptic_item(image_id: int | str, map_HW: Ids, segments: Iterable[Segment]) -> dict[str, Any]:
    """A map of segment ids and its segments as an item of `panoptic_quality`."""
    infos = [{"id": s.segment_id, "category_id": s.class_id, "iscrowd": int(s.is_crowd)} for s in segments]
    return {"image_id": image_id, "map": map_HW, "segments_info": infos}


def count_segments(
    truth: Mapping[str, Any],
    prediction: Mapping[str, Any],
    positions: Mapping[int, int],
    dilation_ratio: float | None = None,
) -> SegmentCounts:
    """Counts one image; arguments as `match_segments`."""
    found = match_segments(truth, prediction, positions, dilation_ratio)
    true, predicted = found.true.category, found.predicted.category
    return SegmentCounts(
        matched=tuple(positions[true[t]] for t, _ in found.ious),
        ious=tuple(found.ious.values()),
        false_positives=_by_category((predicted[id_] for id_ in found.spurious), positions),
        false_negatives=_by_category((true[t] for t in found.missed), positions),
    )


def match_segments(
    truth: Mapping[str, Any],
    prediction: Mapping[str, Any],
    positions: Mapping[int, int],
    dilation_ratio: float | None = None,
) -> SegmentMatches:
    """Matches the segments of one image; `positions` gives the place 0..K-1 of every category id.

    With `dilation_ratio`, what is compared is min(IoU, boundary IoU) (see `boundary.py`): boundary PQ.
    """
    image = f"image {truth['image_id']!r}"
    true, predicted = (
        _segments(truth, f"{image}, truth", positions),
        _segments(prediction, f"{image}, prediction", positions),
    )
    if true.map_HW.shape != predicted.map_HW.shape:
        raise _bad(
            image, f"the truth is {true.map_HW.shape}, the prediction {predicted.map_HW.shape}; expected one size"
        )
    pairs = count_pairs(true.map_HW, predicted.map_HW)
    true_area, area = _areas(pairs, 0), _areas(pairs, 1)
    _check_named(true, true_area, f"{image}, truth")
    _check_named(predicted, area, f"{image}, prediction")
    _check_stated(true, true_area, f"{image}, truth")
    ious = _overlaps(pairs, true_area, area, pairs)
    if dilation_ratio is not None:
        edges = _boundary_overlaps(true.map_HW, predicted.map_HW, pairs, dilation_ratio)
        ious = {pair: min(iou, edges[pair]) for pair, iou in ious.items()}
    matches = {
        (true_id, id_): iou
        for (true_id, id_), iou in ious.items()
        if iou > 0.5 and true.category[true_id] == predicted.category[id_] and not true.crowd[true_id]
    }
    found = {t for t, _ in matches}
    missed = tuple(t for t in true.category if t not in found and not true.crowd[t])
    # A category's last crowd alone excuses, as in panopticapi, should a document hold several.
    crowd_of = {true.category[t]: t for t in true.category if true.crowd[t]}
    spurious = []
    for id_ in predicted.category.keys() - {p for _, p in matches}:
        excused = pairs.get((VOID, id_), 0)
        if (crowd := crowd_of.get(predicted.category[id_])) is not None:
            excused += pairs.get((crowd, id_), 0)
        if not excused / area[id_] > 0.5:
            spurious.append(id_)
    return SegmentMatches(true=true, predicted=predicted, ious=matches, missed=missed, spurious=tuple(spurious))


def count_pairs(truth_HW: Ids, predicted_HW: Ids) -> Pairs:
    """{(truth's id, prediction's id): pixels} of two maps of ids below 2^32, in ascending order of the pair.

    Maps are made of regions, so only the pixels at which either changes along a row are sorted, weighed by how far the
    run goes: a tenth or less of all pixels, where sorting is the cost (4 times as fast on COCO's maps as np.unique over
    all pixels). Where hardly anything runs on, all pixels are sorted, which needs no weights.
    """
    truth, predicted = np.ravel(truth_HW), np.ravel(predicted_HW)
    if not truth.size:
        return {}
    changes = truth[1:] != truth[:-1]
    changes |= predicted[1:] != predicted[:-1]
    starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
    if starts.size > truth.size // 3:
        keys, sums = np.unique(_keys(truth, predicted), return_counts=True)
    else:
        keys = _keys(truth[starts], predicted[starts])
        order = np.argsort(keys)
        keys = keys[order]
        firsts = np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1))
        sums = np.add.reduceat(np.diff(starts, append=truth.size)[order], firsts)
        keys = keys[firsts]
    low = (1 << ID_BITS) - 1
    return {(key >> ID_BITS, key & low): n for key, n in zip(keys.tolist(), sums.tolist(), strict=True)}


def _keys(truth: Ids, predicted: Ids) -> npt.NDArray[np.uint64]:
    return (truth.astype(np.uint64) << np.uint64(ID_BITS)) | predicted.astype(np.uint64)


def _areas(pairs: Pairs, side: int) -> dict[int, int]:
    areas: dict[int, int] = {}
    for pair, pixels in pairs.items():
        areas[pair[side]] = areas.get(pair[side], 0) + pixels
    return areas


def _overlaps(
    pairs: Pairs, true_area: dict[int, int], area: dict[int, int], wanted: Pairs
) -> dict[tuple[int, int], float]:
    """IoU of each pair of segments of `wanted`; the truth's void pixels are no part of the union."""
    ious = {}
    for true_id, id_ in wanted:
        if VOID in (true_id, id_):
            continue
        common = pairs.get((true_id, id_), 0)
        ious[true_id, id_] = common / (area[id_] + true_area[true_id] - common - pairs.get((VOID, id_), 0))
    return ious


def _boundary_overlaps(
    truth_HW: Ids, predicted_HW: Ids, pairs: Pairs, dilation_ratio: float
) -> dict[tuple[int, int], float]:
    true_edge, edge = segment_boundaries(truth_HW, dilation_ratio), segment_boundaries(predicted_HW, dilation_ratio)
    both = edge & (true_edge | (truth_HW == VOID))
    nothing = np.zeros(1, dtype=np.uint8)
    true_ids, ids = truth_HW[true_edge], predicted_HW[edge]
    true_area = _areas(count_pairs(true_ids, np.broadcast_to(nothing, true_ids.shape)), 0)
    area = _areas(count_pairs(ids, np.broadcast_to(nothing, ids.shape)), 0)
    return _overlaps(count_pairs(truth_HW[both], predicted_HW[both]), true_area, area, pairs)


def _by_category(categories: Iterable[int], positions: Mapping[int, int]) -> tuple[int, ...]:
    counts = [0] * len(positions)
    for category in categories:
        counts[positions[category]] += 1
    return tuple(counts)


def _segments(item: Mapping[str, Any], where: str, positions: Mapping[int, int]) -> Segments:
    """The item's map and segments_info, each entry checked by itself. Raises InputError."""
    for field in ("map", "segments_info"):
        if field not in item:
            raise _bad(where, f"has no {field!r}; expected image_id, map and segments_info")
    category: dict[int, int] = {}
    crowd: dict[int, bool] = {}
    stated_area: dict[int, int] = {}
    for info in item["segments_info"]:
        if not isinstance(info, Mapping):
            raise _bad(where, f"segments_info holds {info!r:.80}; expected mappings with id, category_id and iscrowd")
        for field in ("id", "category_id"):
            if not isinstance(info.get(field), int | np.integer):
                raise _bad(
                    where, f"segment {info.get('id')!r} has {field} {info.get(field)!r}; expected a whole number"
                )
        id_ = int(info["id"])
        if not 1 <= id_ < 1 << ID_BITS:
            raise _bad(where, f"segment {id_}: ids are 1..{(1 << ID_BITS) - 1}; 0 is void and no segment")
        if id_ in category:
            raise _bad(where, f"segment {id_} stands twice in segments_info; expected one entry a segment")
        if info["category_id"] not in positions:
            raise _bad(where, f"segment {id_} is of category {info['category_id']}, which categories does not name")
        if info.get("iscrowd", 0) not in (0, 1):
            raise _bad(where, f"segment {id_} has iscrowd {info['iscrowd']!r}; expected 0 or 1")
        category[id_], crowd[id_] = int(info["category_id"]), bool(info.get("iscrowd", 0))
        if "area" in info:
            stated_area[id_] = info["area"]
    return Segments(map_HW=_map(item["map"], where), category=category, crowd=crowd, stated_area=stated_area)


def _map(values: Any, where: str) -> Ids:
    ids = as_array(values)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise _bad(where, f"expected a map of shape (H, W) in integers, found {ids.shape} {ids.dtype}")
    if ids.size and (ids.dtype.kind == "i" or ids.dtype.itemsize > 4):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= 1 << ID_BITS:
            raise _bad(where, f"the map holds id {low if low < 0 else high}; expected 0..{(1 << ID_BITS) - 1}")
    return ids


def _check_named(segments: Segments, area: Mapping[int, int], where: str) -> None:
    """Every id of the map is named, and the reverse."""
    if unnamed := sorted(area.keys() - segments.category.keys() - {VOID}):
        raise _bad(
            where,
            f"segment {unnamed[0]} has {area[unnamed[0]]} pixels of the map and no entry in segments_info "
            f"({len(unnamed)} such); name it, or mark its pixels as void, {VOID}",
        )
    if absent := sorted(segments.category.keys() - area.keys()):
        raise _bad(where, f"segment {absent[0]} is in segments_info and has no pixel in the map ({len(absent)} such)")


def _check_stated(truth: Segments, area: Mapping[int, int], where: str) -> None:
    """Areas are counted in the map; panopticapi takes those that a truth states, so the two must not differ."""
    for id_, stated in truth.stated_area.items():
        if stated != area[id_]:
            raise _bad(where, f"segment {id_} states area {stated}, its pixels in the map are {area[id_]}; mend one")


def _bad(where: str, fault: str) -> InputError:
    return InputError(f"panoptic quality: {where}: {fault}")
