"""The nouns of models: what one is and how it looks at images, how its training went, what an evaluation found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from segpipe.types.data import LATER, ClassInfo, LabelCoding, Task

# Of red, green and blue, from 0 to 1, the statistics that torchvision's ImageNet weights were trained with: what images
# are normalised by.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The height and width in pixels of the windows in which a model sees a larger image, and the least share of one
    that the next one sees, too."""

    size: tuple[int, int]
    overlap: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfSettings:
    """The parameters of `refine.dense_crf`, which explains them. By default what pydensecrf's README sets."""

    iterations: int = 5
    gaussian: tuple[float, float] = (3.0, 3.0)
    bilateral: tuple[float, float, float] = (80.0, 13.0, 10.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """The views of an image whose scores a model averages: one of each scale, and with `mirror` its mirror image too.

    `scales` are relative to the bundle's `input_scale`; (1.0,) without `mirror` is one forward pass. A view larger than
    `window`, where there is one, enters the model window by window. With `samples` each view is seen that often, with
    dropout on, and not once without. With `crf` the mean goes through a dense conditional random field.
    """

    scales: tuple[float, ...]
    mirror: bool
    window: Window | None = field(default=None, metadata=LATER)
    crf: CrfSettings | None = field(default=None, metadata=LATER)
    samples: int = field(default=0, metadata=LATER)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelBundle:
    """What turns weights back into a model that predicts: the `model.json` beside `weights.safetensors`.

    `mean` and `std` normalise RGB in 0..1; `input_scale` is the factor by which an image is resized before it enters
    the model (predictions always come back at the image's own size); `inference` says how often it enters. `coding` is
    the label contract of its data: which raw value each class had there. With `sigmoid` the model has one output for
    two classes, the logit of the second one. `members` of an ensemble, whose weights hold theirs, are the
    `weights_sha256` of each by its label.
    `weights_sha256` is the hash of the weights' file, whose header repeats all that decides a prediction: it names a
    model.
    """

    arch: str
    options: Mapping[str, Any]
    task: Task
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    coding: LabelCoding
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_scale: float
    inference: Inference
    dataset: str
    dataset_version: str
    config_digest: str
    code_version: str
    weights_sha256: str
    sigmoid: bool = field(default=False, metadata=LATER)
    members: Mapping[str, str] | None = field(default=None, metadata=LATER)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerForm:
    """How a registered model is asked, and answers: `usage` is the line of Python that asks it, with a comment, and
    `request` a small request in JSON; `inputs`, `columns` and `params` are its signature's inputs, outputs and
    parameters, as MLflow spells them."""

    usage: str
    request: str
    inputs: tuple[Mapping[str, Any], ...]
    columns: tuple[Mapping[str, Any], ...]
    params: tuple[Mapping[str, Any], ...] = ()


# What `EvalReport.per_class` says beside scores: how much truth a class has, in what its task counts.
CLASS_COUNTS = ("pixels", "objects", "segments", "keypoints")


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelDetails:
    """Where and how a semantic model fails, in counts: `metrics/close_look.py` says of what.

    `confidence[l]` are pixels and right ones by the level of the predicted class's probability; `levels[k][l]` pixels
    of other classes and of class k by the level of class k's; both are empty for a model that says no probabilities.
    `borders[k]` and `regions[k][s]` are as there, `size_edges` the shares of the image between the sizes s.
    """

    confidence: tuple[tuple[int, int], ...]
    levels: tuple[tuple[tuple[int, int], ...], ...]
    borders: tuple[tuple[int, int, int], ...]
    regions: tuple[tuple[tuple[int, int, int, int], ...], ...]
    size_edges: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalReport:
    """What one model scored on one split of one dataset version, under one protocol.

    The only thing that leaderboard, gate and card read. Two reports are compared only if task, dataset version, split
    and protocol are equal. `classes` are the names by class id. `low` and `high` bound the primary metric by a 95 %
    bootstrap that resamples whole groups, or single images where groups are too few (`resampled`). A score that is
    undefined (an IoU of a class absent from truth and prediction) is None. `code_version` trained the model,
    `scored_by` scored it. `latency` is how many seconds an image took from batch to prediction, the median of all
    batches, on what `timed_on` names: a GPU, or "one thread of a CPU", of which no library tells the make everywhere.

    The evidence for the paired test stands by image, in dataset order, and by class id; what a task does not have is
    empty. `truth_counts[k]` is how much truth class k has (pixels, objects, segments, keypoints): no model changes it.
    `confusion` has rows of truth, columns of prediction, in pixels. `sample_counts[i][k]` are the numbers `count_names`
    of class k in image `sample_ids[i]`: pixels (intersection, truth, predicted) of a semantic task, (iou, true
    positives, false positives, false negatives) of a panoptic one, (correct, labelled) keypoints, (region, contour,
    objects) of one that follows objects through videos, the sums of J and F over the objects of a sequence (here an
    image is a sequence), (truths) of one that detects. `detections[i]` are then the detections of that image: (class
    id, score, matched, ignored), where bit t of the last two tells whether it matched at the t-th IoU threshold of
    COCO, and whether it is left uncounted there. `details` decide nothing: they are for the model card. `class_bounds`
    are those of the score of each class, drawn with `low` and `high`; None where it is undefined, none at all in the
    reports of an earlier segpipe. `answers` are how many images have which level of each statistic of
    `drift.of_prediction`, for what is said of other images to be held against, `answers_by_group` the same of each
    group: none where no group has two images. Either is None in the reports of an earlier segpipe.
    """

    experiment: str
    arch: str
    label: str
    task: Task
    dataset: str
    dataset_version: str
    split: str
    protocol: str
    primary: str
    value: float
    low: float
    high: float
    resampled: Literal["groups", "images"]
    metrics: Mapping[str, float | None]
    classes: tuple[str, ...]
    per_class: Mapping[str, Mapping[str, float | None]]
    truth_counts: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    sample_ids: tuple[str, ...]
    groups: tuple[str, ...]
    count_names: tuple[str, ...]
    sample_counts: tuple[tuple[tuple[float, ...], ...], ...]
    detections: tuple[tuple[tuple[int, float, int, int], ...], ...]
    num_samples: int
    parameters: int
    checkpoint: str
    weights_sha256: str
    config_digest: str
    code_version: str
    scored_by: str
    seconds: float
    latency: float | None = field(default=None, metadata=LATER)
    timed_on: str = field(default="", metadata=LATER)
    details: PixelDetails | None = field(default=None, metadata=LATER)
    class_bounds: tuple[tuple[float, float] | None, ...] = field(default=(), metadata=LATER)
    answers: Mapping[str, Mapping[str, int]] | None = field(default=None, metadata=LATER)
    answers_by_group: tuple[Mapping[str, Mapping[str, int]], ...] | None = field(default=None, metadata=LATER)


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """How far a training is: what was last measured, at which of how many optimiser steps; `resumed_at` is the step of
    the checkpoint from which this attempt went on, 0 for a first one."""

    metrics: Mapping[str, float]
    step: int
    total_steps: int
    resumed_at: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What one finished training run left behind: the `train.json` of its folder, written last.

    `history` is what was measured, in order: {"step", "epoch", "metrics": {name: value}}. `stopped` says why training
    ended: "finished" or "patience". `train_seconds` is time in the training loop with its validations, without
    checkpoints, over all attempts.
    """

    experiment: str
    arch: str
    label: str
    run_uri: str
    model_uri: str
    weights_sha256: str
    dataset_version: str
    config_digest: str
    code_version: str
    primary: str
    best_value: float
    best_epoch: int
    epochs: int
    steps: int
    stopped: str
    parameters: int
    train_seconds: float
    history: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainPause:
    """Where a training was paused: at optimiser step `step` of `total_steps`, with a checkpoint, and without a model.

    `score` is the primary metric of the weights as they stand, on the validation split that the training chooses its
    best epoch by. `train_seconds` is as in `TrainResult`, up to here; `scoring_seconds` came on top.
    """

    label: str
    step: int
    total_steps: int
    primary: str
    score: float
    train_seconds: float
    scoring_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScores:
    """A class's score by champion and challenger, 0..1; None where nothing of it was to be scored."""

    name: str
    champion: float | None
    challenger: float | None

    @property
    def delta(self) -> float | None:
        """Challenger minus champion; None where one of the scores is not defined."""
        return None if self.champion is None or self.challenger is None else self.challenger - self.champion

    @property
    def row(self) -> tuple[str, float | None, float | None, float | None]:
        """For a table: name, the champion's score, the challenger's, how much more that is."""
        return self.name, self.champion, self.challenger, self.delta
