"""What a recipe may ask for and this task cannot do: refused by name. Part of the task of `__init__.py`."""

from __future__ import annotations

from segpipe import models
from segpipe.config import RunConfig, TrainConfig
from segpipe.errors import InputError
from segpipe.tasks.refusals import refuse_ignored


def check_config(config: TrainConfig) -> None:
    """Raises InputError on keys of `train` that a loss of heatmaps would ignore, and for a mirror image in which nobody
    says which keypoints change sides."""
    refuse_ignored(config, averages_mirrored=True)
    augment = config.augment
    mirroring = {"augment.flip": augment.flip, "augment.vertical_flip": augment.vertical_flip}
    mirroring["inference.mirror"] = config.inference.mirror
    if augment.keypoint_pairs is None and any(mirroring.values()):
        raise InputError(
            f"train.{' and train.'.join(key for key, on in mirroring.items() if on)}: in a mirror image a left "
            "keypoint is a right one; say in train.augment.keypoint_pairs which places belong together ([] where none "
            "has a side)"
        )


def check_places(run: RunConfig, num_keypoints: int, *, where: str) -> None:
    """Raises InputError where a model has not one heatmap for each of the keypoints that objects of `where` have."""
    heatmaps = models.complete(run.arch, run.options)["keypoints"]
    if not num_keypoints:
        raise InputError(f"{where}: no object has a keypoint, so there is nothing to learn; choose another dataset")
    if heatmaps != num_keypoints:
        raise InputError(
            f"{run.arch}: the option keypoints is {heatmaps}, and objects of {where} have up to {num_keypoints}; set "
            f"it to {num_keypoints}"
        )
