"""One prediction of any task as a picture: which file of this room draws it.

`draw` returns PNG bytes that depend on nothing but its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

from segpipe.errors import InputError
from segpipe.predictions import Detections, LabelMap, PanopticMap, Poses, Prediction
from segpipe.report import detections, overlay, panoptic, poses
from segpipe.report.drawing import Pixels
from segpipe.types import ClassInfo


def draw(
    image_HW3: Pixels,
    prediction: Prediction,
    truth: Prediction | None,
    *,
    classes: Sequence[ClassInfo],
    ignore_index: int,
    title: str,
) -> bytes:
    """A PNG of one prediction beside its truth, which is of the same type, or None where nobody labelled the image.

    `image_HW3` is uint8 RGB. Raises InputError when sizes, ids or types do not fit together.
    """
    if truth is not None and type(truth) is not type(prediction):
        raise InputError(
            f"{title}: the prediction is a {type(prediction).__name__}, the truth a {type(truth).__name__}; they must "
            "be of one task"
        )
    if isinstance(prediction, LabelMap):
        labels_HW = truth.ids_HW if isinstance(truth, LabelMap) else None
        return overlay.draw(
            image_HW3,
            prediction.ids_HW,
            labels_HW,
            uncertainty_HW=prediction.uncertainty_HW,
            classes=classes,
            ignore_index=ignore_index,
            title=title,
        )
    if isinstance(prediction, Detections):
        objects = truth if isinstance(truth, Detections) else None
        return detections.draw(image_HW3, prediction, objects, classes=classes, title=title)
    if isinstance(prediction, PanopticMap):
        segments = truth if isinstance(truth, PanopticMap) else None
        return panoptic.draw(image_HW3, prediction, segments, classes=classes, title=title)
    if isinstance(prediction, Poses):
        pose = truth if isinstance(truth, Poses) else None
        return poses.draw(image_HW3, prediction, pose, classes=classes, title=title)
    raise InputError(f"{title}: nothing here draws a {type(prediction).__name__}")
