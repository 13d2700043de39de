"""Metrics: pure functions on label maps and counts, and additive meters. Below `tasks/` and `evaluate.py`."""

from __future__ import annotations

from segpipe.metrics.arg_max import first_maximum
from segpipe.metrics.bootstrap import dataset_miou, interval, mean_ratio, resampling_unit
from segpipe.metrics.bootstrap_ap import ApEvidence, ap_interval, mean_ap, resampled_ap
from segpipe.metrics.boundary import boundary_iou, mask_boundary
from segpipe.metrics.cityscapes import cityscapes_average_precision
from segpipe.metrics.close_look import CloseLook
from segpipe.metrics.coco import coco_average_precision
from segpipe.metrics.coco_meter import DetectionMeter
from segpipe.metrics.confusion import ConfusionMeter, confusion_matrix, semantic_scores
from segpipe.metrics.davis import contour_accuracy, dataset_jf, davis_scores, region_similarity
from segpipe.metrics.keypoints import KeypointMeter, pck
from segpipe.metrics.paired import paired_bootstrap, paired_bootstrap_ap
from segpipe.metrics.panoptic import PanopticMeter, dataset_pq, panoptic_quality
from segpipe.metrics.precision import PrecisionRecall, average_precision, precision_recall
from segpipe.metrics.segments import panoptic_item
from segpipe.metrics.voc import voc_average_precision

__all__ = [
    "ApEvidence",
    "CloseLook",
    "ConfusionMeter",
    "DetectionMeter",
    "KeypointMeter",
    "PanopticMeter",
    "PrecisionRecall",
    "ap_interval",
    "average_precision",
    "boundary_iou",
    "cityscapes_average_precision",
    "coco_average_precision",
    "confusion_matrix",
    "contour_accuracy",
    "dataset_jf",
    "dataset_miou",
    "dataset_pq",
    "davis_scores",
    "first_maximum",
    "interval",
    "mask_boundary",
    "mean_ap",
    "mean_ratio",
    "paired_bootstrap",
    "paired_bootstrap_ap",
    "panoptic_item",
    "panoptic_quality",
    "pck",
    "precision_recall",
    "region_similarity",
    "resampled_ap",
    "resampling_unit",
    "semantic_scores",
    "voc_average_precision",
]
