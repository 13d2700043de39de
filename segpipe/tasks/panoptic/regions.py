"""How the panoptic task reads `RegionOutput`: the objects of a region model and the classes of its semantic branch.

Panoptic FPN, Kirillov et al. 2019, arXiv 1901.02446, section 4. Letter legend: N batch, K classes, M regions of an
image, H W original size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from segpipe.data.batch import Batch
from segpipe.errors import InputError
from segpipe.losses import cross_entropy
from segpipe.metrics import first_maximum
from segpipe.models.spec import RegionOutput, Regions
from segpipe.predictions import PanopticMap
from segpipe.refine.panoptic_merge import SCORE_THRESHOLD, merge
from segpipe.tasks.finite import refuse_non_finite
from segpipe.tasks.panoptic.limits import stuff_area_limit
from segpipe.tasks.refusals import labels_of
from segpipe.tasks.regions import mask_in_box
from segpipe.types import ClassInfo

# The authors' for COCO, beside terms of regions that weigh 1 each: neither branch is to outrun the other.
SEMANTIC_WEIGHT = 0.5


def losses(output: RegionOutput, batch: Batch, *, classes: Sequence[ClassInfo], ignore_index: int) -> dict[str, Tensor]:
    """The model's own terms of regions, and "semantic": cross entropy over the labelled pixels."""
    logits_NKHW = _semantic(output)
    labels_NHW = labels_of(batch).to(logits_NKHW.device, non_blocking=True).long()
    semantic = SEMANTIC_WEIGHT * cross_entropy(logits_NKHW, labels_NHW, ignore_index=ignore_index)
    return {**output.losses, "semantic": semantic}


def maps(output: RegionOutput, batch: Batch, *, classes: Sequence[ClassInfo]) -> list[PanopticMap]:
    """Masks are pasted and logits resized at the original size, and merged there.

    Raises InputError for a model without masks or semantic branch, NonFiniteError for one that has diverged.
    """
    logits_NKHW = _semantic(output)
    (rows, columns), (height, width) = batch.images_N3HW.shape[-2:], logits_NKHW.shape[-2:]
    size, seen = (rows, columns), (height, width)
    if seen != size:
        logits_NKHW = functional.interpolate(logits_NKHW.float(), size=size, mode="bilinear", align_corners=False)
    labels_NHW = first_maximum(logits_NKHW.float().contiguous()).cpu().numpy()
    is_thing = [info.is_thing for info in classes]
    for name, logits_KHW in zip(batch.sample_ids, logits_NKHW, strict=True):
        refuse_non_finite(name, "classes", logits_KHW)
    return [
        merge(
            *_things(regions, is_thing, size=size, seen=seen, sample_id=name),
            labels_HW,
            is_thing,
            stuff_area_limit=stuff_area_limit(size),
        )
        for labels_HW, regions, name in zip(labels_NHW, output.regions, batch.sample_ids, strict=True)
    ]


def _things(
    regions: Regions, is_thing: Sequence[bool], *, size: tuple[int, int], seen: tuple[int, int], sample_id: str
) -> tuple[Callable[[int], npt.NDArray[np.int64]], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Places of pixels by number, class ids and scores of the regions that the merging may look at."""
    if regions.mask_probabilities_Mss is None:
        raise InputError("the model finds boxes without masks, which say nothing of a pixel: choose panoptic_fpn")
    refuse_non_finite(sample_id, "boxes or scores", regions.boxes_M4, regions.scores_M)
    things_K = torch.tensor(is_thing, device=regions.class_ids_M.device)
    kept_M = (regions.scores_M >= SCORE_THRESHOLD) & things_K[regions.class_ids_M]
    boxes, probabilities_Mss = regions.boxes_M4[kept_M].tolist(), regions.mask_probabilities_Mss[kept_M].cpu()

    def places_of(number: int) -> npt.NDArray[np.int64]:
        top, left, mask_hw = mask_in_box(probabilities_Mss[number], boxes[number], size=size, seen=seen)
        places = np.flatnonzero(mask_hw)
        if places.size:
            places += places // mask_hw.shape[1] * (size[1] - mask_hw.shape[1]) + top * size[1] + left
        return places

    return places_of, regions.class_ids_M[kept_M].cpu().numpy(), regions.scores_M[kept_M].double().cpu().numpy()


def _semantic(output: RegionOutput) -> Tensor:
    if output.logits_NKHW is None:
        raise InputError("the model has no semantic branch, so that nothing tells its stuff: choose panoptic_fpn")
    return output.logits_NKHW
