"""How a semantic model looks at images: at several sizes and mirrored, window by window where they are large, and
several times with dropout on where it is asked for samples.

Logits are resized to the original size before the arg max, so that what is counted is always the original resolution.
That is done in bands of rows, so that never all logits of a large image lie in memory. Of several views the class
probabilities are summed; what windows of one view say is blended before, as logits. A CRF refines their mean. No task
itself.

Legend: N batch, K classes, H W original size, h w size of a view inside the model.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from hashlib import blake2b
from itertools import product, starmap
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.data.batch import Batch, entering_size, evaluation_inputs, normalise, resized_images
from segpipe.losses import logits_of_classes, precise, resized
from segpipe.metrics import first_maximum
from segpipe.models.spec import DenseOutput, QueryOutput, device_of
from segpipe.predictions import LEVELS, LOGITS, Beside, LabelMap, grid
from segpipe.refine import dense_crf_batch
from segpipe.refine.dropout_sampling import moments, sampled_pass
from segpipe.refine.tiles import Span, blended_rows, gaussian_spans, resized_rows
from segpipe.tasks import queries
from segpipe.tasks.finite import refuse_non_finite
from segpipe.types import CrfSettings, ModelBundle, Window

NUMBERS_AT_ONCE = 2**22  # scores of the rows whose classes are chosen together: 16 MiB; of 64 all is a third slower


class DropoutPass(NamedTuple):
    """One of several passes with dropout on, and what is dropped in each image of the batch: drawn from the image."""

    number: int
    images: tuple[bytes, ...]


class Looked(NamedTuple):
    """`ids_NHW` class ids, uint8, or int32 where K > 255. With samples `uncertainty_NHW` float32 in 0..0.25: the
    variance of a class's probability over all passes, the mean over the classes. Where that was asked for, `levels_NKP`
    uint8, as a `LabelMap` has them, if the model says probabilities, and `confidence_NHW` float32 in 0..1: the
    probability of the class, of a model of queries its share of what they say of all classes. These two took
    `beside_seconds` of the whole batch's."""

    ids_NHW: Tensor
    uncertainty_NHW: Tensor | None = None
    levels_NKP: Tensor | None = None
    confidence_NHW: Tensor | None = None
    beside_seconds: float = 0.0


class View(NamedTuple):
    scale: float
    mirrored: bool
    dropout: DropoutPass | None = None


def look(model: nn.Module, batch: Batch, bundle: ModelBundle, *, beside: Collection[Beside] = ()) -> Looked:
    """What the model says of each pixel, and `beside` that how sure it is: "levels" for the counts of an evaluation,
    "confidence" for whoever asks about one image.

    An image enters the model resized by `bundle.input_scale`, once for every view of `bundle.inference`. With a CRF
    there, all scores of an image lie in memory together, and a model that has diverged raises NonFiniteError.
    """
    crf, levels, confidence = bundle.inference.crf, "levels" in beside, "confidence" in beside
    if crf is not None:
        given_NKHW, uncertainty_NHW = _probabilities(model, batch, bundle)
        found_NKHW = refined(batch, given_NKHW, crf)
        ids_NHW, started = first_maximum(found_NKHW).cpu(), time.perf_counter()
        levels_NKP = _levels(found_NKHW, 0, found_NKHW.shape[2], are_probabilities=True) if levels else None
        confidence_NHW = _confidence(found_NKHW, are_logits=False).cpu() if confidence else None
        return Looked(ids_NHW, uncertainty_NHW, levels_NKP, confidence_NHW, time.perf_counter() - started)
    # Logits do not add up over views, probabilities do, as what queries say together does.
    several = len(bundle.inference.scales) > 1 or bundle.inference.mirror or bundle.inference.samples > 0
    is_dense = models.spec(bundle.arch).output is DenseOutput
    are_probabilities = several and is_dense
    # One view after the other: but for samples, not all of an image's scores lie in memory together.
    ids, uncertainties, bands, confidences = list[Tensor](), [], list[Tensor](), list[Tensor]()
    row, beside_seconds = 0, 0.0
    for scores_NKhW, unsure_NhW in _bands(model, batch, bundle, are_probabilities=are_probabilities):
        ids.append(first_maximum(scores_NKhW).cpu())
        uncertainties.append(unsure_NhW)
        started = time.perf_counter()  # the ids lie on the CPU, as what follows does: no kernel is still at work
        if confidence:
            confidences.append(_confidence(scores_NKhW, are_logits=is_dense and not several).cpu())
        if levels and is_dense:
            bands.append(_levels(scores_NKhW, row, batch.images_N3HW.shape[2], are_probabilities=are_probabilities))
        beside_seconds += time.perf_counter() - started
        row += scores_NKhW.shape[2]
    levels_NKP = torch.cat(bands, dim=2) if bands else None
    return Looked(torch.cat(ids, dim=1), _joined(uncertainties), levels_NKP, _joined(confidences), beside_seconds)


