"""Which objects of an image are looked at where no truth is stored: those that came with it, or the one it shows.

Part of the task of `__init__.py`. Legend: M objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segpipe import models
from segpipe.data.batch import Batch
from segpipe.errors import InputError
from segpipe.predictions import Poses
from segpipe.tasks.told import things_of, told_of_things
from segpipe.types import ClassInfo, ModelBundle


def told_of_objects(bundle: ModelBundle) -> tuple[str, ...]:
    """What must come with an image: "boxes" of its objects, and their "class_ids" where several classes have any."""
    if models.complete(bundle.arch, bundle.options)["framing"] == "image":
        return ()
    return told_of_things(bundle.classes)


def given_poses(batch: Batch, classes: Sequence[ClassInfo], framing: str) -> list[Poses]:
    """The objects of each image of a batch without stored rows, still without points.

    Raises InputError where nothing says which they are.
    """
    height, width = batch.images_N3HW.shape[-2:]
    things = things_of(classes)
    if batch.given is not None:
        return [
            _unposed((height, width), each.boxes_M4.numpy(), np.full(len(each.boxes_M4), things[0]))
            if each.class_ids_M is None
            else _unposed((height, width), each.boxes_M4.numpy(), each.class_ids_M.numpy())
            for each in batch.given
        ]
    if framing != "image":
        raise InputError(
            f"framing {framing}: a model of keypoints is told by boxes where the objects are, and these images came "
            "without; send the boxes of each image, or train with framing image, where each shows one object"
        )
    if len(things) != 1:
        raise InputError(
            f"framing image: the one object of an image may be of {len(things)} classes "
            f"({', '.join(classes[k].name for k in things)}), and nothing says which; train on a dataset with one "
            "class of objects, or with framing objects"
        )
    whole = np.array([[0.0, 0.0, width, height]])
    return [_unposed((height, width), whole, np.array(things)) for _ in batch.sample_ids]


def _unposed(size: tuple[int, int], boxes_M4: np.ndarray, class_ids_M: np.ndarray) -> Poses:
    return Poses(
        size=size,
        class_ids_N=class_ids_M,
        scores_N=np.ones(len(boxes_M4)),
        boxes_N4=boxes_M4,
        points_NP3=np.zeros((len(boxes_M4), 0, 3)),
    )
