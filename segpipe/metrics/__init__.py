"""Metrics: pure functions on label maps and counts, and additive meters. Below `tasks/` and `evaluate.py`."""

from __future__ import annotations

from segpipe.metrics.arg_max import first_maximum
from segpipe.metrics.bootstrap import dataset_miou, interval, resampling_unit
from segpipe.metrics.boundary import boundary_iou, mask_boundary
from segpipe.metrics.cityscapes import cityscapes_average_precision
from segpipe.metrics.confusion import ConfusionMeter, confusion_matrix, semantic_scores
from segpipe.metrics.panoptic import PanopticMeter, panoptic_quality

__all__ = [
    "ConfusionMeter",
    "PanopticMeter",
    "boundary_iou",
    "cityscapes_average_precision",
    "confusion_matrix",
    "dataset_miou",
    "first_maximum",
    "interval",
    "mask_boundary",
    "panoptic_quality",
    "resampling_unit",
    "semantic_scores",
]