def label_maps(looked: Looked) -> list[LabelMap]:
    """What was seen of each image by itself, on the host."""
    unsure, levels, confidence = (
        None if each is None else each.cpu().numpy()
        for each in (looked.uncertainty_NHW, looked.levels_NKP, looked.confidence_NHW)
    )
    return [
        LabelMap(
            ids_HW=ids_HW,
            uncertainty_HW=None if unsure is None else unsure[n],
            levels_KP=None if levels is None else levels[n],
            confidence_HW=None if confidence is None else confidence[n],
            beside_seconds=looked.beside_seconds / len(looked.ids_NHW),
        )
        for n, ids_HW in enumerate(looked.ids_NHW.cpu().numpy())
    ]


def _levels(scores_NKhW: Tensor, first_row: int, height: int, *, are_probabilities: bool) -> Tensor:
    """The levels (N, K, p) uint8, on the host, of the pixels of `grid` that lie in a band of an image of `height` rows.

    `scores_NKhW` are logits, or what is in proportion to probabilities. One that is not a number is level 0.
    """
    rows, columns = (torch.from_numpy(each).flatten() for each in grid(height, scores_NKhW.shape[3]))
    rows = rows[(rows >= first_row) & (rows < first_row + scores_NKhW.shape[2])] - first_row
    on = scores_NKhW.device
    picked_NKp = scores_NKhW.index_select(2, rows.to(on)).index_select(3, columns.to(on)).flatten(2).float()
    shares_NKp = picked_NKp / picked_NKp.sum(1, keepdim=True) if are_probabilities else picked_NKp.softmax(1)
    steps_NKp = (shares_NKp.logit() + LOGITS) * (LEVELS / (2 * LOGITS))
    return steps_NKp.nan_to_num(0.0).clamp(0, LEVELS - 1).to(torch.uint8).cpu()


def _confidence(scores_NKhW: Tensor, *, are_logits: bool) -> Tensor:
    """(N, h, W) float32 in 0..1: how probable the likeliest class is.

    What are no logits are sums: of probabilities over views, or of what queries say of each class, which comes to
    anything and may be nothing at all. There it is the class's share.
    """
    if are_logits:
        return scores_NKhW.softmax(1, dtype=torch.float32).amax(1)
    sums_NhW = scores_NKhW.sum(1, dtype=torch.float32)
    return scores_NKhW.amax(1).float() / sums_NhW.clamp(min=torch.finfo(torch.float32).tiny)


def probabilities(model: nn.Module, batch: Batch, bundle: ModelBundle) -> Tensor:
    """(N, K, H, W) float32 that sum to 1 over K at the images' own size: the mean of what the views say.

    Raises NonFiniteError for a model that has diverged. Not of a model of queries, whose scores sum to nothing.
    """
    return _probabilities(model, batch, bundle)[0]


def _probabilities(model: nn.Module, batch: Batch, bundle: ModelBundle) -> tuple[Tensor, Tensor | None]:
    """`probabilities`, and with samples how unsure they are, as `look` says it."""
    bands = list(_bands(model, batch, bundle, are_probabilities=True))
    sums_NKHW = torch.cat([sums_NKhW for sums_NKhW, _ in bands], dim=2)
    for sample_id, sums_KHW in zip(batch.sample_ids, sums_NKHW, strict=True):
        refuse_non_finite(sample_id, "class probabilities", sums_KHW)
    return sums_NKHW.div_(sums_NKHW.sum(1, keepdim=True)), _joined([unsure_NhW for _, unsure_NhW in bands])


