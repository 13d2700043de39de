"""Semantic segmentation: a class for every pixel. Behind the task door of `tasks/__init__.py`.

Legend: N batch, K classes, H W original size, h w size inside the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segpipe import masks, models
from segpipe.config import RunConfig, TrainConfig
from segpipe.data.batch import Batch, evaluation_inputs
from segpipe.errors import InputError
from segpipe.losses import cross_entropy, enet_weights, median_frequency_weights
from segpipe.metrics import ConfusionMeter, first_maximum, interval, semantic_scores
from segpipe.models.spec import DenseOutput, QueryOutput
from segpipe.predictions import LabelMap, Prediction
from segpipe.refine import dense_crf_batch
from segpipe.tasks import queries
from segpipe.tasks.finite import refuse_non_finite
from segpipe.tasks.headline import headline
from segpipe.tasks.refusals import ignored_by_loss, labels_of
from segpipe.types import Annotation, ClassInfo, CrfSettings, ModelBundle, Sample, Split


class SemanticOps:
    """The task's operations for one set of classes.

    `config` and `statistics` (of the training split) are given when training: they decide class weights and the weight
    of auxiliary heads.
    """

    needs: ClassVar[tuple[Annotation, ...]] = (Annotation.LABEL_MAP,)
    prediction: ClassVar[type[Prediction]] = LabelMap
    primary: ClassVar[str] = "miou"
    trains_on_objects: ClassVar[bool] = False
    trains_on_keypoints: ClassVar[bool] = False
    tells_things_from_stuff: ClassVar[bool] = False

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        ignore_index: int,
        *,
        config: TrainConfig | None = None,
        statistics: Split | None = None,
    ) -> None:
        self.classes, self.ignore_index = tuple(classes), ignore_index
        # A class in neither truth nor prediction of the whole split has no IoU and drops out of the mean.
        self.protocol = f"miou/dataset/original-resolution/ignore={ignore_index}/absent=excluded"
        self._aux_weight = config.aux_weight if config else 0.0
        self._class_weights_K = _class_weights(config, statistics) if config and statistics else None

    @classmethod
    def check_run(cls, run: RunConfig, *, num_keypoints: int | None, is_counted: bool, where: str) -> None:
        """Refuses what a loss of masks with a class each, or what they say of a pixel, would pass over."""
        are_queries = models.spec(run.arch).output is QueryOutput
        faults = ignored_by_loss(run.train) if are_queries else []
        if are_queries and run.train.inference.crf:
            faults.append(
                "inference.crf is set: it takes class probabilities, and what queries say of a pixel together does not "
                "sum to 1; leave it out"
            )
        if faults:
            raise InputError(f"{run.arch}: train: {'; '.join(faults)}")

    @classmethod
    def told(cls, bundle: ModelBundle) -> tuple[str, ...]:
        return ()

    def losses(
        self, forward: Callable[[Tensor], DenseOutput | QueryOutput], images_N3HW: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """{"main": ..., "<aux head>": ...}: cross entropy in float32 over the pixels that are not ignored.

        Of a model of queries the terms of `queries.py`, for one mask of each class of a crop.
        """
        output = forward(images_N3HW)
        if isinstance(output, QueryOutput):
            return queries.losses(output, batch, classes=self.classes, ignore_index=self.ignore_index, wanted="classes")
        labels_NHW = labels_of(batch).to(output.logits_NKHW.device, non_blocking=True).long()
        weight_K = self._class_weights_K
        if weight_K is not None:
            weight_K = weight_K.to(labels_NHW.device)
        terms = {"main": cross_entropy(output.logits_NKHW, labels_NHW, weight=weight_K, ignore_index=self.ignore_index)}
        for name, logits_NKHW in output.aux.items():
            aux = cross_entropy(logits_NKHW, labels_NHW, weight=weight_K, ignore_index=self.ignore_index)
            terms[name] = self._aux_weight * aux
        return terms

    def predict(self, model: nn.Module, batch: Batch, bundle: ModelBundle) -> list[LabelMap]:
        """Class ids of every pixel, a map an image.

        The image enters the model resized by `bundle.input_scale`, once for every view of `bundle.inference`. Logits
        are resized back (bilinear) before the arg max, so what is counted is always the original resolution; of
        several views the class probabilities are summed, or what queries say together. With a CRF it is their mean that
        is refined, image by image.
        """
        crf = bundle.inference.crf
        if crf is None:
            scores_NKHW = _summed_NKHW(model, batch, bundle)
        else:
            scores_NKHW = refined(batch, probabilities(model, batch, bundle), crf)
        return label_maps(scores_NKHW)

    def truth(self, sample: Sample) -> LabelMap | None:
        return None if sample.label_map is None else LabelMap(ids_HW=masks.read_map(sample.label_map, sample))

    def meter(self) -> ConfusionMeter:
        return ConfusionMeter(len(self.classes), self.ignore_index)

    def measure(self, meter: ConfusionMeter, predictions: Sequence[LabelMap], batch: Batch) -> None:
        meter.update([p.ids_HW for p in predictions], list(labels_of(batch).numpy()), batch.sample_ids)

    def scores(self, meter: ConfusionMeter) -> dict[str, float]:
        """mIoU and the other means, and `iou/<class>` for every class that occurs."""
        scores = semantic_scores(meter.confusion)
        named = {name: float(value) for name, value in scores.items() if name not in ("iou", "dice")}
        named |= {f"iou/{c.name}": float(iou) for c, iou in zip(self.classes, scores["iou"], strict=True)}
        return {name: value for name, value in named.items() if math.isfinite(value)}

    def report_fields(self, meter: ConfusionMeter, sample_ids: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
        confusion_KK = np.asarray(meter.confusion, dtype=np.int64)
        scores = semantic_scores(confusion_KK)
        counts_NK3 = meter.counts(sample_ids)
        metrics = {name: _defined(value) for name, value in scores.items() if name not in ("iou", "dice")}
        bounds = partial(interval, counts_NK3)
        return headline(
            self.primary, self.protocol, metrics, bounds, groups=groups, lacking="none of their pixels is labelled"
        ) | {
            "per_class": {
                c.name: {
                    "iou": _defined(scores["iou"][k]),
                    "dice": _defined(scores["dice"][k]),
                    "pixels": float(confusion_KK[k].sum()),
                }
                for k, c in enumerate(self.classes)
            },
            "truth_counts": tuple(int(n) for n in confusion_KK.sum(axis=1)),
            "confusion": tuple(tuple(int(n) for n in row) for row in confusion_KK),
            "count_names": ("intersection", "truth", "predicted"),
            "sample_counts": tuple(
                tuple((int(i), int(t), int(p)) for i, t, p in counts_K3) for counts_K3 in counts_NK3
            ),
        }


def label_maps(scores_NKHW: Tensor) -> list[LabelMap]:
    """The class of the highest score of each pixel, a map an image."""
    return [LabelMap(ids_HW=ids_HW) for ids_HW in first_maximum(scores_NKHW).cpu().numpy()]


def probabilities(model: nn.Module, batch: Batch, bundle: ModelBundle) -> Tensor:
    """(N, K, H, W) float32 that sum to 1 over K at the images' own size: the mean of what the views say.

    Raises NonFiniteError for a model that has diverged. Not of a model of queries, whose scores sum to nothing.
    """
    sums_NKHW = _summed_NKHW(model, batch, bundle, are_logits=False)
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


def _summed_NKHW(model: nn.Module, batch: Batch, bundle: ModelBundle, *, are_logits: bool = True) -> Tensor:
    """What all views say of each class, added up; logits where there is one, unless `are_logits` is false."""
    mirrorings = (False, True) if bundle.inference.mirror else (False,)
    views = [(scale, mirrored) for scale in bundle.inference.scales for mirrored in mirrorings]
    scores = (
        _scores_NKHW(model, batch, bundle, scale=scale, mirrored=mirrored, alone=are_logits and len(views) == 1)
        for scale, mirrored in views
    )
    return reduce(Tensor.add_, scores)


def _scores_NKHW(
    model: nn.Module, batch: Batch, bundle: ModelBundle, *, scale: float, mirrored: bool, alone: bool
) -> Tensor:
    """What one view says of each class at the images' own size, the right way round: logits where it is `alone`, else
    numbers that add up over views."""
    size = batch.images_N3HW.shape[-2:]
    images_N3hw = evaluation_inputs(batch, bundle, next(model.parameters()).device, scale=scale)
    output: DenseOutput | QueryOutput = model(images_N3hw.flip(-1) if mirrored else images_N3hw)
    if isinstance(output, QueryOutput):
        scores_NKHW = queries.semantic_scores(output, batch)
        return scores_NKHW.flip(-1) if mirrored else scores_NKHW
    logits_NKHW = output.logits_NKHW.flip(-1) if mirrored else output.logits_NKHW
    if logits_NKHW.shape[-2:] != size:
        logits_NKHW = functional.interpolate(logits_NKHW.float(), size=size, mode="bilinear", align_corners=False)
    return logits_NKHW if alone else logits_NKHW.softmax(1, dtype=torch.float32)


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _class_weights(config: TrainConfig, statistics: Split) -> Tensor | None:
    """(K,) weights of the loss from the training split's pixel counts (see `losses/pixels.py` for both rules)."""
    if config.class_weights == "none":
        return None
    pixels_K = torch.tensor(statistics.class_pixels, dtype=torch.float64)
    if not pixels_K.any():
        raise InputError(
            f"train.class_weights: {config.class_weights} counts pixels, and no pixel of the {statistics.samples} "
            "training samples is labelled; look at what the masks hold and at the dataset's ignored ids"
        )
    if config.class_weights == "enet":
        weights_K = enet_weights(pixels_K / pixels_K.sum())
    else:
        weights_K = median_frequency_weights(pixels_K, torch.tensor(statistics.image_pixels, dtype=torch.float64))
    return weights_K.pow(config.class_weight_power)
