"""How a semantic model looks at images: at several sizes and mirrored, and window by window where they are large.

Logits are resized to the original size before the arg max, so that what is counted is always the original resolution.
That is done in bands of rows, so that never all logits of a large image lie in memory. Of several views the class
probabilities are summed; what windows of one view say is blended before, as logits. A CRF refines their mean. No task
itself.

Legend: N batch, K classes, H W original size, h w size of a view inside the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.data.batch import Batch, evaluation_inputs, normalise, resized_images
from segpipe.losses import logits_of_classes, precise, resized
from segpipe.metrics import first_maximum
from segpipe.models.spec import DenseOutput, QueryOutput, device_of
from segpipe.predictions import LabelMap
from segpipe.refine import dense_crf_batch
from segpipe.refine.tiles import Span, blended_rows, gaussian_spans, resized_rows
from segpipe.tasks import queries
from segpipe.tasks.finite import refuse_non_finite
from segpipe.types import CrfSettings, ModelBundle, Window

NUMBERS_AT_ONCE = 2**22  # scores of the rows whose classes are chosen together: 16 MiB; of 64 all is a third slower


class View(NamedTuple):
    scale: float
    mirrored: bool


def class_ids(model: nn.Module, batch: Batch, bundle: ModelBundle) -> Tensor:
    """(N, H, W) class ids, uint8, or int32 where K > 255.

    An image enters the model resized by `bundle.input_scale`, once for every view of `bundle.inference`. With a CRF
    there, all scores of an image lie in memory together, and a model that has diverged raises NonFiniteError.
    """
    crf = bundle.inference.crf
    if crf is not None:
        return first_maximum(refined(batch, probabilities(model, batch, bundle), crf)).cpu()
    # Logits do not add up over views, probabilities do, as what queries say together does.
    several = len(bundle.inference.scales) > 1 or bundle.inference.mirror
    are_probabilities = several and models.spec(bundle.arch).output is DenseOutput
    # One view after the other: not all of them lie in memory together.
    bands = _summed(model, batch, bundle, are_probabilities=are_probabilities)
    return torch.cat([first_maximum(scores_NKhW).cpu() for scores_NKhW in bands], dim=1)


def label_maps(ids_NHW: Tensor) -> list[LabelMap]:
    return [LabelMap(ids_HW=ids_HW) for ids_HW in ids_NHW.cpu().numpy()]


def probabilities(model: nn.Module, batch: Batch, bundle: ModelBundle) -> Tensor:
    """(N, K, H, W) float32 that sum to 1 over K at the images' own size: the mean of what the views say.

    Raises NonFiniteError for a model that has diverged. Not of a model of queries, whose scores sum to nothing.
    """
    sums_NKHW = torch.cat(list(_summed(model, batch, bundle, are_probabilities=True)), dim=2)
    for sample_id, sums_KHW in zip(batch.sample_ids, sums_NKHW, strict=True):
        refuse_non_finite(sample_id, "class probabilities", sums_KHW)
    return sums_NKHW.div_(sums_NKHW.sum(1, keepdim=True))


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


def _summed(model: nn.Module, batch: Batch, bundle: ModelBundle, *, are_probabilities: bool) -> Iterator[Tensor]:
    """What all views say of each class, added up, in bands of rows."""
    mirrorings = (False, True) if bundle.inference.mirror else (False,)
    views = [View(scale, mirrored) for scale in bundle.inference.scales for mirrored in mirrorings]
    window, size = bundle.inference.window, (batch.images_N3HW.shape[-2], batch.images_N3HW.shape[-1])
    largest = bundle.input_scale * max(bundle.inference.scales)
    step = max(1, NUMBERS_AT_ONCE // (len(batch.sample_ids) * len(bundle.classes) * size[1]))
    if window and any(round(side * largest) > most for side, most in zip(size, window.size, strict=True)):
        device = device_of(model)
        images = {scale: resized_images(batch, bundle, device, scale=scale) for scale in bundle.inference.scales}
        bands = [_by_windows(model, batch, bundle, images[view.scale], view, window, step) for view in views]
    else:
        bands = [_whole(model, batch, bundle, view, step) for view in views]

    def add_up(scores_NKhW: Tensor) -> Tensor:
        return scores_NKhW.softmax(1, dtype=torch.float32) if are_probabilities else scores_NKhW

    for _ in range(0, size[0], step):
        yield reduce(Tensor.add_, (add_up(next(view)) for view in bands))


def _whole(model: nn.Module, batch: Batch, bundle: ModelBundle, view: View, step: int) -> Iterator[Tensor]:
    """The scores of one view in bands of `step` rows: (N, K, step, W), made of those that the model gives."""
    size = (batch.images_N3HW.shape[-2], batch.images_N3HW.shape[-1])
    images_N3hw = evaluation_inputs(batch, bundle, device_of(model), scale=view.scale)
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
        scores, _ = _scores(model, normalise(part_N3hw, bundle.mean, bundle.std), batch, bundle, view, size)
        return resized(precise(scores), size)

    (h, w), (H, W) = images_N3hw.shape[-2:], batch.images_N3HW.shape[-2:]
    rows, columns = (gaussian_spans(n, most, window.overlap) for n, most in zip((h, w), window.size, strict=True))
    return resized_rows(blended_rows(look, rows, columns), (H, W), (h, w), step=step)


def _scores(
    model: nn.Module, images_N3hw: Tensor, batch: Batch, bundle: ModelBundle, view: View, size: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """What the model says of each class, the right way round, and the size that it is still to be resized to.

    Scores of pixels are as the model makes them, for images of the view's size; of queries they are sums at `size`.
    """
    output: DenseOutput | QueryOutput = model(images_N3hw.flip(-1) if view.mirrored else images_N3hw)
    if isinstance(output, QueryOutput):
        scores, seen = queries.semantic_scores(output, batch, size), size
    else:
        scores = logits_of_classes(output.scores_NKhw) if bundle.sigmoid else output.scores_NKhw
        seen = (images_N3hw.shape[-2], images_N3hw.shape[-1])
    return (scores.flip(-1) if view.mirrored else scores), seen
