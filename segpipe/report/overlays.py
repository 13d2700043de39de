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
from segpipe.report.objects import Colour, patches_of
from segpipe.types import ClassInfo

_OPACITY = 0.5


def draw(
    image_HW3: Pixels,
    prediction: Prediction,
    colours: Sequence[Colour],
    *,
    classes: Sequence[ClassInfo],
) -> Image.Image:
    """Classes in `colours`, one a class, half over the photograph; objects, segments and keypoints as the other
    pictures of this room show them, over the photograph in grey."""
    if isinstance(prediction, LabelMap):
        table = np.array(colours, dtype=np.float32)
        mixed_HW3 = _OPACITY * table[prediction.ids_HW] + (1 - _OPACITY) * image_HW3
        return Image.fromarray(mixed_HW3.round().astype(np.uint8))
    shown = Image.fromarray(image_HW3)
    if isinstance(prediction, Detections):
        patches = patches_of(prediction, shown.size, what="prediction")
        return Image.fromarray(detections.over(shown, prediction, patches, classes, scores=True))
    if isinstance(prediction, PanopticMap):
        return Image.fromarray(panoptic.over(shown, prediction, classes))
    return Image.fromarray(poses.over(shown, prediction, 1.0, least=DOUBT))
