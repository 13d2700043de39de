"""Semantic segmentation: a class for every pixel. Behind the task door of `tasks/__init__.py`.

Legend: N batch, K classes, H W original size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from segpipe import masks, models
from segpipe.config import RunConfig, TrainConfig
from segpipe.data.batch import Batch
from segpipe.errors import InputError
from segpipe.losses import enet_weights, median_frequency_weights
from segpipe.metrics import CloseLook, ConfusionMeter, dataset_miou, semantic_scores
from segpipe.metrics.bootstrap import resampled_class_scores
from segpipe.metrics.close_look import SIZE_EDGES
from segpipe.models.spec import DenseOutput, QueryOutput
from segpipe.predictions import Beside, LabelMap, Prediction
from segpipe.tasks import queries
from segpipe.tasks.headline import headline
from segpipe.tasks.pixel_losses import MAIN, pixel_losses, term_name
from segpipe.tasks.refusals import ignored_by_loss, labels_of
from segpipe.tasks.views import label_maps, look
from segpipe.types import Annotation, ClassInfo, ModelBundle, PixelDetails, Sample, Split


class SemanticMeter:
    """What decides a score, and, where it looks `closely`, what a model card tells beside it: that takes several times
    as long. Meters of parts of a split, all made alike, merge in any order."""

    def __init__(self, num_classes: int, ignore_index: int, *, closely: bool) -> None:
        self.pixels = ConfusionMeter(num_classes, ignore_index)
        self.closely = CloseLook(num_classes, ignore_index) if closely else None

    def merge(self, other: SemanticMeter) -> None:
        self.pixels.merge(other.pixels)
        if self.closely is not None:
            assert other.closely is not None
            self.closely.merge(other.closely)


class SemanticOps:
    """The task's operations for one set of classes.

    `config` and `statistics` (of the training split) are given when training: they decide the loss, class weights and
    the weight of auxiliary heads.
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
        if config:
            _check_two(config, self.classes)
        self._loss = config.loss if config else TrainConfig.default("loss")
        self._aux_weight = config.aux_weight if config else 0.0
        self._class_weights_K = _class_weights(config, statistics) if config and statistics else None

    @classmethod
    def check_run(cls, run: RunConfig, *, num_keypoints: int | None, is_counted: bool, where: str) -> None:
        """Refuses what a loss of masks with a class each, or what they say of a pixel, would pass over, and a weight of
        heads that are not there, where it is not said for other architectures, too."""
        if models.spec(run.arch).learns_by == "counting":
            faults = _beyond_counts(run.train)
        elif models.spec(run.arch).output is QueryOutput:
            faults = ignored_by_loss(run.train, common=run.common)
            if run.train.inference.crf is not None:
                faults.append(
                    "inference.crf is set: it takes class probabilities, and what queries say of a pixel together does "
                    "not sum to 1; leave it out"
                )
        elif "aux_weight" in {*run.train.told} - {*run.common} and not models.aux_heads(run.arch, run.options):
            with_heads = " (or set its option aux: true)" if "aux" in models.spec(run.arch).options else ""
            faults = [f"aux_weight is {run.train.aux_weight:g}: it has no auxiliary heads; leave it out{with_heads}"]
        else:
            faults = []
        if run.train.inference.samples:
            faults += _not_sampled(run)
        if faults:
            raise InputError(f"{run.arch}: train: {'; '.join(faults)}")

    @classmethod
    def told(cls, bundle: ModelBundle) -> tuple[str, ...]:
        return ()

    def losses(
        self, forward: Callable[[Tensor], DenseOutput | QueryOutput], images_N3HW: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """{"main": ..., "<aux head>": ...}: the recipe's loss, in float32, over the pixels that are not ignored.

        Of several terms each is "<head>/<term>". Of a model of queries they are those of `queries.py`, for one mask of
        each class of a crop.
        """
        output = forward(images_N3HW)
        if isinstance(output, QueryOutput):
            return queries.losses(output, batch, classes=self.classes, ignore_index=self.ignore_index, wanted="classes")
        labels_NHW = labels_of(batch).to(output.scores_NKhw.device, non_blocking=True).long()
        weight_K = self._class_weights_K
        if weight_K is not None:
            weight_K = weight_K.to(labels_NHW.device)
        terms = {}
        for head, scores_NKhw in {MAIN: output.scores_NKhw, **output.aux_scores}.items():
            factor = 1.0 if head == MAIN else self._aux_weight
            found = pixel_losses(
                scores_NKhw,
                labels_NHW,
                config=self._loss,
                size=output.size,
                weight_K=weight_K,
                ignore_index=self.ignore_index,
            )
            for name, term in found.items():
                terms[term_name(head, name, self._loss)] = factor * term
        return terms

    def predict(
        self, model: nn.Module, batch: Batch, bundle: ModelBundle, *, beside: Collection[Beside] = ()
    ) -> list[LabelMap]:
        """Class ids of every pixel, a map an image, of all the views that `bundle.inference` asks for; where these are
        samples, too, with how unsure the model is."""
        return label_maps(look(model, batch, bundle, beside=beside))

    def truth(self, sample: Sample) -> LabelMap | None:
        return None if sample.label_map is None else LabelMap(ids_HW=masks.read_map(sample.label_map, sample))

    def meter(self, *, closely: bool = False) -> SemanticMeter:
        return SemanticMeter(len(self.classes), self.ignore_index, closely=closely)

    def measure(self, meter: SemanticMeter, predictions: Sequence[LabelMap], batch: Batch) -> None:
        labels_NHW = labels_of(batch).numpy()
        meter.pixels.update([p.ids_HW for p in predictions], list(labels_NHW), batch.sample_ids)
        if meter.closely is not None:
            for found, labels_HW in zip(predictions, labels_NHW, strict=True):
                meter.closely.update(found.ids_HW, labels_HW, found.levels_KP)

    def scores(self, meter: SemanticMeter) -> dict[str, float]:
        """mIoU and the other means, and `iou/<class>` for every class that occurs."""
        scores = semantic_scores(meter.pixels.confusion)
        named = {name: float(value) for name, value in scores.items() if name not in ("iou", "dice")}
        named |= {f"iou/{c.name}": float(iou) for c, iou in zip(self.classes, scores["iou"], strict=True)}
        return {name: value for name, value in named.items() if math.isfinite(value)}

    def report_fields(self, meter: SemanticMeter, sample_ids: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
        confusion_KK = np.asarray(meter.pixels.confusion, dtype=np.int64)
        scores = semantic_scores(confusion_KK)
        counts_NK3 = meter.pixels.counts(sample_ids)
        metrics = {name: _defined(value) for name, value in scores.items() if name not in ("iou", "dice")}
        drawn = partial(resampled_class_scores, counts_NK3, dataset_miou)
        return headline(
            self.primary, self.protocol, metrics, drawn, groups=groups, lacking="none of their pixels is labelled"
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
            "details": None if meter.closely is None else _details(meter.closely),
        }


def _details(counted: CloseLook) -> PixelDetails:
    has_levels = bool(counted.confidence_L2.any())
    return PixelDetails(
        confidence=_tuples(counted.confidence_L2) if has_levels else (),
        levels=_tuples(counted.levels_KL2) if has_levels else (),
        borders=_tuples(counted.borders_K3),
        regions=_tuples(counted.regions_KS4),
        size_edges=SIZE_EDGES,
    )


def _tuples(counts: Any) -> Any:
    """An array as tuples in tuples of plain integers."""
    return tuple(map(_tuples, counts)) if counts.ndim > 1 else tuple(counts.tolist())


def _beyond_counts(config: TrainConfig) -> list[str]:
    """What to say of each key of `train` that a model of counted colours and places cannot follow."""
    faults, alone = [], "set it for the others alone"
    if config.sigmoid:
        faults.append(f"sigmoid is true: a model that counts has a score for each class; {alone}")
    if config.inference.window is not None:
        faults.append(f"inference.window is set: places were counted on whole images, and a window is none; {alone}")
    if config.inference.mirror:
        faults.append(f"inference.mirror is true: places were counted on images as they are; {alone}")
    return faults


def _not_sampled(run: RunConfig) -> list[str]:
    """What to say where several passes with dropout on cannot be had of the model."""
    spec = models.spec(run.arch)
    if spec.output is QueryOutput:
        why = "the mean is of class probabilities, and what queries say of a pixel together is none"
    elif spec.learns_by != "descent" or not models.has_dropout(run.arch, run.options):
        why = "it has no dropout, so that all passes would say the same" + ", as its option dropout is 0" * (
            "dropout" in spec.options
        )
    else:
        return []
    return [f"inference.samples is {run.train.inference.samples}: {why}; leave it out, or set it for others alone"]


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _check_two(config: TrainConfig, classes: Sequence[ClassInfo]) -> None:
    """Raises InputError where what is made for two classes is asked of another number."""
    asked = {"sigmoid is true": config.sigmoid, "loss: focal.alpha is set": config.loss.two_classes}
    found = [what for what, is_asked in asked.items() if is_asked and len(classes) != 2]
    if found:
        raise InputError(
            f"train: {' and '.join(found)}: that is for two classes, and the dataset has {len(classes)} "
            f"({', '.join(c.name for c in classes[:8])}{', ...' * (len(classes) > 8)}); leave it out"
        )


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
