"""A prediction as whoever sent a picture gets it: masks as PNG files or run lengths, with classes, areas, confidences.

Of every image a dict, ready for JSON: "height" and "width", as the image is shown, and what its task found. Areas are
in pixels, boxes x0, y0, x1, y1 in pixels, confidences 0..1. `answers.py` has the plain arrays.

Legend: H W size in pixels, K classes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from segpipe import masks
from segpipe.predictions import Detections, LabelMap, PanopticMap, Poses, Prediction
from segpipe.types import ClassInfo

MaskForm = Literal["png", "rle"]


def reply_of(found: Prediction, classes: Sequence[ClassInfo], form: MaskForm) -> dict[str, Any]:
    """What is said of one image.

    Of a map of classes "classes" (those that are there: their pixels' number, and the mean confidence of these) and, as
    PNG, "mask": class ids in a palette of the classes' colours. Of a panoptic map "segments", and as PNG "mask" of 16
    bits: segment ids, which have no confidence. Else "objects", the best first; each mask is its own file, 255 inside.
    With `form` "rle" masks are COCO's run lengths, one in each entry.
    """
    if isinstance(found, LabelMap):
        height, width = found.ids_HW.shape
        said: dict[str, Any] = {"classes": _classes(found, classes, form)}
        if form == "png":
            fits = len(classes) <= 256
            colours = tuple(info.colour for info in classes) if fits else None
            said["mask"] = _text(masks.encode_ids(found.ids_HW.astype(np.uint8 if fits else np.uint16), colours))
    elif isinstance(found, PanopticMap):
        height, width = found.ids_HW.shape
        said = {"segments": _segments(found, classes, form)}
        if form == "png":
            said["mask"] = _text(masks.encode_ids(found.ids_HW.astype(np.uint16), None))
    else:
        height, width = found.size
        said = {"objects": _objects(found, classes, form)}
    return {"height": height, "width": width, **said}


def _classes(found: LabelMap, classes: Sequence[ClassInfo], form: MaskForm) -> list[dict[str, Any]]:
    ids_P = found.ids_HW.ravel()
    areas_K = np.bincount(ids_P, minlength=len(classes))
    sums_K = None if found.confidence_HW is None else np.bincount(ids_P, found.confidence_HW.ravel(), len(classes))
    entries = []
    for k in np.flatnonzero(areas_K).tolist():
        entry = _named(k, classes) | {"area": int(areas_K[k])}
        if sums_K is not None:
            entry["confidence"] = round(float(sums_K[k] / areas_K[k]), 6)
        entries.append(entry | (_run_lengths(found.ids_HW == k) if form == "rle" else {}))
    return entries


def _segments(found: PanopticMap, classes: Sequence[ClassInfo], form: MaskForm) -> list[dict[str, Any]]:
    return [
        {"id": each.segment_id, **_named(each.class_id, classes), "area": each.area}
        | (_run_lengths(found.ids_HW == each.segment_id) if form == "rle" else {})
        for each in found.segments
    ]


def _objects(found: Detections | Poses, classes: Sequence[ClassInfo], form: MaskForm) -> list[dict[str, Any]]:
    entries = []
    for n in range(len(found)):
        x0, y0, x1, y1 = found.boxes_N4[n].tolist()
        entry = _named(int(found.class_ids_N[n]), classes) | {"confidence": float(found.scores_N[n])}
        entry |= {"box": [x0, y0, x1, y1], "area": (x1 - x0) * (y1 - y0)}
        if isinstance(found, Poses):
            entry["points"] = found.points_NP3[n].tolist()
        elif found.masks is not None:
            inside_HW = masks.decode_rle(found.masks[n], *found.size)
            entry["area"] = int(np.count_nonzero(inside_HW))
            entry |= (
                {"mask": {"size": list(found.size), "counts": found.masks[n].decode("ascii")}}
                if form == "rle"
                else {"mask": _text(masks.encode_ids(np.where(inside_HW, 255, 0).astype(np.uint8), None))}
            )
        entries.append(entry)
    return entries


def _named(class_id: int, classes: Sequence[ClassInfo]) -> dict[str, Any]:
    return {"class_id": class_id, "class": classes[class_id].name}


def _run_lengths(inside_HW: Any) -> dict[str, Any]:
    rle = masks.encode_rle(inside_HW)
    return {"mask": {"size": rle["size"], "counts": rle["counts"].decode("ascii")}}


def _text(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")
