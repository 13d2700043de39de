"""Losses and class weights: pure functions on tensors, called by `tasks/`. Knows nothing of models or data.

`pixels` are of a class for every pixel, `queries` of masks with a class each, `points` are where masks are compared,
`keypoints` of heatmaps.
"""

from segpipe.losses.keypoints import heatmap_loss
from segpipe.losses.pixels import cross_entropy, enet_weights, mean_over, median_frequency_weights
from segpipe.losses.points import read_points, uncertain_points
from segpipe.losses.queries import match_queries, matching_cost, query_losses

__all__ = [
    "cross_entropy",
    "enet_weights",
    "heatmap_loss",
    "match_queries",
    "matching_cost",
    "mean_over",
    "median_frequency_weights",
    "query_losses",
    "read_points",
    "uncertain_points",
]
