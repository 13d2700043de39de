"""What a training comes to: scores of the validation split on the way, then the model's bundle and the result.

Shared by both ways to train: `loop.py`, by descent, and `counting.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from segpipe import checkpoint
from segpipe.config import InferenceConfig
from segpipe.data.loader import EvalBatches
from segpipe.errors import InputError
from segpipe.evaluate import count
from segpipe.shards import Dataset
from segpipe.tasks import TaskOps
from segpipe.train.runtime import Runtime
from segpipe.train.session import Position, TrainJob
from segpipe.types import IMAGENET_MEAN, IMAGENET_STD, Inference, ModelBundle, TrainResult, Window


def validation_scores(
    model: nn.Module, ops: TaskOps, job: TrainJob, dataset: Dataset, runtime: Runtime
) -> dict[str, float]:
    """Scores of the validation split, counted over all ranks, each image exactly once.

    Raises InputError where the task's primary metric is undefined there.
    """
    split = job.run.train.validation_split
    batches = EvalBatches(dataset, split, batch_size=8, rank=runtime.rank, world_size=runtime.world_size)
    bundle = replace(bundle_of(job, dataset), inference=inference_of(job.run.train.inference.in_training))
    meter, _ = count(model, ops, bundle, batches)
    parts = runtime.gather(meter)
    for part in parts[1:]:
        parts[0].merge(part)
    scores = ops.scores(parts[0])
    if ops.primary not in scores:
        raise InputError(
            f"{dataset.uri}: {ops.primary} of split {split!r} is undefined, since nothing in it is labelled; "
            "choose another train.validation_split"
        )
    return scores


def finish(
    job: TrainJob,
    runtime: Runtime,
    at: Position,
    *,
    dataset: Dataset,
    primary: str,
    parameters: int,
    weights: Mapping[str, Tensor] | None,
) -> TrainResult:
    """Writes the model bundle of `weights`, which rank 0 has, and says, on every rank, what came out."""
    model_uri = checkpoint.model_uri(job.run_uri)
    if weights is not None:
        checkpoint.save_model(job.run_uri, weights, bundle_of(job, dataset))
    runtime.barrier()
    return TrainResult(
        experiment=job.run.experiment,
        arch=job.run.arch,
        label=job.run.label,
        run_uri=job.run_uri,
        model_uri=model_uri,
        weights_sha256=checkpoint.load_bundle(model_uri).weights_sha256,
        dataset_version=dataset.version,
        config_digest=job.run.digest,
        code_version=job.code_version,
        primary=primary,
        best_value=at.best_value,
        best_epoch=at.best_epoch,
        epochs=at.epoch,
        steps=at.step,
        stopped=at.stopped,
        parameters=parameters,
        train_seconds=at.train_seconds,
        history=tuple(at.history),
    )


def bundle_of(job: TrainJob, dataset: Dataset) -> ModelBundle:
    """What the weights of this training are used for, their hash still left out."""
    manifest, config = dataset.manifest, job.run.train
    return ModelBundle(
        arch=job.run.arch,
        options=job.run.options,
        task=job.run.task_kind,
        classes=manifest.classes,
        ignore_index=manifest.ignore_index,
        coding=manifest.coding,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_scale=config.input_scale,
        inference=inference_of(config.inference),
        dataset=manifest.dataset,
        dataset_version=dataset.version,
        config_digest=job.run.digest,
        code_version=job.code_version,
        weights_sha256="",
        sigmoid=config.sigmoid,
    )


def inference_of(config: InferenceConfig) -> Inference:
    """The same as a bundle says it."""
    window = Window(size=config.window.size, overlap=config.window.overlap) if config.window else None
    crf = config.crf.settings if config.crf else None
    return Inference(scales=config.scales, mirror=config.mirror, window=window, crf=crf, samples=config.samples)
