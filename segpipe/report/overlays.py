"""One prediction drawn over its image, at the image's own size: no panels, no legend. For who wants pictures to use.

Legend: H W size of the image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segpipe.metrics.keypoints import DOUBT
from segpipe.predictions import Detections, LabelMap, PanopticMap, Prediction
from segpipe.report import detections, panoptic, poses
from segpipe.report.drawing import Pixels
from segpipe.report.objects import one_class, patches_of
from segpipe.types import ClassInfo, Task

_OPACITY = 0.5


def has_class_colours(task: Task, classes: Sequence[ClassInfo]) -> bool:
    """Whether what is drawn of a task's predictions is coloured by class: keypoints never are, and the objects of a
    detector of one class have colours that tell them apart."""
    is_detector = task in (Task.INSTANCE, Task.DETECTION)
    return task is not Task.KEYPOINTS and not (is_detector and one_class(classes))


def draw(image_HW3: Pixels, prediction: Prediction, *, classes: Sequence[ClassInfo]) -> Pixels:
    """(H, W, 3) uint8: classes in their colours, half over the photograph; objects, segments and keypoints as the other
    pictures of this room show them, over the photograph in grey."""
    if isinstance(prediction, LabelMap):
        table = np.array([info.colour for info in classes], dtype=np.float32)
        mixed_HW3 = _OPACITY * table[prediction.ids_HW] + (1 - _OPACITY) * image_HW3
        drawn_HW3: Pixels = mixed_HW3.round().astype(np.uint8)
        return drawn_HW3
    shown = Image.fromarray(image_HW3)
    if isinstance(prediction, Detections):
        patches = patches_of(prediction, shown.size, what="prediction")
        return detections.over(shown, prediction, patches, classes, scores=True)
    if isinstance(prediction, PanopticMap):
        return panoptic.over(shown, prediction, classes)
    return poses.over(shown, prediction, 1.0, least=DOUBT)
