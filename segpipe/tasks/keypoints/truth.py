"""What a stored sample says of keypoints: its poses, and the entries of COCO's files that AP is counted from.

Part of the task of `__init__.py`. Legend: N objects, P keypoints.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from segpipe import masks
from segpipe.metrics.keypoints import COCO_JOINTS, PERSON
from segpipe.predictions import Poses
from segpipe.types import Sample


def poses_of(sample: Sample) -> Poses:
    """The objects with a labelled keypoint, but crowds; their boxes as stated, else tight around their pixels."""
    points = {each.segment_id: each.points for each in sample.keypoints if any(v > 0 for _, _, v in each.points)}
    kept = tuple(s for s in sample.segments if s.segment_id in points and not s.is_crowd)
    boxes = _boxes(dataclasses.replace(sample, segments=kept))
    shown = [segment for segment in kept if segment.segment_id in boxes]
    points_NP3 = np.zeros((len(shown), max((len(points[s.segment_id]) for s in shown), default=0), 3))
    for row, segment in enumerate(shown):
        points_NP3[row, : len(points[segment.segment_id])] = points[segment.segment_id]
    return Poses(
        size=(sample.height, sample.width),
        class_ids_N=np.array([segment.class_id for segment in shown], dtype=np.int64),
        scores_N=np.ones(len(shown)),
        boxes_N4=np.array([boxes[segment.segment_id] for segment in shown]).reshape(-1, 4),
        points_NP3=points_NP3,
    )


def annotations_of(sample: Sample, person: int | None) -> list[dict[str, Any]]:
    """COCO's annotations of the persons of a sample; those without a labelled joint, and crowds, are among them: what
    is found there is not counted against a model. None are there where the joints are not COCO's."""
    points = {each.segment_id: each.points for each in sample.keypoints}
    persons = tuple(segment for segment in sample.segments if segment.class_id == person)
    if any(len(points.get(segment.segment_id, ())) not in (0, COCO_JOINTS) for segment in persons):
        return []
    boxes = _boxes(dataclasses.replace(sample, segments=persons))
    annotations = []
    for place, segment in enumerate(persons):
        x0, y0, x1, y1 = boxes.get(segment.segment_id, (0.0, 0.0, 0.0, 0.0))
        joints = points.get(segment.segment_id) or ((0.0, 0.0, 0),) * COCO_JOINTS
        annotations.append(
            {
                "id": place + 1,
                "category_id": PERSON,
                "iscrowd": int(segment.is_crowd),
                "area": segment.area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "keypoints": [number for joint in joints for number in joint],
                "num_keypoints": sum(v > 0 for _, _, v in joints),
            }
        )
    return annotations


def detections_of(found: Poses, person: int | None) -> list[dict[str, Any]]:
    """The persons that were found as in COCO's result files."""
    return [
        {"category_id": PERSON, "keypoints": found.points_NP3[n, :COCO_JOINTS].ravel().tolist(), "score": score}
        for n, score in enumerate(found.scores_N.tolist())
        if found.class_ids_N[n] == person
    ]


def _boxes(sample: Sample) -> dict[int, tuple[float, float, float, float]]:
    """x0, y0, x1, y1 of each segment that has a box, stated or tight around its pixels, by its id."""
    boxes: dict[int, tuple[float, float, float, float]] = {}
    for segment, runs in masks.segment_runs(sample):
        if segment.box is not None:
            x, y, width, height = segment.box
            boxes[segment.segment_id] = (x, y, x + width, y + height)
        elif runs[1::2].any():
            boxes[segment.segment_id] = masks.box_of_runs(runs, sample.height)
    return boxes
