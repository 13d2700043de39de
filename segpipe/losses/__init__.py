"""Losses and class weights: pure functions on tensors, called by `tasks/`. Knows nothing of models or data.

Of a class for every pixel are `pixels`, `hard_pixels`, `overlap`, `lovasz` and `boundary`, all of which read logits and
labels by `reading`; `coarse` is cross entropy of logits that are still to be resized. `queries` are of masks with a
class each, `points` are where masks are compared, `keypoints` of heatmaps.
"""

from segpipe.losses.boundary import boundary_loss
from segpipe.losses.hard_pixels import bootstrapped_cross_entropy, focal_loss
from segpipe.losses.keypoints import heatmap_loss
from segpipe.losses.lovasz import lovasz_loss
from segpipe.losses.overlap import dice_loss, jaccard_loss, tversky_loss
from segpipe.losses.pixels import cross_entropy, enet_weights, mean_over, median_frequency_weights
from segpipe.losses.points import read_points, uncertain_points
from segpipe.losses.queries import match_queries, matching_cost, query_losses
from segpipe.losses.reading import logits_of_classes, precise, resized

__all__ = [
    "bootstrapped_cross_entropy",
    "boundary_loss",
    "cross_entropy",
    "dice_loss",
    "enet_weights",
    "focal_loss",
    "heatmap_loss",
    "jaccard_loss",
    "logits_of_classes",
    "lovasz_loss",
    "match_queries",
    "matching_cost",
    "mean_over",
    "median_frequency_weights",
    "precise",
    "query_losses",
    "read_points",
    "resized",
    "tversky_loss",
    "uncertain_points",
]
