"""How the panoptic task reads `CentreOutput`: the classes, centres and offsets of a bottom-up model.

Panoptic-DeepLab, Cheng et al. 2020, arXiv 1911.10194, section 3.3 and the authors' code, which fixes what the paper
leaves open. Letter legend: N batch, M objects of a crop, H W size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from segpipe.data.batch import Batch
from segpipe.data.objects import Objects
from segpipe.losses import cross_entropy, mean_over
from segpipe.metrics import first_maximum
from segpipe.models.spec import CentreOutput
from segpipe.predictions import PanopticMap
from segpipe.refine.centre_grouping import group_by_centre
from segpipe.tasks.finite import refuse_non_finite
from segpipe.tasks.panoptic.limits import stuff_area_limit
from segpipe.tasks.refusals import labels_of, objects_of
from segpipe.types import ClassInfo

CENTRE_WEIGHT, OFFSET_WEIGHT = 200.0, 0.01
# The paper's 8 pixels are for images of 513 pixels and more; in a smaller one they would melt neighbours into one.
SIGMA, SIGMA_SHARE = 8.0, 1 / 64


def losses(output: CentreOutput, batch: Batch, *, classes: Sequence[ClassInfo], ignore_index: int) -> dict[str, Tensor]:
    """{"semantic", "centre", "offset"}: cross entropy, squared error of the heatmap, absolute error of the offsets.

    The heatmap counts where something is labelled that is no crowd, offsets on the pixels of things that are none.
    """
    device = output.logits_NKHW.device
    labels_NHW = labels_of(batch).to(device, non_blocking=True).long()
    heats, offsets, owned, crowded = zip(
        *(centre_targets(each, classes, device) for each in objects_of(batch)), strict=True
    )
    counted_NHW = (labels_NHW != ignore_index) & ~torch.stack(crowded)
    centre_errors_NHW = (output.centres_N1HW[:, 0].float() - torch.stack(heats)).square()
    offset_errors_NHW = (output.offsets_N2HW.float() - torch.stack(offsets)).abs().mean(1)
    return {
        "semantic": cross_entropy(output.logits_NKHW, labels_NHW, ignore_index=ignore_index),
        "centre": CENTRE_WEIGHT * mean_over(centre_errors_NHW, counted_NHW),
        "offset": OFFSET_WEIGHT * mean_over(offset_errors_NHW, torch.stack(owned)),
    }


def centre_targets(
    objects: Objects, classes: Sequence[ClassInfo], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a crop's heatmap (H, W) and offsets (2, H, W) should be; where it holds things, and where crowds (H, W).

    A thing's centre is the mean of its pixels, its Gaussian stands on the pixel that the centre lies in and is 1 there.
    Where things overlap the later one owns the pixel.
    """
    H, W = objects.masks_NHW.shape[1:]
    rows_H, columns_W = (torch.arange(length, dtype=torch.float32, device=device) for length in (H, W))
    heat_HW = torch.zeros(H, W, device=device)
    offsets_2HW = torch.zeros(2, H, W, device=device)
    owned_HW, crowd_HW = torch.zeros(2, H, W, dtype=torch.bool, device=device)
    spread = 2 * min(SIGMA, SIGMA_SHARE * max(H, W)) ** 2
    masks_MHW = objects.masks_NHW.to(device, non_blocking=True)
    for mask_HW, class_id, is_crowd in zip(
        masks_MHW, objects.class_ids_N.tolist(), objects.is_crowd_N.tolist(), strict=True
    ):
        if is_crowd:
            crowd_HW |= mask_HW
        if is_crowd or not classes[class_id].is_thing:
            continue
        area = mask_HW.sum()
        row, column = (mask_HW.sum(1) * rows_H).sum() / area, (mask_HW.sum(0) * columns_W).sum() / area
        across_H, along_W = (
            (-(places - (middle + 0.5).floor()).square() / spread).exp()
            for places, middle in ((rows_H, row), (columns_W, column))
        )
        heat_HW = torch.maximum(heat_HW, across_H[:, None] * along_W)
        away_2HW = torch.stack([(row - rows_H)[:, None].expand(H, W), (column - columns_W).expand(H, W)])
        offsets_2HW = torch.where(mask_HW, away_2HW, offsets_2HW)
        owned_HW = owned_HW | mask_HW
    return heat_HW, offsets_2HW, owned_HW & ~crowd_HW, crowd_HW


def maps(output: CentreOutput, batch: Batch, *, classes: Sequence[ClassInfo]) -> list[PanopticMap]:
    """Everything is resized to the original size first, offsets with their lengths, and grouped there.

    Raises NonFiniteError for a model that has diverged.
    """
    said = zip(batch.sample_ids, output.logits_NKHW, output.centres_N1HW, output.offsets_N2HW, strict=True)
    for name, *maps_of_one in said:
        refuse_non_finite(name, "classes, centres or offsets", *maps_of_one)
    (rows, columns), (height, width) = batch.images_N3HW.shape[-2:], output.logits_NKHW.shape[-2:]
    size = (rows, columns)
    logits_NKHW, centres_N1HW, offsets_N2HW = (
        each.float()
        if each.shape[-2:] == size
        else functional.interpolate(each.float(), size=size, mode="bilinear", align_corners=False)
        for each in (output.logits_NKHW, output.centres_N1HW, output.offsets_N2HW)
    )
    longer_2 = torch.tensor([size[0] / height, size[1] / width], device=offsets_N2HW.device)
    offsets_N2HW = offsets_N2HW * longer_2[:, None, None]
    is_thing = [c.is_thing for c in classes]
    return [
        group_by_centre(labels_HW, heat_1HW[0], offsets_2HW, is_thing, stuff_area_limit=stuff_area_limit(size))
        for labels_HW, heat_1HW, offsets_2HW in zip(first_maximum(logits_NKHW), centres_N1HW, offsets_N2HW, strict=True)
    ]
