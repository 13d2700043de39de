"""Simple Copy-Paste: some objects of one crop pasted onto another. Sits below `augment.py`.

Source: Ghiasi et al. 2021 (arXiv 2012.07177): both crops are scaled and mirrored on their own, a random part of the
objects is pasted without blending, what they cover is cut out of the masks below, boxes are taken anew.

Legend: H W size of both crops in pixels; N objects, P keypoints.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from segpipe.data.decode import DecodedSample
from segpipe.data.objects import Objects, moved, pixel_of, take, visible
from segpipe.types import Annotation, ClassInfo, Sample

_CHANCE = 0.5  # of each object to be pasted: "a random subset" in the paper


def unfit(annotations: Collection[Annotation], classes: Sequence[ClassInfo]) -> str | None:
    """Why a dataset has nothing to paste, or None where it has."""
    if Annotation.SEGMENTS not in annotations:
        return "has no segments to paste (objects with masks of their own); leave train.augment.copy_paste at 0"
    if not any(info.is_thing for info in classes):
        return (
            "has no class that is a thing, and stuff is not pasted; say which classes are things, or leave "
            "train.augment.copy_paste at 0"
        )
    return None


def pasteable(sample: Sample, classes: Sequence[ClassInfo]) -> Sample:
    """The sample with single objects only: no crowds, and no stuff, of which there is no copy to cut out."""
    segments = tuple(each for each in sample.segments if classes[each.class_id].is_thing and not each.is_crowd)
    return dataclasses.replace(sample, segments=segments)


def paste(below: DecodedSample, above: DecodedSample, draw: random.Random, *, min_area: int) -> DecodedSample:
    """Some objects of the crop `above` over the crop `below`, equal in size: pixels, labels, objects.

    Objects that show fewer than `min_area` pixels afterwards are gone. What `below` does not have (labels, objects) the
    result has not, either.
    """
    if above.objects is None:
        raise ValueError(f"sample {above.sample_id}: pasted without objects")
    there = visible(above.objects, min_area=min_area)
    chosen = take(there, torch.tensor([draw.random() < _CHANCE for _ in range(len(there))], dtype=torch.bool))
    covered_HW = chosen.masks_NHW.any(0)
    labels_HW = below.labels_HW
    if labels_HW is not None:
        if above.labels_HW is None:
            raise ValueError(f"sample {above.sample_id}: pasted without labels onto {below.sample_id}, which has some")
        labels_HW = torch.where(covered_HW, above.labels_HW, labels_HW)
    objects = below.objects
    return DecodedSample(
        sample_id=below.sample_id,
        image_3HW=torch.where(covered_HW, above.image_3HW, below.image_3HW),
        labels_HW=labels_HW,
        outside_HW=None if below.outside_HW is None else below.outside_HW & ~covered_HW,
        objects=None if objects is None else visible(_joined(_under(objects, covered_HW), chosen), min_area=min_area),
    )


def _under(objects: Objects, covered_HW: Tensor) -> Objects:
    """Objects with what is covered cut out; a keypoint there is hidden from now on."""
    keypoints_NP3 = objects.keypoints_NP3
    if keypoints_NP3 is not None:
        height, width = covered_HW.shape
        column_NP, row_NP = pixel_of(keypoints_NP3)
        hidden_NP = covered_HW[row_NP.clamp(0, height - 1), column_NP.clamp(0, width - 1)]
        most_NP = torch.where(hidden_NP, 1.0, 2.0)
        visibility_NP1 = keypoints_NP3[..., 2].minimum(most_NP)[..., None]
        keypoints_NP3 = torch.cat([keypoints_NP3[..., :2], visibility_NP1], dim=-1)
    return moved(objects, objects.masks_NHW & ~covered_HW, keypoints_NP3)


def _joined(one: Objects, other: Objects) -> Objects:
    """Both, `other` with segment ids of its own behind those of `one`."""
    first = int(one.segment_ids_N.max()) + 1 if len(one) else 1
    numbers_N = torch.arange(first, first + len(other))
    return Objects(
        class_ids_N=torch.cat([one.class_ids_N, other.class_ids_N]),
        segment_ids_N=torch.cat([one.segment_ids_N, numbers_N]),
        is_crowd_N=torch.cat([one.is_crowd_N, other.is_crowd_N]),
        masks_NHW=torch.cat([one.masks_NHW, other.masks_NHW]),
        boxes_N4=torch.cat([one.boxes_N4, other.boxes_N4]),
        keypoints_NP3=_joined_keypoints(one, other),
    )


def _joined_keypoints(one: Objects, other: Objects) -> Tensor | None:
    places = [0 if each.keypoints_NP3 is None else each.keypoints_NP3.shape[1] for each in (one, other)]
    if not any(places):
        return None
    parts = [
        torch.zeros(len(each), max(places), 3)
        if each.keypoints_NP3 is None
        else functional.pad(each.keypoints_NP3, (0, 0, 0, max(places) - each.keypoints_NP3.shape[1]))
        for each in (one, other)
    ]
    return torch.cat(parts)
