"""Reading the output of mask-classification models: its loss, and its panoptic, instance and semantic answers.

Beside the tasks, which look this reading up by the type of a model's output. The rules of inference are those of
MaskFormer, Cheng et al., 2021, arXiv:2107.06278, section 3.4, as the code of Mask2Former (arXiv:2112.01527) has them.

Masks are looked at a few at a time: a hundred of a photograph of 12 megapixels would take 5 GB for each number a pixel.

Letter legend: N images, Q queries, q those looked at, c those looked at together, n detections, M objects of an image,
K classes, H W size of an answer, h w of a mask of stride 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe import masks
from segpipe.data.batch import Batch
from segpipe.losses import query_losses
from segpipe.models.spec import MASK_STRIDE, QueryOutput
from segpipe.predictions import Detections, PanopticMap
from segpipe.refine.panoptic_merge import panoptic_map
from segpipe.tasks.finite import refuse_non_finite
from segpipe.tasks.refusals import labels_of, objects_of
from segpipe.types import ClassInfo

SCORE_THRESHOLD, OVERLAP_THRESHOLD = 0.8, 0.8
MOST_DETECTIONS = 100
PIXELS_AT_ONCE = 2**24  # of the masks that are looked at together: 64 MiB as float32

Wanted = Literal["segments", "things", "classes"]


def losses(
    output: QueryOutput,
    batch: Batch,
    *,
    classes: Sequence[ClassInfo],
    ignore_index: int,
    wanted: Wanted = "segments",
) -> dict[str, Tensor]:
    """{"class", "mask", "dice"} of `query_losses`, each summed over the predictions of all layers.

    `wanted` says what is to be found (`query_targets`). As in the authors' code, crowds and ignored pixels are outside
    of every mask.
    """
    device = output.mask_logits_NQhw.device
    targets = [query_targets(batch, image, classes, wanted=wanted) for image in range(len(batch.sample_ids))]
    class_ids = [class_ids_M.to(device, non_blocking=True) for class_ids_M, _ in targets]
    # As the numbers that points are read of: each layer would make them anew of the bools.
    truth = [masks_MHW.to(device, non_blocking=True).float() for _, masks_MHW in targets]
    terms: dict[str, Tensor] = {}
    for layer in (*output.aux, output):
        found = query_losses(layer.class_logits_NQK, layer.mask_logits_NQhw, class_ids, truth, stride=MASK_STRIDE)
        terms = {name: terms.get(name, 0.0) + term for name, term in found.items()}
    return terms


def query_targets(
    batch: Batch, image: int, classes: Sequence[ClassInfo], *, wanted: Wanted = "segments"
) -> tuple[Tensor, Tensor]:
    """Class ids (M,) int64 and bool masks (M, H, W) of what the queries are to find in one crop of the batch.

    "things" are the objects without crowds, "classes" one mask of each class in the label map, and "segments" the
    things and, where there is a label map, one mask of each stuff class in it. Raises InputError where what it is made
    of is missing.
    """
    class_ids: list[int] = []
    found = [torch.zeros((0, *batch.images_N3HW.shape[-2:]), dtype=torch.bool)]
    if wanted != "classes":
        objects = objects_of(batch)[image]
        kept_M = torch.tensor([c.is_thing for c in classes])[objects.class_ids_N] & ~objects.is_crowd_N
        class_ids += objects.class_ids_N[kept_M].tolist()
        found.append(objects.masks_NHW[kept_M])
    if wanted == "classes" or (wanted == "segments" and batch.labels_NHW is not None):
        labels_HW = labels_of(batch)[image]
        for class_id in torch.unique(labels_HW).tolist():
            if class_id < len(classes) and (wanted == "classes" or not classes[class_id].is_thing):
                class_ids.append(class_id)
                found.append((labels_HW == class_id)[None])
    return torch.tensor(class_ids, dtype=torch.int64), torch.cat(found)


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
        competition = _compete(_probabilities(mask_logits_Qhw[kept_q], output.size, size), scores_Q[kept_q], size)
        found.append(_share_out(*competition, class_ids_Q[kept_q].tolist(), classes, overlap_threshold))
    return found


def _compete(
    probabilities: Iterator[Tensor], scores_q: Tensor, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Which query wins each pixel (H, W), whether it is inside of that one's mask (H, W), pixels of each mask (q)."""
    best_HW = torch.full(size, -1.0, device=scores_q.device)
    winner_HW = torch.zeros(size, dtype=torch.int32, device=scores_q.device)
    inside_HW = torch.zeros(size, dtype=torch.bool, device=scores_q.device)
    areas, first = [], 0
    for masks_cHW in probabilities:
        best_of_HW, index_HW = (masks_cHW * scores_q[first : first + len(masks_cHW), None, None]).max(0)
        better_HW = best_of_HW > best_HW
        inside_cHW = masks_cHW >= 0.5
        best_HW[better_HW] = best_of_HW[better_HW]
        winner_HW[better_HW] = index_HW[better_HW].int() + first
        inside_HW[better_HW] = inside_cHW.gather(0, index_HW[None])[0][better_HW]
        areas.append(inside_cHW.sum((1, 2)))
        first += len(masks_cHW)
    return winner_HW.cpu().numpy(), inside_HW.cpu().numpy(), torch.cat(areas).tolist() if areas else []


