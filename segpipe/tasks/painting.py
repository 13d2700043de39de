"""Objects on both sides of a model of pixels: the map that it learns of, painted from objects, and what its map is cut
into. For the tasks of this room whose models may speak of pixels; no task itself.

Legend: N images, K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segpipe.data.batch import Batch
from segpipe.data.objects import Objects
from segpipe.masks import encode_crop
from segpipe.predictions import Detections
from segpipe.refine.watershed import split
from segpipe.tasks.finite import refuse_non_finite
from segpipe.tasks.refusals import objects_of
from segpipe.types import ClassInfo

# What nobody says: which objects of a crowd a pixel shows, or what is there at all (an ignored pixel, padding).
UNKNOWN = -1


def painted_labels(batch: Batch, classes: Sequence[ClassInfo], device: torch.device, *, ignore_index: int) -> Tensor:
    """(N, H, W) int64: 0 where there is no thing, k + 1 for class k, UNKNOWN in a crowd and, where no object lies, on
    padding and where the label map ignores a pixel or has a thing. Raises InputError on a batch without objects.

    Of objects that overlap the smallest is seen, as it is in most photographs. What the label map alone has of a thing
    is no background: a crop drops the objects of which it shows less than `min_area`, and their pixels stay.
    """
    is_thing_K = torch.tensor([info.is_thing for info in classes])
    found = objects_of(batch)
    labels_NHW = torch.zeros((len(found), *batch.images_N3HW.shape[-2:]), dtype=torch.int64)
    if batch.labels_NHW is not None:
        things = is_thing_K.nonzero().ravel().tolist()
        unknown = torch.tensor([ignore_index, *things], dtype=batch.labels_NHW.dtype)
        labels_NHW[torch.isin(batch.labels_NHW, unknown)] = UNKNOWN
    if batch.outside_NHW is not None:
        labels_NHW[batch.outside_NHW] = UNKNOWN
    for labels_HW, objects in zip(labels_NHW, found, strict=True):
        _paint(labels_HW, objects, is_thing_K)
    return labels_NHW.to(device, non_blocking=True)


def _paint(labels_HW: Tensor, objects: Objects, is_thing_K: Tensor) -> None:
    """Objects over what is there, in place."""
    area_N = objects.masks_NHW.flatten(1).sum(1)
    # Crowds first: an object in front of one is known.
    for n in sorted(range(len(objects)), key=lambda n: (not objects.is_crowd_N[n], -int(area_N[n]))):
        class_id = int(objects.class_ids_N[n])
        if is_thing_K[class_id]:
            labels_HW[objects.masks_NHW[n]] = UNKNOWN if objects.is_crowd_N[n] else class_id + 1


def objects_of_map(
    logits_KHW: Tensor, *, size: tuple[int, int], classes: Sequence[ClassInfo], sample_id: str
) -> Detections:
    """What the scores (K + 1, h, w) of a model, the background first, are cut into in an image of `size` (H, W).

    They are resized (bilinear) before, so that objects have the edges of the original. Objects of a class that is no
    thing are left out. Raises NonFiniteError where a score is not finite.
    """
    if logits_KHW.shape[-2:] != size:
        logits_KHW = functional.interpolate(logits_KHW[None].float(), size=size, mode="bilinear")[0]
    refuse_non_finite(sample_id, "scores", logits_KHW)
    probabilities_KHW = logits_KHW.softmax(0, dtype=torch.float32).cpu().numpy()
    class_ids, scores, boxes, masks = [], [], [], []
    for part in split(probabilities_KHW):
        if classes[part.class_id].is_thing:
            height, width = part.mask_hw.shape
            class_ids.append(part.class_id)
            scores.append(part.score)
            boxes.append((part.left, part.top, part.left + width, part.top + height))
            masks.append(encode_crop(part.mask_hw, top=part.top, left=part.left, size=size))
    return Detections(
        size=size,
        class_ids_N=np.array(class_ids, dtype=np.int64),
        scores_N=np.array(scores, dtype=np.float64),
        boxes_N4=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        masks=tuple(masks),
    )
