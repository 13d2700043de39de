"""Metrics: pure functions on label maps and counts, and additive meters. Below `tasks/` and `evaluate.py`."""

from __future__ import annotations

from segpipe.metrics.bootstrap import dataset_miou, interval, resampling_unit
from segpipe.metrics.confusion import ConfusionMeter, confusion_matrix, semantic_scores

__all__ = ["ConfusionMeter", "confusion_matrix", "dataset_miou", "interval", "resampling_unit", "semantic_scores"]
