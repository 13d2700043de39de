"""The one evaluation loop: a model over a split, every image exactly once, at original resolution.

`count` is the loop; training's validation runs it too. `evaluate_share` is what one worker does of an evaluation, and
`assemble` merges the workers' meters into the `EvalReport`. Their scores are bit-equal for any number of workers:
batches are fixed before they are dealt out, and on CPU each forward pass runs in one thread, because the order in which
several threads add floats may differ.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from segpipe import drift, sketches
from segpipe.checkpoint import load_bundle, load_model
from segpipe.data.annotated import annotated
from segpipe.data.batch import Batch, collate
from segpipe.data.decode import decode
from segpipe.data.loader import EvalBatches
from segpipe.errors import IncomparableError, InputError
from segpipe.predictions import Beside, Detections, LabelMap, PanopticMap, Prediction
from segpipe.shards import Dataset, open_dataset
from segpipe.tasks import TASKS, TaskOps
from segpipe.tasks.refusals import unfilled
from segpipe.types import ClassInfo, EvalReport, Manifest, ModelBundle
from segpipe.version import code_version


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One worker's part of an evaluation; picklable. `keep` names the samples whose predictions come back too."""

    checkpoint: str
    data: str
    version: str
    split: str
    batch_size: int
    rank: int
    world_size: int
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """What one share comes to: the task's meter, kept predictions by sample id, and how long it took.

    `latencies` are the seconds that an image of each batch took to be predicted, on the machine `timed_on`. `small` are
    the sketches of all its images by sample id, where the task has such, for the pages that a person reads.
    `answers` are the levels of what was said of each image, by sample id.
    """

    meter: Any
    answers: dict[str, drift.Levels]
    predictions: dict[str, Prediction]
    small: dict[str, sketches.Packed]
    parameters: int
    seconds: float
    latencies: tuple[float, ...]
    timed_on: str


@torch.inference_mode()
def count(
    model: nn.Module,
    ops: TaskOps,
    bundle: ModelBundle,
    batches: Iterable[Batch],
    *,
    closely: bool = False,
    keep: Collection[str] = (),
    latencies: list[float] | None = None,
    small: dict[str, sketches.Packed] | None = None,
    answers: dict[str, drift.Levels] | None = None,
) -> tuple[Any, dict[str, Prediction]]:
    """The task's meter after every batch, and the predictions of the samples in `keep`.

    `closely` where a report is made of it: then what a model card alone shows is counted, too, and predictions have the
    levels of their probabilities. `latencies` gets the seconds that an image of each batch took to be predicted,
    without those levels; `small` and `answers` what `Counted` has.
    """
    meter = ops.meter(closely=closely)
    beside: tuple[Beside, ...] = ("levels",) if closely else ()
    kept: dict[str, Prediction] = {}
    for batch in batches:
        started = time.perf_counter()
        predictions = ops.predict(model, batch, bundle, beside=beside)
        if latencies is not None:  # predictions lie on the CPU, so that no kernel of theirs is still at work
            aside = sum(found.beside_seconds for found in predictions if isinstance(found, LabelMap))
            latencies.append((time.perf_counter() - started - aside) / len(predictions))
        ops.measure(meter, predictions, batch)
        if small is not None:
            small |= _small(ops, bundle, batch, predictions)
        if answers is not None:
            said = (drift.of_prediction(found, bundle.classes) for found in predictions)
            answers |= zip(batch.sample_ids, said, strict=True)
        kept |= {name: found for name, found in zip(batch.sample_ids, predictions, strict=True) if name in keep}
    return meter, kept


def _small(
    ops: TaskOps, bundle: ModelBundle, batch: Batch, predictions: Sequence[Prediction]
) -> Iterator[tuple[str, sketches.Packed]]:
    """The sketches of predictions, beside their truth where that tells which objects were found."""
    samples = batch.samples or [None] * len(predictions)
    for name, sample, found in zip(batch.sample_ids, samples, predictions, strict=True):
        has_objects = isinstance(found, Detections | PanopticMap)
        truth = ops.truth(sample) if has_objects and sample is not None else None
        if (drawn := sketches.sketch(found, truth, num_classes=len(bundle.classes), what=name)) is not None:
            yield name, sketches.pack(drawn)


def evaluate_share(share: Share) -> Counted:
    """Counts one share on this machine's accelerator, or in one thread of its CPU."""
    started = time.perf_counter()
    model, bundle, ops, batches = open_share(share)
    latencies, answers = list[float](), dict[str, drift.Levels]()
    small: dict[str, sketches.Packed] = {}
    keep = frozenset(share.keep)
    with one_thread():
        meter, kept = count(
            model, ops, bundle, batches, closely=True, keep=keep, latencies=latencies, small=small, answers=answers
        )
    return Counted(
        meter=meter,
        answers=answers,
        predictions=kept,
        small=small,
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=time.perf_counter() - started,
        latencies=tuple(latencies),
        timed_on=torch.cuda.get_device_name() if torch.cuda.is_available() else "one thread of a CPU",
    )