def refined(batch: Batch, given_NKHW: Tensor, crf: CrfSettings) -> Tensor:
    """`probabilities` of the batch's images after a CRF on these, as they were stored or sent."""
    found_NKHW = dense_crf_batch(
        batch.images_N3HW.permute(0, 2, 3, 1),
        given_NKHW,
        iterations=crf.iterations,
        gaussian=crf.gaussian,
        bilateral=crf.bilateral,
    )
    assert isinstance(found_NKHW, Tensor)
    return found_NKHW


def passes(bundle: ModelBundle, size: tuple[int, int]) -> dict[tuple[int, int], int]:
    """How often an image of `size` (H, W) enters the model, by the (h, w) at which it does: every view, sample by
    sample and window by window where these are asked."""
    found, inference = Counter[tuple[int, int]](), bundle.inference
    window = inference.window
    is_cut = window is not None and exceeds(window, bundle, size)
    for scale in inference.scales:
        sides = entering_size(size, bundle.input_scale * scale)
        if window and is_cut:
            pieces = [
                [span.stop - span.start for span in gaussian_spans(side, most, window.overlap)]
                for side, most in zip(sides, window.size, strict=True)
            ]
        else:
            pieces = [[side] for side in sides]
        for h, w in product(*pieces):
            found[h, w] += (1 + inference.mirror) * max(1, inference.samples)
    return dict(found)


