"""A mask for each box that is given with an image, by a model that finds no objects itself (`MaskOutput`).

In an evaluation the boxes are those of the truth, so that what is measured are masks and no detector: predictions say
so, and with them the protocol of their report. For the tasks of this room; no task itself.

Legend: M objects of an image, H W original size, h w size inside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segpipe import masks
from segpipe.data.batch import Batch
from segpipe.errors import InputError
from segpipe.models.spec import MaskOutput
from segpipe.predictions import Detections
from segpipe.tasks.told import things_of
from segpipe.types import ClassInfo, Sample


def masks_in_boxes(
    model: Callable[..., MaskOutput],
    images_N3hw: Tensor,
    batch: Batch,
    *,
    classes: Sequence[ClassInfo],
    truth: Callable[[Sample], Detections],
) -> list[Detections]:
    """The objects of each image of a batch, in the order in which they were given, each of score 1.

    Raises InputError where nobody gave any.
    """
    size = height, width = (batch.images_N3HW.shape[-2], batch.images_N3HW.shape[-1])
    if batch.samples is not None:
        stored = [truth(sample) for sample in batch.samples]
        given = [(each.boxes_N4, each.class_ids_N) for each in stored]
    elif batch.given is not None:
        first = things_of(classes)[0]
        given = [
            (
                each.boxes_M4.numpy(),
                np.full(len(each.boxes_M4), first) if each.class_ids_M is None else each.class_ids_M.numpy(),
            )
            for each in batch.given
        ]
    else:
        raise InputError(
            f"samples {', '.join(batch.sample_ids[:4])}: this model is told by boxes where the objects are, and these "
            "images came without; send the boxes of each image"
        )
    h, w = images_N3hw.shape[-2:]
    scale_4 = torch.tensor([w / width, h / height] * 2, dtype=torch.float64)
    output = model(images_N3hw, [torch.from_numpy(boxes_M4) * scale_4 for boxes_M4, _ in given])
    return [
        Detections(
            size=size,
            class_ids_N=class_ids_M,
            scores_N=np.ones(len(class_ids_M)),
            boxes_N4=boxes_M4,
            masks=tuple(masks.encode_rle(mask_HW)["counts"] for mask_HW in _resized(masks_Mhw, size).numpy()),
            boxes_given=True,
        )
        for (boxes_M4, class_ids_M), masks_Mhw in zip(given, output.masks, strict=True)
    ]


def _resized(masks_Mhw: Tensor, size: tuple[int, int]) -> Tensor:
    """bool (M, H, W) on the CPU: of each pixel what the nearest one of the mask says."""
    masks_Mhw = masks_Mhw.cpu()
    if masks_Mhw.shape[-2:] == size or not len(masks_Mhw):
        return masks_Mhw
    # One by one: as floats, all of them would be four times as large.
    resized = [
        functional.interpolate(mask_hw[None, None].float(), size=size, mode="nearest-exact") for mask_hw in masks_Mhw
    ]
    return torch.cat([mask_11HW[0] > 0.5 for mask_11HW in resized])
