"""What a recipe or a bundle may ask for and this task cannot do: refused by name. Part of the task of `__init__.py`."""

from __future__ import annotations

from collections.abc import Sequence

from segpipe.config import TrainConfig
from segpipe.errors import InputError
from segpipe.types import Inference


def check_config(config: TrainConfig) -> None:
    """Raises InputError on keys of `train` that a loss of heatmaps would ignore."""
    if config.class_weights != "none":
        raise InputError(
            f"train.class_weights: {config.class_weights} counts pixels of label maps, and heatmaps have none; leave "
            "it out"
        )
    if config.aux_weight != config.default("aux_weight"):
        raise InputError("train.aux_weight: a model of keypoints has no auxiliary head; leave it out")
    # The pairs are an option of the model, which is not here.
    checked_pairs(Inference(scales=config.inference.scales, mirror=False), ())


def checked_pairs(inference: Inference, pairs: Sequence[Sequence[int]]) -> Sequence[Sequence[int]] | None:
    """The pairs that a mirror image exchanges, None where it is not looked at.

    Raises InputError for a mirror image without pairs, and for views of several sizes.
    """
    if inference.scales != (1.0,):
        raise InputError(
            f"train.inference.scales: {inference.scales}; a model of keypoints sees every object at one size: leave it "
            "out"
        )
    if inference.mirror and not pairs:
        raise InputError(
            "train.inference.mirror: in the mirror image a left keypoint is a right one; say which belong together in "
            "the model's option keypoint_pairs"
        )
    return pairs if inference.mirror else None