def _share_out(
    winner_HW: np.ndarray,
    inside_HW: np.ndarray,
    areas_q: list[int],
    class_ids_q: list[int],
    classes: Sequence[ClassInfo],
    overlap_threshold: float,
) -> PanopticMap:
    """One image of `maps`, of which the queries above the threshold of the score have competed."""
    won_q, shown_q = (np.bincount(each, minlength=len(areas_q)) for each in (winner_HW.ravel(), winner_HW[inside_HW]))
    segment_of_q = np.zeros(max(1, len(areas_q)), dtype=np.int32)
    class_of: dict[int, int] = {}
    stuff: dict[int, int] = {}
    for query, (class_id, area) in enumerate(zip(class_ids_q, areas_q, strict=True)):
        if not shown_q[query] or won_q[query] < overlap_threshold * area:
            continue
        segment_id = stuff.get(class_id, len(class_of) + 1)
        if not classes[class_id].is_thing:
            stuff[class_id] = segment_id
        class_of[segment_id] = class_id
        segment_of_q[query] = segment_id
    ids_HW = segment_of_q[winner_HW]
    ids_HW[~inside_HW] = 0
    return panoptic_map(ids_HW, list(class_of.values()))


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
        probabilities = _probabilities(mask_logits_Qhw[chosen.tolist()], output.size, size)
        masks_q = [_mask(each_HW) for part_cHW in probabilities for each_HW in part_cHW.cpu().numpy()]
        class_ids_n = np.array(things, dtype=np.int64)[columns]
        scores_n = scores_QT[queries, columns].astype(np.float64)
        found.append(_detections(masks_q, places, class_ids_n, scores_n, size))
    return found


class _Mask(NamedTuple):
    """What a detection keeps of a mask: its mean probability inside, its box and its run lengths."""

    quality: float
    box: tuple[int, int, int, int]
    counts: bytes


def _mask(probabilities_HW: np.ndarray) -> _Mask | None:
    """None for a mask without a pixel."""
    inside_HW = probabilities_HW >= 0.5
    (columns,), (rows,) = (np.nonzero(inside_HW.any(axis=axis)) for axis in (0, 1))
    if not len(rows):
        return None
    quality = float(probabilities_HW[inside_HW].mean(dtype=np.float64))
    top, left = int(rows[0]), int(columns[0])
    bottom, right = int(rows[-1]) + 1, int(columns[-1]) + 1
    size = (inside_HW.shape[0], inside_HW.shape[1])
    counts = masks.encode_crop(inside_HW[top:bottom, left:right], top=top, left=left, size=size)
    return _Mask(quality, (left, top, right, bottom), counts)


def _detections(
    masks_q: Sequence[_Mask | None],
    queries_n: np.ndarray,
    class_ids_n: np.ndarray,
    scores_n: np.ndarray,
    size: tuple[int, int],
) -> Detections:
    """Those with a pixel, best first: `queries_n` says which of the masks each of n detections has."""
    kept_n = np.array([masks_q[query] is not None for query in queries_n], dtype=bool)
    shown = [each for each in (masks_q[query] for query in queries_n) if each is not None]
    scores_n = scores_n[kept_n] * np.array([each.quality for each in shown], dtype=np.float64)
    order = np.argsort(-scores_n, kind="stable")
    return Detections(
        size=size,
        class_ids_N=class_ids_n[kept_n][order],
        scores_N=scores_n[order],
        boxes_N4=np.array([each.box for each in shown], dtype=np.float64).reshape(-1, 4)[order],
        masks=tuple(shown[at].counts for at in order),
    )


def semantic_scores(output: QueryOutput, batch: Batch, size: tuple[int, int] | None = None) -> Tensor:
    """(N, K, H, W) float32: for each class the sum over queries of its probability x the mask's.

    At the images' own size, or at another where the model saw a part of them. Raises NonFiniteError for a model that
    has diverged.
    """
    own = _checked_size(output, batch)
    size = size or own
    class_NQK = output.class_logits_NQK.float().softmax(2)[..., :-1]
    scores_NKHW = class_NQK.new_zeros((len(class_NQK), class_NQK.shape[2], *size))
    for scores_KHW, class_QK, mask_logits_Qhw in zip(scores_NKHW, class_NQK, output.mask_logits_NQhw, strict=True):
        first = 0
        for masks_cHW in _probabilities(mask_logits_Qhw, output.size, size):
            scores_KHW += torch.einsum("ck,chw->khw", class_QK[first : first + len(masks_cHW)], masks_cHW)
            first += len(masks_cHW)
    return scores_NKHW


def _checked_size(output: QueryOutput, batch: Batch) -> tuple[int, int]:
    """Height and width of the batch's images, of which answers are to be."""
    for class_logits_QK, mask_logits_Qhw, name in zip(
        output.class_logits_NQK, output.mask_logits_NQhw, batch.sample_ids, strict=True
    ):
        refuse_non_finite(name, "classes or masks", class_logits_QK, mask_logits_Qhw)
    height, width = batch.images_N3HW.shape[-2:]
    return height, width


def _probabilities(logits_Qhw: Tensor, given: tuple[int, int], size: tuple[int, int]) -> Iterator[Tensor]:
    """A few masks after the other, float32 (c, H, W) of `size`, of an image that the model saw at the size `given`."""
    at_once = max(1, PIXELS_AT_ONCE // max(size[0] * size[1], given[0] * given[1]))
    for part_chw in torch.split(logits_Qhw, at_once) if len(logits_Qhw) else ():
        yield _at_size(part_chw.float(), given, size).sigmoid_()


def _at_size(logits_chw: Tensor, given: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Their cells as pixels (bilinear), without those beyond the image, then as the image is large."""
    height, width = (cells * MASK_STRIDE for cells in logits_chw.shape[-2:])
    pixels = F.interpolate(logits_chw[None], size=(height, width), mode="bilinear", align_corners=False)
    pixels = pixels[..., : given[0], : given[1]]
    if given != size:
        pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    return pixels[0]
