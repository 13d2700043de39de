"""Keypoints: where the named points of each object lie, its box being given. Behind the task door of `tasks/`.

Top-down, of the truth's objects, as the protocol says: what is measured is the pose, not a detector. A model of framing
"image" sees whole images instead of boxes, in tiles where they are large, and finds the one set of points of each.

Legend: N images of a batch, M objects of an image, n objects of a batch, P keypoints, H W image size, h w of a heatmap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.config import RunConfig, TrainConfig
from segpipe.data.batch import Batch, evaluation_inputs
from segpipe.data.objects import Objects, take
from segpipe.errors import InputError
from segpipe.heatmaps import decode, gaussian_targets, inside, to_cells, to_pixels
from segpipe.losses import heatmap_loss
from segpipe.metrics import KeypointMeter, mean_ratio
from segpipe.metrics.bootstrap import resampled_class_scores
from segpipe.metrics.keypoints import DECIDING, DOUBT, THRESHOLDS
from segpipe.models.spec import HeatmapOutput, device_of
from segpipe.predictions import Beside, Poses, Prediction
from segpipe.tasks.finite import refuse_non_finite
from segpipe.tasks.headline import headline
from segpipe.tasks.keypoints.given import given_poses, told_of_objects
from segpipe.tasks.keypoints.limits import check_config, check_places
from segpipe.tasks.keypoints.looks import Looks, heatmaps_of
from segpipe.tasks.keypoints.truth import annotations_of, detections_of, poses_of
from segpipe.tasks.refusals import objects_of, required
from segpipe.types import Annotation, ClassInfo, ModelBundle, Sample, Split

REGIONS_PER_PASS = 64


class KeypointsOps:
    """The task's operations for one set of classes; the keypoints of all classes are told apart by their places."""

    needs: ClassVar[tuple[Annotation, ...]] = (Annotation.KEYPOINTS,)
    prediction: ClassVar[type[Prediction]] = Poses
    # OKS is defined for COCO's persons alone; this is defined wherever there are boxes.
    primary: ClassVar[str] = f"pck/box/{THRESHOLDS[DECIDING]:g}"
    trains_on_objects: ClassVar[bool] = True
    trains_on_keypoints: ClassVar[bool] = True
    tells_things_from_stuff: ClassVar[bool] = False

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        ignore_index: int,
        *,
        config: TrainConfig | None = None,
        statistics: Split | None = None,
    ) -> None:
        if config is not None:
            check_config(config)
        self.classes = tuple(classes)
        self._person = next((k for k, info in enumerate(self.classes) if info.name == "person"), None)
        # A model is told which objects there are, by their boxes; one of framing "image" makes no other use of them.
        self.protocol = f"{self.primary}/mean-of-classes/objects=truth/original-resolution"

    @classmethod
    def check_run(cls, run: RunConfig, *, num_keypoints: int | None, is_counted: bool, where: str) -> None:
        """Refuses a model with another number of heatmaps than objects have keypoints."""
        heatmaps = models.complete(run.arch, run.options)["keypoints"]
        # Fewer than a class may have can be right, where no sample shows that class: the dataset tells.
        if is_counted or (num_keypoints and heatmaps > num_keypoints):
            check_places(run, num_keypoints or 0, where=where)

    @classmethod
    def told(cls, bundle: ModelBundle) -> tuple[str, ...]:
        return told_of_objects(bundle)

    def losses(self, forward: Callable[..., HeatmapOutput], images_N3HW: Tensor, batch: Batch) -> dict[str, Tensor]:
        """{"heatmaps": ...}: squared error of the heatmaps of labelled keypoints, one set an object of the crop."""
        objects = [_labelled(each) for each in objects_of(batch)]
        output = forward(images_N3HW, [each.boxes_N4 for each in objects])
        heatmaps_nPhw = output.heatmaps_NPhw
        num_keypoints = heatmaps_nPhw.shape[1]
        # An input without an object still has one answer, of weight 0.
        truths_nP3 = torch.zeros(max(1, sum(map(len, objects))), num_keypoints, 3)
        row = 0
        for each in objects:
            if each.keypoints_NP3 is not None:
                _check_places(each.keypoints_NP3.shape[1], num_keypoints, batch.sample_ids)
                truths_nP3[row : row + len(each), : each.keypoints_NP3.shape[1]] = each.keypoints_NP3
                row += len(each)
        truths_nP3 = truths_nP3.to(heatmaps_nPhw.device, non_blocking=True)
        if output.chosen_N is not None:
            truths_nP3 = truths_nP3[output.chosen_N]
        size = _size(output)
        cells_nP2 = to_cells(truths_nP3[..., :2], output.regions_N4, size)
        weights_nP = (truths_nP3[..., 2] > 0) & inside(cells_nP2, size)
        return {"heatmaps": heatmap_loss(heatmaps_nPhw, gaussian_targets(cells_nP2, size), weights_nP)}

    @torch.inference_mode()
    def predict(
        self, model: nn.Module, batch: Batch, bundle: ModelBundle, *, beside: Collection[Beside] = ()
    ) -> list[Poses]:
        """The keypoints of the truth's objects, in its order; without a truth, of those that came with the images.

        Raises InputError where nobody gave boxes to a model that needs them, NonFiniteError for one that has diverged.
        """
        options = models.complete(bundle.arch, bundle.options)
        looks = Looks(
            whole=options["framing"] == "image",
            tile=options["tile"],
            overlap=options["overlap"],
            pairs=options["keypoint_pairs"] if bundle.inference.mirror else None,
        )
        H, W = batch.images_N3HW.shape[-2:]
        if batch.samples is not None:
            framed = [self.truth(sample) for sample in batch.samples]
        else:
            framed = given_poses(batch, self.classes, options["framing"])
        crowded = [name for name, each in zip(batch.sample_ids, framed, strict=True) if looks.whole and len(each) > 1]
        if crowded:
            raise InputError(
                f"sample {crowded[0]}: has several objects with keypoints, and framing image finds those of one; set "
                "the model's option framing: objects"
            )
        places = [(image, at) for image, each in enumerate(framed) for at in range(len(each))]
        images_N3hw = evaluation_inputs(batch, bundle, device_of(model))
        factors_4 = torch.tensor([images_N3hw.shape[-1] / W, images_N3hw.shape[-2] / H]).repeat(2)
        boxes_n4 = np.concatenate([np.zeros((0, 4)), *(each.boxes_N4 for each in framed)])
        points = []
        for start in range(0, len(places), REGIONS_PER_PASS):
            part = slice(start, start + REGIONS_PER_PASS)
            entering_n4 = torch.from_numpy(boxes_n4[part]).float() * factors_4
            output = heatmaps_of(model, images_N3hw, [image for image, _ in places[part]], entering_n4, looks)
            for (image, _), heatmaps_Phw in zip(places[part], output.heatmaps_NPhw, strict=True):
                refuse_non_finite(batch.sample_ids[image], "heatmaps", heatmaps_Phw)
            cells_nP2, scores_nP = decode(output.heatmaps_NPhw)
            regions_n4 = output.regions_N4 / factors_4.to(output.regions_N4.device)
            points_nP2 = to_pixels(cells_nP2, regions_n4, _size(output))
            points.append(torch.cat([points_nP2, scores_nP[..., None]], dim=2).double().cpu().numpy())
        points_nP3 = np.concatenate([np.zeros((0, options["keypoints"], 3)), *points])
        return [
            _poses(each, points_nP3[[row for row, (at, _) in enumerate(places) if at == image]])
            for image, each in enumerate(framed)
        ]

    def truth(self, sample: Sample) -> Poses:
        """The objects with a labelled keypoint, but crowds; their boxes as stated, else tight around their pixels."""
        return poses_of(sample)

    def meter(self, *, closely: bool = False) -> KeypointMeter:
        return KeypointMeter(len(self.classes))

    def measure(self, meter: KeypointMeter, predictions: Sequence[Poses], batch: Batch) -> None:
        stored = required(batch.samples, "their stored rows", batch.sample_ids)
        for found, sample in zip(predictions, stored, strict=True):
            truth = self.truth(sample)
            num_keypoints = truth.points_NP3.shape[1]
            _check_places(num_keypoints, found.points_NP3.shape[1], (sample.sample_id,))
            sides_N2 = truth.boxes_N4[:, 2:] - truth.boxes_N4[:, :2]
            annotations = annotations_of(sample, self._person)
            meter.update(
                sample.sample_id,
                truth.class_ids_N,
                found.points_NP3[:, :num_keypoints, :2],
                truth.points_NP3,
                sides_N2.max(axis=1, initial=1),
                annotations=annotations,
                detections=detections_of(found, self._person) if annotations else (),
            )

    def scores(self, meter: KeypointMeter) -> dict[str, float]:
        """PCK at each threshold, of each class, and of each keypoint by its place; COCO's numbers for its persons.

        None of the names lies below another one: MLflow's file store keeps one file a name.
        """
        totals_KT = meter.totals()
        named = {f"pck/box/{alpha:g}": float(mean_ratio(totals_KT[:, [t, -1]])) for t, alpha in enumerate(THRESHOLDS)}
        named |= {
            f"pck/class/{info.name}": _ratio(counts) for info, counts in zip(self.classes, totals_KT, strict=True)
        }
        named |= {f"pck/keypoint/{place}": _ratio(counts) for place, counts in sorted(meter.per_keypoint.items())}
        return {name: value for name, value in named.items() if math.isfinite(value)} | meter.persons.metrics()

    def report_fields(self, meter: KeypointMeter, sample_ids: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
        scores, totals_KT, counts_NK2 = self.scores(meter), meter.totals(), meter.counts(sample_ids)
        by_class = {f"pck/class/{info.name}" for info in self.classes}
        metrics = {self.primary: None} | {name: value for name, value in scores.items() if name not in by_class}
        drawn = partial(resampled_class_scores, counts_NK2, mean_ratio)
        return headline(
            self.primary, self.protocol, metrics, drawn, groups=groups, lacking="none of them has a labelled keypoint"
        ) | {
            "per_class": {
                info.name: {self.primary: scores.get(f"pck/class/{info.name}"), "keypoints": float(counts[-1])}
                for info, counts in zip(self.classes, totals_KT, strict=True)
            },
            "truth_counts": tuple(int(counts[-1]) for counts in totals_KT),
            "count_names": ("correct", "labelled"),
            "sample_counts": tuple(tuple((int(c), int(n)) for c, n in counts_K2) for counts_K2 in counts_NK2),
        }


def _size(output: HeatmapOutput) -> tuple[int, int]:
    h, w = output.heatmaps_NPhw.shape[2:]
    return h, w


def _poses(framed: Poses, points_MP3: np.ndarray[Any, np.dtype[np.float64]]) -> Poses:
    peaks_MP = points_MP3[..., 2]
    sure_MP = peaks_MP > DOUBT
    scores_M = np.where(sure_MP, peaks_MP, 0).sum(axis=1) / np.maximum(sure_MP.sum(axis=1), 1)
    return dataclasses.replace(framed, scores_N=scores_M, points_NP3=points_MP3)


def _labelled(objects: Objects) -> Objects:
    """The objects that a model can learn from."""
    if objects.keypoints_NP3 is None:
        return take(objects, torch.zeros(len(objects), dtype=torch.bool))
    return take(objects, (objects.keypoints_NP3[..., 2] > 0).any(1) & ~objects.is_crowd_N)


def _check_places(truth: int, model: int, sample_ids: Sequence[str]) -> None:
    if truth > model:
        raise InputError(
            f"samples {', '.join(sample_ids[:4])}: objects have {truth} keypoints, and the model finds {model}; set "
            f"its option keypoints to {truth}"
        )


def _ratio(counts: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    return float(counts[DECIDING] / counts[-1]) if counts[-1] else math.nan
