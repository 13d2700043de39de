"""What the tasks that detect objects share: everything but which of COCO's measures they report, and which decides.

`instance.py` and `detection.py` say that. No task itself.

Legend: N images, K classes, M objects of an image, H W original size, h w size inside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from segpipe import masks, models
from segpipe.config import RunConfig, TrainConfig
from segpipe.data.batch import Batch, evaluation_inputs
from segpipe.errors import InputError
from segpipe.losses import cross_entropy, precise, resized
from segpipe.metrics import ApEvidence, DetectionMeter
from segpipe.metrics.bootstrap import Scores
from segpipe.metrics.bootstrap_ap import resampled_class_ap
from segpipe.models.spec import DenseOutput, MaskOutput, QueryOutput, RegionOutput, device_of
from segpipe.predictions import Beside, Detections, Prediction
from segpipe.tasks import queries
from segpipe.tasks.given_boxes import masks_in_boxes
from segpipe.tasks.headline import headline
from segpipe.tasks.painting import UNKNOWN, objects_of_map, painted_labels
from segpipe.tasks.pixel_losses import MAIN
from segpipe.tasks.refusals import refuse_ignored
from segpipe.tasks.regions import detections_of, region_targets
from segpipe.tasks.thing_maps import Runs, count_things, thing_meter
from segpipe.tasks.told import told_of_things
from segpipe.types import Annotation, ClassInfo, ModelBundle, Sample, Segment, Split


class ObjectMeter:
    """A `DetectionMeter` for each measure, and where masks are measured a `PanopticMeter` of them; meters of parts of a
    split merge in any order to equal scores."""

    def __init__(self, classes: Sequence[ClassInfo], measures: Sequence[str]) -> None:
        things = [k for k, info in enumerate(classes) if info.is_thing]
        self.of = {measure: DetectionMeter(things, measure) for measure in measures}  # type: ignore[arg-type]
        self.segments = thing_meter(classes) if "segm" in measures else None
        self.boxes_given = False

    def merge(self, other: ObjectMeter) -> None:
        self.boxes_given |= other.boxes_given
        for measure, meter in self.of.items():
            meter.merge(other.of[measure])
        if self.segments is not None and other.segments is not None:
            self.segments.merge(other.segments)


class ObjectOps:
    """The operations of a task that detects the things among a set of classes; stuff is neither learnt nor scored.

    `measures` are COCO's, the first one deciding: "segm", by the overlap of masks, and "bbox", of boxes. `config` is
    given when training; what it asks for and this task cannot do is refused.
    """

    needs: ClassVar[tuple[Annotation, ...]] = (Annotation.SEGMENTS,)
    prediction: ClassVar[type[Prediction]] = Detections
    primary: ClassVar[str]
    measures: ClassVar[tuple[str, ...]]
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
        self._things = [k for k, info in enumerate(self.classes) if info.is_thing]
        # What COCO's evaluator does and its metrics' names do not say.
        self.protocol = f"{self.primary}/iou=0.50:0.95/at-most-100/original-resolution/ignore=crowds"
        if config is not None:
            refuse_ignored(config)
            if not self._things:
                raise InputError(
                    f"none of the classes {', '.join(info.name for info in self.classes)} is a thing, so there is no "
                    'object to detect; say which are (in the classes file of source `folder`: "thing": true), or '
                    "choose another task or source"
                )

    @classmethod
    def check_run(cls, run: RunConfig, *, num_keypoints: int | None, is_counted: bool, where: str) -> None:
        """Nothing beyond what `__init__` refuses."""

    @classmethod
    def told(cls, bundle: ModelBundle) -> tuple[str, ...]:
        return told_of_things(bundle.classes) if models.spec(bundle.arch).output is MaskOutput else ()

    def losses(
        self, forward: Callable[..., RegionOutput | DenseOutput | QueryOutput], images_N3HW: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """A region model's own terms, each of weight 1: it chooses by the truth what it is trained on (`RegionOutput`).

        Of a model of pixels {"main": ...}: cross entropy on the map that the objects paint (`painting.py`); of one of
        queries the terms of `queries.py`, for the things alone.
        """
        device = images_N3HW.device
        output = forward(images_N3HW, region_targets(batch, self.classes, device))
        if isinstance(output, RegionOutput):
            return dict(output.losses)
        if isinstance(output, QueryOutput):
            return queries.losses(output, batch, classes=self.classes, ignore_index=self.ignore_index, wanted="things")
        labels_NHW = painted_labels(batch, self.classes, device, ignore_index=self.ignore_index)
        return {MAIN: cross_entropy(output.scores_NKhw, labels_NHW, ignore_index=UNKNOWN, size=output.size)}

    def predict(
        self, model: nn.Module, batch: Batch, bundle: ModelBundle, *, beside: Collection[Beside] = ()
    ) -> list[Detections]:
        """The objects of each image, best first, as the model sees it resized by `bundle.input_scale`."""
        images_N3hw = evaluation_inputs(batch, bundle, device_of(model))
        if models.spec(bundle.arch).output is MaskOutput:
            return masks_in_boxes(model, images_N3hw, batch, classes=self.classes, truth=self.truth)
        output: RegionOutput | DenseOutput | QueryOutput = model(images_N3hw, None)
        (height, width), (rows, columns) = batch.images_N3HW.shape[-2:], images_N3hw.shape[-2:]
        if isinstance(output, QueryOutput):
            return queries.detections(output, batch, classes=self.classes)
        if isinstance(output, DenseOutput):
            # In float32 in a training's validation, too, whose models give bfloat16.
            logits_NKHW = resized(precise(output.scores_NKhw), output.size)
            return [
                objects_of_map(logits_KHW, size=(height, width), classes=self.classes, sample_id=sample_id)
                for logits_KHW, sample_id in zip(logits_NKHW, batch.sample_ids, strict=True)
            ]
        return [
            detections_of(found, size=(height, width), seen=(rows, columns), classes=self.classes, sample_id=sample_id)
            for found, sample_id in zip(output.regions, batch.sample_ids, strict=True)
        ]

    def truth(self, sample: Sample) -> Detections:
        """The things of a stored sample without its crowds; none where it has none."""
        found = [entry for entry in _annotations(self._true_things(sample), sample) if not entry["iscrowd"]]
        boxes_M4 = np.array([entry["bbox"] for entry in found], dtype=np.float64).reshape(-1, 4)
        boxes_M4[:, 2:] += boxes_M4[:, :2]
        with_masks = "segm" in self.measures
        return Detections(
            size=(sample.height, sample.width),
            class_ids_N=np.array([entry["category_id"] for entry in found], dtype=np.int64),
            scores_N=np.ones(len(found)),
            boxes_N4=boxes_M4,
            masks=tuple(entry["segmentation"]["counts"] for entry in found) if with_masks else None,
        )

    def meter(self, *, closely: bool = False) -> ObjectMeter:
        return ObjectMeter(self.classes, self.measures)

    def measure(self, meter: ObjectMeter, predictions: Sequence[Detections], batch: Batch) -> None:
        """Counts detections against the rows as stored: areas and boxes as stated, crowds, masks to the pixel."""
        if batch.samples is None:
            raise InputError(
                f"samples {', '.join(batch.sample_ids[:4])}: have no stored rows, which they are scored by"
            )
        for sample, found in zip(batch.samples, predictions, strict=True):
            meter.boxes_given |= found.boxes_given
            things = self._true_things(sample)
            truths = list(_annotations(things, sample))
            for measure, one in meter.of.items():
                one.update(sample.sample_id, found.size, truths, _entries(found, measure, sample.sample_id))
            if meter.segments is not None:
                count_things(meter.segments, sample, things, found, classes=self.classes)

    def _true_things(self, sample: Sample) -> list[tuple[Segment, Runs]]:
        return [each for each in masks.segment_runs(sample) if self.classes[each[0].class_id].is_thing]

    def scores(self, meter: ObjectMeter) -> dict[str, float]:
        """COCO's twelve numbers of each measure by the names of `DetectionMeter.metrics`, and where there are masks
        `pq/things`, `sq/things` and `rq/things` (`thing_maps.py`); without the undefined."""
        metrics, _ = self._tables(meter)
        return {name: value for name, value in metrics.items() if value is not None}

    def report_fields(self, meter: ObjectMeter, sample_ids: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
        """The evidence is that of the measure that decides."""
        metrics, per_class = self._tables(meter)
        evidence = meter.of[self.measures[0]].evidence(sample_ids)
        truths_NK = np.zeros((len(sample_ids), len(self.classes)), dtype=np.int64)
        truths_NK[:, self._things] = evidence.truths_nK
        truths_K = truths_NK.sum(axis=0).tolist()
        lacking = "no object in them is to be found (crowds and classes that are no things do not count)"
        protocol = f"{self.protocol}/boxes=given" if meter.boxes_given else self.protocol
        return headline(
            self.primary, protocol, metrics, partial(self._drawn, evidence), groups=groups, lacking=lacking
        ) | {
            "per_class": {
                info.name: {**per_class[k], "objects": float(objects)}
                for k, (info, objects) in enumerate(zip(self.classes, truths_K, strict=True))
            },
            "truth_counts": tuple(truths_K),
            "count_names": ("truths",),
            "sample_counts": tuple(tuple((count,) for count in counts_K) for counts_K in truths_NK.tolist()),
            "detections": self._by_image(evidence, len(sample_ids)),
        }

    def _drawn(self, evidence: ApEvidence, **how: Any) -> Scores:
        """The AP (R, K) of each class in each resample."""
        of_things = resampled_class_ap(evidence, **how)
        drawn_RK = np.full((len(of_things), len(self.classes)), np.nan)
        drawn_RK[:, self._things] = of_things
        return drawn_RK

    def _tables(self, meter: ObjectMeter) -> tuple[dict[str, float | None], dict[int, dict[str, float | None]]]:
        """All metrics, and what a report says of each class: AP by the measure that decides and, of masks, PQ."""
        tables = {measure: one.tables() for measure, one in meter.of.items()}
        metrics = {name: value for found, _ in tables.values() for name, value in found.items()}
        by_thing = tables[self.measures[0]][1]
        if meter.segments is not None:
            qualities, quality_of = meter.segments.tables()
            metrics |= {name: value for name, value in qualities.items() if name.endswith("/things")}
            by_thing = {k: {**scores, "pq": quality_of[k]["pq"]} for k, scores in by_thing.items()}
        names = next(iter(by_thing.values()), {})
        return metrics, {k: by_thing.get(k, dict.fromkeys(names)) for k in range(len(self.classes))}

    def _by_image(self, evidence: ApEvidence, num_images: int) -> tuple[tuple[tuple[int, float, int, int], ...], ...]:
        """The detections of each image, as `EvalReport` has them."""
        class_ids_D = np.array(self._things, dtype=np.int64)[evidence.classes_D]
        columns = (evidence.images_D, class_ids_D, evidence.scores_D, evidence.matched_D, evidence.ignored_D)
        found: list[list[tuple[int, float, int, int]]] = [[] for _ in range(num_images)]
        for image, *detection in zip(*(column.tolist() for column in columns), strict=True):
            found[image].append(tuple(detection))
        return tuple(map(tuple, found))


def _annotations(things: Sequence[tuple[Segment, Runs]], sample: Sample) -> Iterator[dict[str, Any]]:
    """The things of a sample as in COCO's files, crowds too; a box that is not stated is tight around the mask."""
    for segment, runs in things:
        x0, y0, x1, y1 = masks.box_of_runs(runs, sample.height)
        yield {
            "id": segment.segment_id,
            "category_id": segment.class_id,
            "iscrowd": int(segment.is_crowd),
            "area": segment.area,
            "bbox": (x0, y0, x1 - x0, y1 - y0) if segment.box is None else segment.box,
            "segmentation": masks.rle_of_runs(runs, sample.height, sample.width),
        }


def _entries(found: Detections, measure: str, sample_id: str) -> list[dict[str, Any]]:
    """Detections as in COCO's result files, with what one measure reads and no more: a mask that comes with a box would
    be small, medium or large by that, and not by its pixels."""
    columns = (found.class_ids_N.tolist(), found.scores_N.tolist())
    if measure == "segm":
        if found.masks is None:
            raise InputError(f"sample {sample_id}: the model found boxes without masks, which this task scores")
        shapes: list[dict[str, Any]] = [
            {"segmentation": {"size": list(found.size), "counts": counts}} for counts in found.masks
        ]
    else:
        sides = np.concatenate((found.boxes_N4[:, :2], found.boxes_N4[:, 2:] - found.boxes_N4[:, :2]), axis=1)
        shapes = [{"bbox": box} for box in sides.tolist()]
    return [
        {"category_id": class_id, "score": score, **shape}
        for class_id, score, shape in zip(*columns, shapes, strict=True)
    ]
