"""Reading the output of mask-classification models: its loss, and its panoptic, instance and semantic answers.

Beside the tasks, which look this reading up by the type of a model's output. The rules of inference are those of
MaskFormer, Cheng et al., 2021, arXiv:2107.06278, section 3.4, as the code of Mask2Former (arXiv:2112.01527) has them.

Letter legend: N images, Q queries, q those looked at, n detections, M objects of an image, K classes, H W size of an
answer, h w of a mask of stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe import masks
from segpipe.data.batch import Batch
from segpipe.losses import query_losses
from segpipe.models.spec import QueryOutput
from segpipe.predictions import Detections, PanopticMap
from segpipe.tasks.finite import refuse_non_finite
from segpipe.tasks.refusals import objects_of
from segpipe.types import ClassInfo, Segment

MASK_STRIDE = 4
SCORE_THRESHOLD, OVERLAP_THRESHOLD = 0.8, 0.8
MOST_DETECTIONS = 100


def losses(output: QueryOutput, batch: Batch, *, classes: Sequence[ClassInfo], ignore_index: int) -> dict[str, Tensor]:
    """{"class", "mask", "dice"} of `query_losses`, each summed over the predictions of all layers.

    What is to be found are the batch's things without its crowds and, where it has labels, one mask of each stuff class
    in them. As in the authors' code, crowds and ignored pixels are outside of every mask.
    """
    targets = [query_targets(batch, image, classes) for image in range(len(batch.sample_ids))]
    device = output.mask_logits_NQhw.device
    class_ids = [class_ids_M.to(device, non_blocking=True) for class_ids_M, _ in targets]
    truth = [masks_MHW.to(device, non_blocking=True) for _, masks_MHW in targets]
    terms: dict[str, Tensor] = {}
    for layer in (*output.aux, output):
        found = query_losses(layer.class_logits_NQK, layer.mask_logits_NQhw, class_ids, truth)
        terms = {name: terms.get(name, 0.0) + term for name, term in found.items()}
    return terms


def query_targets(batch: Batch, image: int, classes: Sequence[ClassInfo]) -> tuple[Tensor, Tensor]:
    """Class ids (M,) int64 and bool masks (M, H, W) of what the queries are to find in one crop of the batch."""
    objects = objects_of(batch)[image]
    is_thing_K = torch.tensor([c.is_thing for c in classes])
    kept_M = is_thing_K[objects.class_ids_N] & ~objects.is_crowd_N
    class_ids, found = [objects.class_ids_N[kept_M]], [objects.masks_NHW[kept_M]]
    if batch.labels_NHW is not None:
        labels_HW = batch.labels_NHW[image]
        shown = [
            each for each in torch.unique(labels_HW).tolist() if each < len(classes) and not classes[each].is_thing
        ]
        class_ids.append(torch.tensor(shown, dtype=torch.int64))
        found.extend((labels_HW == class_id)[None] for class_id in shown)
    return torch.cat(class_ids), torch.cat(found)


def maps(
    output: QueryOutput,
    batch: Batch,
    *,
    classes: Sequence[ClassInfo],
    score_threshold: float = SCORE_THRESHOLD,
    overlap_threshold: float = OVERLAP_THRESHOLD,
) -> list[PanopticMap]:
    """A map an image. Queries that are surely something compete for each pixel by score x probability.

    What a query wins counts where its own mask is (probability of at least a half); a query that keeps less than
    `overlap_threshold` of its mask says nothing. Several of one stuff class are one segment. Raises NonFiniteError for
    a model that has diverged.
    """
    size = _checked_size(output, batch)
    found = []
    for class_logits_QK, mask_logits_Qhw in zip(output.class_logits_NQK, output.mask_logits_NQhw, strict=True):
        scores_Q, class_ids_Q = class_logits_QK.float().softmax(1).max(1)
        kept_q = ((class_ids_Q < len(classes)) & (scores_Q > score_threshold)).nonzero()[:, 0]
        masks_qHW = _at_size(mask_logits_Qhw[kept_q], output.size, size).sigmoid()
        found.append(_share_out(masks_qHW, scores_Q[kept_q], class_ids_Q[kept_q].tolist(), classes, overlap_threshold))
    return found


def _share_out(
    masks_qHW: Tensor, scores_q: Tensor, class_ids_q: list[int], classes: Sequence[ClassInfo], overlap_threshold: float
) -> PanopticMap:
    """One image of `maps`, of which the queries above the threshold of the score are left."""
    ids_HW = np.zeros(masks_qHW.shape[1:], dtype=np.int32)
    if not class_ids_q:
        return PanopticMap(ids_HW=ids_HW, segments=())
    winner_HW = (masks_qHW * scores_q[:, None, None]).max(0).indices.cpu().numpy()
    inside_qHW = (masks_qHW >= 0.5).cpu().numpy()
    class_of: dict[int, int] = {}
    stuff: dict[int, int] = {}
    for query, class_id in enumerate(class_ids_q):
        won_HW = winner_HW == query
        shown_HW = won_HW & inside_qHW[query]
        if not shown_HW.any() or won_HW.sum() < overlap_threshold * inside_qHW[query].sum():
            continue
        segment_id = stuff.get(class_id, len(class_of) + 1)
        if not classes[class_id].is_thing:
            stuff[class_id] = segment_id
        class_of[segment_id] = class_id
        ids_HW[shown_HW] = segment_id
    areas = np.bincount(ids_HW.ravel(), minlength=len(class_of) + 1)
    return PanopticMap(
        ids_HW=ids_HW,
        segments=tuple(
            Segment(segment_id=segment_id, class_id=class_id, area=float(areas[segment_id]))
            for segment_id, class_id in class_of.items()
        ),
    )


def detections(
    output: QueryOutput, batch: Batch, *, classes: Sequence[ClassInfo], limit: int = MOST_DETECTIONS
) -> list[Detections]:
    """The `limit` best pairs of query and thing class of each image; those whose mask is empty are left out.

    A score is the probability of the class times the mean probability of the mask inside itself. Raises NonFiniteError
    for a model that has diverged.
    """
    size = _checked_size(output, batch)
    things = [class_id for class_id, info in enumerate(classes) if info.is_thing]
    found = []
    for class_logits_QK, mask_logits_Qhw in zip(output.class_logits_NQK, output.mask_logits_NQhw, strict=True):
        scores_QT = class_logits_QK.float().softmax(1)[:, things].cpu().numpy()
        best = np.argsort(-scores_QT, axis=None, kind="stable")[:limit]
        queries, columns = np.unravel_index(best, scores_QT.shape)
        chosen, places = np.unique(queries, return_inverse=True)
        logits_qHW = _at_size(mask_logits_Qhw[chosen.tolist()], output.size, size)
        class_ids_n = np.array(things, dtype=np.int64)[columns]
        scores_n = scores_QT[queries, columns].astype(np.float64)
        found.append(_detections(logits_qHW.sigmoid().cpu().numpy(), places, class_ids_n, scores_n))
    return found


def _detections(
    probabilities_qHW: np.ndarray, queries_n: np.ndarray, class_ids_n: np.ndarray, scores_n: np.ndarray
) -> Detections:
    """Those with a pixel, best first: `queries_n` says which of the masks each of n detections has."""
    inside_qHW = probabilities_qHW >= 0.5
    area_q = inside_qHW.sum(axis=(1, 2))
    quality_q = (probabilities_qHW * inside_qHW).sum(axis=(1, 2), dtype=np.float64) / np.maximum(area_q, 1)
    scores_n = scores_n * quality_q[queries_n]
    order = np.argsort(-scores_n, kind="stable")
    order = order[area_q[queries_n[order]] > 0]
    boxes_q4 = np.zeros((len(inside_qHW), 4))
    rles: dict[int, bytes] = {}
    for query in np.unique(queries_n[order]):
        (columns,), (rows,) = (np.nonzero(inside_qHW[query].any(axis=axis)) for axis in (0, 1))
        boxes_q4[query] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        rles[int(query)] = masks.encode_rle(inside_qHW[query])["counts"]
    return Detections(
        size=(inside_qHW.shape[1], inside_qHW.shape[2]),
        class_ids_N=class_ids_n[order],
        scores_N=scores_n[order],
        boxes_N4=boxes_q4[queries_n[order]],
        masks=tuple(rles[int(query)] for query in queries_n[order]),
    )


def semantic_scores(output: QueryOutput, batch: Batch) -> Tensor:
    """(N, K, H, W) float32: for each class the sum over queries of its probability x the mask's.

    Raises NonFiniteError for a model that has diverged.
    """
    size = _checked_size(output, batch)
    class_NQK = output.class_logits_NQK.float().softmax(2)[..., :-1]
    masks_NQHW = _at_size(output.mask_logits_NQhw, output.size, size).sigmoid()
    return torch.einsum("nqk,nqhw->nkhw", class_NQK, masks_NQHW)


def _checked_size(output: QueryOutput, batch: Batch) -> tuple[int, int]:
    """Height and width of the batch's images, of which answers are to be."""
    for class_logits_QK, mask_logits_Qhw, name in zip(
        output.class_logits_NQK, output.mask_logits_NQhw, batch.sample_ids, strict=True
    ):
        refuse_non_finite(name, "classes or masks", class_logits_QK, mask_logits_Qhw)
    height, width = batch.images_N3HW.shape[-2:]
    return height, width


def _at_size(logits_Mhw: Tensor, given: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Mask logits (..., h, w) of images of the size `given` to the model, as float32 (..., H, W) of `size`."""
    lead = logits_Mhw.shape[:-2]
    height, width = (cells * MASK_STRIDE for cells in logits_Mhw.shape[-2:])
    maps = logits_Mhw.reshape(1, -1, *logits_Mhw.shape[-2:]).float()
    if not maps.numel():
        return maps.new_zeros((*lead, *size))
    maps = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)[..., : given[0], : given[1]]
    if given != size:
        maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return maps.reshape(*lead, *size)
