"""Objects on both sides of a region model: what it learns of (`RegionTarget`), and what it found, as `Detections`.

For the tasks of this room whose models speak of regions; no task itself.

Legend: M objects of an image, s side of a mask in its box, H W original size, h w size of a crop of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segpipe.data.batch import Batch
from segpipe.errors import InputError, NonFiniteError
from segpipe.masks import encode_crop
from segpipe.models.spec import Regions, RegionTarget
from segpipe.predictions import Detections
from segpipe.types import ClassInfo

THRESHOLD = 0.5  # of a mask's probability, as Mask R-CNN (arXiv 1703.06870, section 3.1) has it
_BORDER = 1  # pixels of nothing around a mask, so that it fades out beyond its box instead of ending there


def region_targets(batch: Batch, classes: Sequence[ClassInfo], device: torch.device) -> list[RegionTarget]:
    """The things of each crop, on the device; crowds and stuff are left out. Raises InputError on a batch without."""
    if batch.objects is None:
        raise InputError(
            f"samples {', '.join(batch.sample_ids[:4])}: the batch has no objects, which this task trains on"
        )
    is_thing_K = torch.tensor([info.is_thing for info in classes])
    targets = []
    for objects in batch.objects:
        kept_N = is_thing_K[objects.class_ids_N] & ~objects.is_crowd_N
        targets.append(
            RegionTarget(
                boxes_M4=objects.boxes_N4[kept_N].to(device, non_blocking=True),
                class_ids_M=objects.class_ids_N[kept_N].to(device, non_blocking=True),
                masks_MHW=objects.masks_NHW[kept_N].to(device, non_blocking=True),
            )
        )
    return targets


def detections_of(
    regions: Regions, *, size: tuple[int, int], seen: tuple[int, int], classes: Sequence[ClassInfo], sample_id: str
) -> Detections:
    """What a model found in an image of `size` (H, W) that it saw at size `seen`, in pixels of the original.

    Boxes are scaled back and cut at the border; masks are pasted (`paste`) there. Objects of a class that is no thing
    are left out. Raises NonFiniteError where a box or score is not finite.
    """
    scale_4 = torch.tensor([size[1] / seen[1], size[0] / seen[0]] * 2, dtype=torch.float64)
    limit_4 = torch.tensor([size[1], size[0]] * 2, dtype=torch.float64)
    boxes_M4 = (regions.boxes_M4.detach().cpu().double() * scale_4).clamp(min=torch.zeros(4).double(), max=limit_4)
    scores_M = regions.scores_M.detach().cpu().double()
    if not (torch.isfinite(boxes_M4).all() and torch.isfinite(scores_M).all()):
        raise NonFiniteError(
            f"sample {sample_id}: the model found objects whose boxes or scores are not finite; it has diverged: train "
            "it with a lower train.learning_rate or with train.clip_norm"
        )
    class_ids_M = regions.class_ids_M.detach().cpu().long()
    kept_M = torch.tensor([info.is_thing for info in classes])[class_ids_M]
    masks = None
    if regions.mask_probabilities_Mss is not None:
        probabilities_Mss = regions.mask_probabilities_Mss.detach().cpu().float()
        masks = tuple(paste(probabilities_Mss[m], boxes_M4[m], size) for m in kept_M.nonzero().ravel().tolist())
    return Detections(
        size=size,
        class_ids_N=class_ids_M[kept_M].numpy(),
        scores_N=scores_M[kept_M].numpy(),
        boxes_N4=boxes_M4[kept_M].numpy(),
        masks=masks,
    )


def paste(probabilities_ss: Tensor, box_4: Tensor, size: tuple[int, int]) -> bytes:
    """COCO's run lengths of a mask that covers a box of an image of `size` (H, W), at most as large as the image.

    By torchvision's rules (`roi_heads.paste_masks_in_image`, in turn Detectron's): the mask with a border of nothing is
    resized (bilinear) to its box, widened by as much and cut to whole pixels, and is 1 where it exceeds THRESHOLD. No
    more than the box is ever held: 300 masks of a large photograph would take gigabytes.
    """
    side = probabilities_ss.shape[-1]
    padded = functional.pad(probabilities_ss[None, None], (_BORDER,) * 4)
    # In float32, as torchvision widens: in double, a side that lies on a whole pixel would be cut at another one.
    x0, y0, x1, y1 = box_4.float().unbind()
    scale = float(side + 2 * _BORDER) / side
    half_x, half_y, middle_x, middle_y = (x1 - x0) * 0.5, (y1 - y0) * 0.5, (x1 + x0) * 0.5, (y1 + y0) * 0.5
    left, top = int(middle_x - half_x * scale), int(middle_y - half_y * scale)
    right, bottom = int(middle_x + half_x * scale), int(middle_y + half_y * scale)
    inner = (max(bottom - top + 1, 1), max(right - left + 1, 1))
    mask_hw = functional.interpolate(padded, size=inner, mode="bilinear", align_corners=False)[0, 0].numpy() > THRESHOLD
    first_row, first_column = max(top, 0), max(left, 0)
    inside_hw = mask_hw[first_row - top : size[0] - top, first_column - left : size[1] - left]
    return encode_crop(np.asarray(inside_hw), top=first_row, left=first_column, size=size)