def open_share(share: Share) -> tuple[nn.Module, ModelBundle, TaskOps, EvalBatches]:
    """The model, its description, the task and the batches of one share."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = open_dataset(share.data, version=share.version)
    model, bundle = load_model(share.checkpoint, device=device)
    ops = task_of(bundle, dataset.manifest, origin=share.checkpoint)
    batches = EvalBatches(
        dataset,
        share.split,
        batch_size=share.batch_size,
        rank=share.rank,
        world_size=share.world_size,
    )
    return model, bundle, ops, batches


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a model says of one image of a split: `image_HW3` uint8 RGB; `told` names what it is told beside that."""

    sample_id: str
    image_HW3: npt.NDArray[np.uint8]
    told: tuple[str, ...]
    prediction: Prediction


def look_at(
    checkpoint: str,
    dataset: Dataset,
    split: str,
    rows: Sequence[int],
    *,
    height_of: Callable[[ModelBundle, tuple[int, int]], int] | None = None,
) -> Iterator[Look]:
    """The predictions for some rows of a split, each image by itself in one thread of the CPU, where the order of sums
    is always the same.

    Of an image of (H, W) pixels a model that is told nothing looks at the first `height_of` lines alone.
    """
    model, bundle = load_model(checkpoint, device=torch.device("cpu"))
    ops = task_of(bundle, dataset.manifest, origin=checkpoint)
    told = ops.told(bundle)
    for sample in dataset.read(split, rows, extras=False):
        batch = collate([decode(annotated(sample, dataset, split))])
        # A model that is told nothing sees no row of a dataset when it serves, either.
        if not told:
            height, width = batch.images_N3HW.shape[-2:]
            height = height if height_of is None else height_of(bundle, (height, width))
            images_N3HW = batch.images_N3HW[..., :height, :]
            batch = replace(batch, samples=None, images_N3HW=images_N3HW, original_sizes=((height, width),))
        with torch.inference_mode(), one_thread():
            (prediction,) = ops.predict(model, batch, bundle)
        yield Look(
            sample_id=sample.sample_id,
            image_HW3=batch.images_N3HW[0].permute(1, 2, 0).numpy(),
            told=told,
            prediction=prediction,
        )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Each operation inside runs in one thread: several add floats in an order of their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def task_of(bundle: ModelBundle, manifest: Manifest, *, origin: str) -> TaskOps:
    """The operations of the model's task, after checking that model and dataset speak of the same classes and, where
    the task tells them apart, of the same things."""
    ours, theirs = [c.name for c in bundle.classes], [c.name for c in manifest.classes]
    if ours != theirs:
        raise IncomparableError(
            f"{origin}: the model knows the classes {ours}, dataset {manifest.dataset!r} has {theirs}; "
            "a model is evaluated on the classes that it was trained for"
        )
    ops = TASKS[bundle.task](manifest.classes, manifest.ignore_index)
    turned = [
        f"{old.name!r} was {_kind(old)} and is {_kind(new)}"
        for old, new in zip(bundle.classes, manifest.classes, strict=True)
        if old.is_thing != new.is_thing
    ]
    if turned and ops.tells_things_from_stuff:
        raise IncomparableError(
            f"{origin}: of the model's classes, {', '.join(turned)} in dataset {manifest.dataset!r}; a model of task "
            f"{bundle.task} is evaluated on the things and the stuff that it was trained for"
        )
    missing = unfilled(bundle.task, ops.needs, manifest.annotations, where=f"dataset {manifest.dataset!r}")
    if missing:
        raise InputError(missing)
    return ops


def _kind(info: ClassInfo) -> str:
    return "a thing" if info.is_thing else "stuff"


def assemble(
    counted: Sequence[Counted],
    *,
    share: Share,
    experiment: str,
    label: str,
) -> EvalReport:
    """One report from all shares. Raises InputError unless every sample of the split was counted exactly once."""
    dataset = open_dataset(share.data, version=share.version)
    bundle = load_bundle(share.checkpoint)
    ops = task_of(bundle, dataset.manifest, origin=share.checkpoint)
    meter = ops.meter(closely=True)
    for part in counted:
        meter.merge(part.meter)
    sample_ids = dataset.sample_ids(share.split)
    groups = dataset.groups(share.split)
    latencies = [seconds for part in counted for seconds in part.latencies]
    scores = ops.report_fields(meter, sample_ids, groups)  # raises where a sample was counted twice, or never
    answers = {name: levels for part in counted for name, levels in part.answers.items()}
    return EvalReport(
        experiment=experiment,
        arch=bundle.arch,
        label=label,
        task=bundle.task,
        dataset=dataset.manifest.dataset,
        dataset_version=dataset.version,
        split=share.split,
        classes=tuple(c.name for c in bundle.classes),
        sample_ids=tuple(sample_ids),
        groups=tuple(groups),
        num_samples=len(sample_ids),
        parameters=counted[0].parameters,
        checkpoint=share.checkpoint,
        weights_sha256=bundle.weights_sha256,
        config_digest=bundle.config_digest,
        code_version=bundle.code_version,
        scored_by=code_version(),
        seconds=sum(part.seconds for part in counted),
        latency=statistics.median(latencies) if latencies else None,
        timed_on=", ".join(dict.fromkeys(part.timed_on for part in counted)),
        answers=drift.counted(answers.values()),
        answers_by_group=drift.counted_by_group(
            (group, answers[name]) for name, group in zip(sample_ids, groups, strict=True)
        ),
        **scores,
    )
