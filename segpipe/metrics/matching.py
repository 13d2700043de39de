"""What pictures and pages call found: of detections by COCO's rule at one IoU, of segments by that of panoptic quality.

Detections are matched beside the measure (`coco_match.py`), which counts matches at all thresholds and needs not tell
of what.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segpipe.metrics.coco_match import overlaps
from segpipe.metrics.segments import SegmentMatches, match_segments, panoptic_item
from segpipe.predictions import Detections, PanopticMap

MATCH_IOU = 0.5


def matches(prediction: Detections, truth: Detections) -> NDArray[np.int64]:
    """(N,) the truth that each detection found, -1 for none.

    Detections choose by falling score, among the truths of their class that are free and overlap by an IoU of at least
    0.5: the highest, of equals the last. IoU is that of masks where both have them, else of boxes.
    """
    by_mask = prediction.masks is not None and truth.masks is not None
    iou_type = "segm" if by_mask else "bbox"
    iou_NM = overlaps(_entries(truth, by_mask), _entries(prediction, by_mask), iou_type)
    iou_NM = np.where(prediction.class_ids_N[:, None] == truth.class_ids_N, iou_NM, 0)
    found_N = np.full(len(prediction), -1)
    for n in np.argsort(-prediction.scores_N, kind="stable"):
        if len(truth) and iou_NM[n].max() >= MATCH_IOU:
            found_N[n] = len(truth) - 1 - iou_NM[n, ::-1].argmax()
            iou_NM[:, found_N[n]] = 0
    return found_N


def segment_matches(prediction: PanopticMap, truth: PanopticMap, *, num_classes: int, what: str) -> SegmentMatches:
    """Which segments were found, missed and invented. Raises InputError, which calls the image `what`, where maps and
    their segments do not fit together."""
    places = {k: k for k in range(num_classes)}
    true, predicted = (panoptic_item(what, each.ids_HW, each.segments) for each in (truth, prediction))
    return match_segments(true, predicted, places)


def _entries(found: Detections, by_mask: bool) -> list[dict[str, object]]:
    if by_mask:
        size = list(found.size)
        return [{"iscrowd": 0, "rle": {"size": size, "counts": rle}} for rle in found.masks or ()]
    return [{"iscrowd": 0, "bbox": [x0, y0, x1 - x0, y1 - y0]} for x0, y0, x1, y1 in found.boxes_N4.tolist()]
