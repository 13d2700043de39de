"""Predictions as COCO's JSON: one document of images, annotations with run lengths, and categories.

Category ids are class ids + 1, as `exports/coco.py` has them. Each annotation is also a line of COCO's results, with
its score where the model gives one; of a map of classes there is one annotation a class.

Legend: H W size of the image in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from segpipe import masks
from segpipe.predictions import Detections, LabelMap, PanopticMap, Prediction
from segpipe.types import ClassInfo


def entries(prediction: Prediction) -> list[dict[str, Any]]:
    """The annotations of one image, without `id` and `image_id`."""
    if isinstance(prediction, LabelMap):
        return [_of_mask(prediction.ids_HW == k, int(k)) for k in np.unique(prediction.ids_HW)]
    if isinstance(prediction, PanopticMap):
        return [_of_mask(prediction.ids_HW == each.segment_id, each.class_id) for each in prediction.segments]
    found = []
    for n in range(len(prediction)):
        x0, y0, x1, y1 = prediction.boxes_N4[n].tolist()
        entry: dict[str, Any] = {
            "category_id": int(prediction.class_ids_N[n]) + 1,
            "iscrowd": 0,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "score": float(prediction.scores_N[n]),
        }
        if not isinstance(prediction, Detections):
            points_P3 = prediction.points_NP3[n]
            entry |= {"keypoints": points_P3.ravel().tolist(), "num_keypoints": len(points_P3)}
        elif prediction.masks is not None:
            runs = masks.rle_runs(prediction.masks[n], *prediction.size)
            counts = prediction.masks[n].decode("ascii")
            entry |= {"area": int(runs[1::2].sum()), "segmentation": {"size": list(prediction.size), "counts": counts}}
        found.append(entry)
    return found


def document(images: Iterable[Mapping[str, Any]], *, classes: Sequence[ClassInfo], description: str) -> dict[str, Any]:
    """The document of all images: each has `file_name`, `height`, `width` and `annotations` as `entries` has them."""
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, start=1):
        listed.append({"id": image_id, **{key: image[key] for key in ("file_name", "height", "width")}})
        for entry in image["annotations"]:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **entry})
    categories = [masks.coco_category(k, info) for k, info in enumerate(classes)]
    return {
        "info": {"description": description},
        "images": listed,
        "annotations": annotations,
        "categories": categories,
    }


def _of_mask(inside_HW: Any, class_id: int) -> dict[str, Any]:
    rle = masks.encode_rle(inside_HW)
    runs = masks.rle_runs(rle, *inside_HW.shape)
    x0, y0, x1, y1 = masks.box_of_runs(runs, inside_HW.shape[0])
    return {
        "category_id": class_id + 1,
        "iscrowd": 0,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(runs[1::2].sum()),
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
    }
