"""Panoptic segmentation: a segment, and through it a class, for every pixel. Behind the door of `tasks/__init__.py`.

Models of three designs answer it, each with an output type of its own. `KINDS` says which file reads which: what its
losses are, and how it becomes a `PanopticMap`. All of them are called alike: with the images, and in training also with
the objects, which only those look at that sample what they are trained on.

Legend: N batch, K classes, H W original size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from segpipe.config import RunConfig, TrainConfig
from segpipe.data.batch import Batch, evaluation_inputs
from segpipe.errors import InputError
from segpipe.metrics import PanopticMeter, dataset_pq, panoptic_item
from segpipe.metrics.bootstrap import resampled_class_scores
from segpipe.models.spec import CentreOutput, QueryOutput, RegionOutput, device_of
from segpipe.predictions import Beside, PanopticMap, Prediction
from segpipe.tasks import queries
from segpipe.tasks.headline import headline
from segpipe.tasks.panoptic import centres, regions
from segpipe.tasks.refusals import labels_of, refuse_ignored
from segpipe.tasks.regions import region_targets
from segpipe.tasks.thing_maps import true_map
from segpipe.types import Annotation, ClassInfo, ModelBundle, Sample, Split


class ReadLosses(Protocol):
    """The weighted terms of the training loss; the output lies on the model's device, the batch on the host."""

    def __call__(
        self, output: Any, batch: Batch, *, classes: Sequence[ClassInfo], ignore_index: int
    ) -> dict[str, Tensor]: ...


class ReadMaps(Protocol):
    """One map for each image of the batch, of its original size, whatever the size at which the model saw it."""

    def __call__(self, output: Any, batch: Batch, *, classes: Sequence[ClassInfo]) -> list[PanopticMap]: ...


class Kind(NamedTuple):
    """How one kind of output is read."""

    losses: ReadLosses
    maps: ReadMaps


KINDS: Mapping[type, Kind] = {
    CentreOutput: Kind(centres.losses, centres.maps),
    QueryOutput: Kind(queries.losses, queries.maps),
    RegionOutput: Kind(regions.losses, regions.maps),
}


class PanopticOps:
    """The task's operations for one set of classes."""

    needs: ClassVar[tuple[Annotation, ...]] = (Annotation.LABEL_MAP, Annotation.SEGMENTS)
    prediction: ClassVar[type[Prediction]] = PanopticMap
    primary: ClassVar[str] = "pq/all"
    trains_on_objects: ClassVar[bool] = True
    trains_on_keypoints: ClassVar[bool] = False
    tells_things_from_stuff: ClassVar[bool] = True

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        ignore_index: int,
        *,
        config: TrainConfig | None = None,
        statistics: Split | None = None,
    ) -> None:
        self.classes, self.ignore_index = tuple(classes), ignore_index
        # A class without a segment in truth and prediction of the whole split has no PQ and drops out of the mean.
        self.protocol = f"pq/panopticapi/original-resolution/ignore={ignore_index}/absent=excluded"
        if config is not None:
            refuse_ignored(config)

    @classmethod
    def check_run(cls, run: RunConfig, *, num_keypoints: int | None, is_counted: bool, where: str) -> None:
        """Nothing beyond what `__init__` refuses."""

    @classmethod
    def told(cls, bundle: ModelBundle) -> tuple[str, ...]:
        return ()

    def losses(self, forward: Callable[..., Any], images_N3HW: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The terms that the model's kind of output has, in float32."""
        labels_of(batch)  # before any work, and also where a model of queries would learn of things alone
        output = forward(images_N3HW, region_targets(batch, self.classes, images_N3HW.device))
        return _kind(output).losses(output, batch, classes=self.classes, ignore_index=self.ignore_index)

    def predict(
        self, model: nn.Module, batch: Batch, bundle: ModelBundle, *, beside: Collection[Beside] = ()
    ) -> list[PanopticMap]:
        """A segment for every pixel, a map an image. The image enters the model resized by `bundle.input_scale`."""
        output = model(evaluation_inputs(batch, bundle, device_of(model)))
        return _kind(output).maps(output, batch, classes=self.classes)

    def truth(self, sample: Sample) -> PanopticMap | None:
        """A segment a pixel, crowds among them (`thing_maps.py`); None for a sample without a label map."""
        return None if sample.label_map is None else true_map(sample, self.classes)

    def meter(self, *, closely: bool = False) -> PanopticMeter:
        return PanopticMeter([{"id": k, "isthing": int(c.is_thing)} for k, c in enumerate(self.classes)])

    def measure(self, meter: PanopticMeter, predictions: Sequence[PanopticMap], batch: Batch) -> None:
        """Counts maps against the rows as stored. Raises InputError for a sample without truth."""
        truths = [
            None if sample is None else self.truth(sample) for sample in batch.samples or [None] * len(predictions)
        ]
        if lacking := [name for name, found in zip(batch.sample_ids, truths, strict=True) if found is None]:
            raise InputError(f"samples {', '.join(lacking[:4])}: lack a label map or segments, which this task needs")
        known = [found for found in truths if found is not None]
        true, said = (
            [panoptic_item(name, each.ids_HW, each.segments) for name, each in zip(batch.sample_ids, maps, strict=True)]
            for maps in (known, predictions)
        )
        meter.update(true, said)

    def scores(self, meter: PanopticMeter) -> dict[str, float]:
        """PQ, SQ and RQ over all classes, things and stuff, and `pq/class/<class>` of every class that occurs."""
        metrics, per_class = meter.tables()
        named = metrics | {f"pq/class/{c.name}": per_class[k]["pq"] for k, c in enumerate(self.classes)}
        return {name: value for name, value in named.items() if value is not None}

    def report_fields(self, meter: PanopticMeter, sample_ids: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
        (metrics, per_class), counts_NK4 = meter.tables(sample_ids), meter.counts(sample_ids)
        truths_K = counts_NK4[:, :, [1, 3]].sum(axis=(0, 2)).astype(int).tolist()
        lacking = "they hold no segment that counts, and none was found (crowds and ignored pixels do not count)"
        drawn = partial(resampled_class_scores, counts_NK4, dataset_pq)
        return headline(self.primary, self.protocol, metrics, drawn, groups=groups, lacking=lacking) | {
            "per_class": {c.name: {**per_class[k], "segments": float(truths_K[k])} for k, c in enumerate(self.classes)},
            "truth_counts": tuple(truths_K),
            "count_names": ("iou", "true_positives", "false_positives", "false_negatives"),
            "sample_counts": tuple(
                tuple((iou, *map(int, numbers)) for iou, *numbers in counts_K4) for counts_K4 in counts_NK4.tolist()
            ),
        }


def _kind(output: object) -> Kind:
    if type(output) not in KINDS:
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise InputError(
            f"the model returns a {type(output).__name__}, and the panoptic task reads {known}: choose an architecture "
            "of this task (`segpipe list models`)"
        )
    return KINDS[type(output)]