def _bands(
    model: nn.Module, batch: Batch, bundle: ModelBundle, *, are_probabilities: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """What all views say of each class, added up, in bands of rows.

    (N, K, rows, W), with (N, rows, W) of their uncertainty where there are samples.
    """
    inference = bundle.inference
    mirrorings = (False, True) if inference.mirror else (False,)
    samples = _dropout_passes(batch, inference.samples) if inference.samples else (None,)
    views = list(starmap(View, product(inference.scales, mirrorings, samples)))
    window, size = inference.window, (batch.images_N3HW.shape[-2], batch.images_N3HW.shape[-1])
    step = max(1, NUMBERS_AT_ONCE // (len(batch.sample_ids) * len(bundle.classes) * size[1]))
    # Once for all views of a scale, of which there are as many as samples.
    device, is_cut = device_of(model), window is not None and exceeds(window, bundle, size)
    prepared = resized_images if is_cut else evaluation_inputs
    images = {scale: prepared(batch, bundle, device, scale=scale) for scale in inference.scales}
    if window is not None and is_cut:
        bands = [_by_windows(model, batch, bundle, images[view.scale], view, window, step) for view in views]
    else:
        bands = [_whole(model, batch, bundle, images[view.scale], view, step) for view in views]

    def add_up(scores_NKhW: Tensor) -> Tensor:
        return scores_NKhW.softmax(1, dtype=torch.float32) if are_probabilities else scores_NKhW

    if inference.samples:
        # From the first row to the last one pass after the other: strips of all of them would be many images.
        for mean_NKhW, variance_NKhW in moments(map(add_up, view) for view in bands):
            yield mean_NKhW, variance_NKhW.mean(1)
        return
    for _ in range(0, size[0], step):
        yield reduce(Tensor.add_, (add_up(next(view)) for view in bands)), None


def exceeds(window: Window, bundle: ModelBundle, size: tuple[int, int]) -> bool:
    """Whether a view of an image of `size` (H, W) is larger than a window, so that its views are seen in these."""
    largest = entering_size(size, bundle.input_scale * max(bundle.inference.scales))
    return any(side > most for side, most in zip(largest, window.size, strict=True))


def _joined(bands: Sequence[Tensor | None]) -> Tensor | None:
    found = [band_NhW for band_NhW in bands if band_NhW is not None]
    return torch.cat(found, dim=1) if found else None


def _whole(
    model: nn.Module, batch: Batch, bundle: ModelBundle, images_N3hw: Tensor, view: View, step: int
) -> Iterator[Tensor]:
    """The scores of one view in bands of `step` rows: (N, K, step, W), made of those that the model gives."""
    size = (batch.images_N3HW.shape[-2], batch.images_N3HW.shape[-1])
    scores, seen = _scores(model, images_N3hw, batch, bundle, view, size)
    given = (scores.shape[-2], scores.shape[-1])
    if given != size:
        scores = scores.float().contiguous()
    bands = resized_rows(iter([scores]), seen, given, step=step)
    yield from bands if seen == size else resized_rows(bands, size, seen, step=step)


def _by_windows(
    model: nn.Module, batch: Batch, bundle: ModelBundle, images_N3hw: Tensor, view: View, window: Window, step: int
) -> Iterator[Tensor]:
    """The scores of one view in bands of `step` rows: (N, K, step, W).

    In memory are at most three strips of them, as high as a window and as wide as the view, and one pass of as many
    windows as there are images.
    """

    def look(row: Span, column: Span) -> Tensor:
        part_N3hw = images_N3hw[..., row.start : row.stop, column.start : column.stop]
        size = (row.stop - row.start, column.stop - column.start)
        inputs_N3hw = normalise(part_N3hw, bundle.mean, bundle.std)
        scores, _ = _scores(model, inputs_N3hw, batch, bundle, view, size, (row.start, column.start))
        return resized(precise(scores), size)

    (h, w), (H, W) = images_N3hw.shape[-2:], batch.images_N3HW.shape[-2:]
    rows, columns = (gaussian_spans(n, most, window.overlap) for n, most in zip((h, w), window.size, strict=True))
    return resized_rows(blended_rows(look, rows, columns), (H, W), (h, w), step=step)


def _scores(
    model: nn.Module,
    images_N3hw: Tensor,
    batch: Batch,
    bundle: ModelBundle,
    view: View,
    size: tuple[int, int],
    at: tuple[int, int] = (0, 0),
) -> tuple[Tensor, tuple[int, int]]:
    """What the model says of each class, the right way round, and the size that it is still to be resized to.

    Scores of pixels are as the model makes them, for images of the view's size; of queries they are sums at `size`.
    `at` is where in the view its windows begin: row, column.
    """
    entering_N3hw = images_N3hw.flip(-1) if view.mirrored else images_N3hw
    seen = (images_N3hw.shape[-2], images_N3hw.shape[-1])
    if view.dropout is not None:
        scores = _sampled_scores(model, entering_N3hw, view, at)
    else:
        output: DenseOutput | QueryOutput = model(entering_N3hw)
        if isinstance(output, QueryOutput):
            scores, seen = queries.semantic_scores(output, batch, size), size
        else:
            scores = output.scores_NKhw
    if bundle.sigmoid:
        scores = logits_of_classes(scores)
    return (scores.flip(-1) if view.mirrored else scores), seen


def _dropout_passes(batch: Batch, number: int) -> list[DropoutPass]:
    """As many passes. Whichever worker an image comes to, beside whatever others, and when it is served, it is drawn
    from alike."""
    images = []
    for image_3HW in batch.images_N3HW:
        digest = blake2b(repr(tuple(image_3HW.shape)).encode(), digest_size=32)
        digest.update(image_3HW.contiguous().cpu().numpy())
        images.append(digest.digest())
    return [DropoutPass(at, tuple(images)) for at in range(number)]


def _sampled_scores(model: nn.Module, entering_N3hw: Tensor, view: View, at: tuple[int, int]) -> Tensor:
    """The scores of one pass with dropout on, which is drawn for each image, and each window, on its own."""
    assert view.dropout is not None
    place = repr((view.scale, view.mirrored, view.dropout.number, at)).encode()
    digests = (blake2b(place, key=image, digest_size=8).digest() for image in view.dropout.images)
    seeds = [int.from_bytes(digest, "little", signed=True) for digest in digests]
    return sampled_pass(model, entering_N3hw, seeds=seeds)
