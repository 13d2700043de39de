"""The other way to train, of a model without parameters: `fit` looks at every image of the training split once, and
at none for one that learns nothing.

Beside `loop.py`, for models that learn by counting (`models/spec.py`). Each rank counts its share of the whole images,
as they were ingested; the counts of all add up to what one rank would have found, to the last digit. There is no step
to choose, so the model is the one that has seen everything. A killed attempt begins anew: one pass, without gradients,
takes about as long as an evaluation of the split.

Of `train`, it takes train_split and validation_split here, and input_scale and inference where the model is used.

Legend: N batch, H W image size.
"""

from __future__ import annotations

import time
from typing import cast

import torch

from segpipe import models
from segpipe.data.batch import Batch, training_inputs
from segpipe.data.loader import EvalBatches
from segpipe.models.spec import Counting
from segpipe.shards import Dataset, open_dataset
from segpipe.tasks.refusals import labels_of
from segpipe.train.outcome import finish, validation_scores
from segpipe.train.runtime import Runtime
from segpipe.train.session import Position, TrainJob, fresh_model, open_task
from segpipe.types import TrainProgress, TrainResult

# Keys of `train` that reach such a model; the others are for descent.
TAKEN = ("train_split", "validation_split", "input_scale", "inference")
_IMAGES_AT_ONCE = 8


@torch.no_grad()
def fit(job: TrainJob, runtime: Runtime) -> TrainResult:
    """Counts the training split, scores the validation split, writes the bundle. Raises InputError as `loop.fit`."""
    started = time.perf_counter()
    dataset = open_dataset(job.data, version=job.version)
    ops = open_task(dataset, job.run)
    model = fresh_model(job, len(dataset.manifest.classes)).to(runtime.device).eval()
    batches = _batches(job, dataset, runtime)
    total = len(batches) + 1  # the last step is the look at the validation split
    for step, batch in enumerate(batches):
        _report(runtime, {}, step, total)
        cast(Counting, model).observe(training_inputs(batch, runtime.device), labels_of(batch))
    for buffer in model.buffers():
        buffer.copy_(runtime.sum(buffer))
    _report(runtime, {}, total - 1, total)
    scores = validation_scores(model, ops, job, dataset, runtime)
    at = Position(
        step=total, epoch=1, best_epoch=1, best_step=total, best_value=scores[ops.primary], stopped="finished"
    )
    metrics = {f"val/{name}": value for name, value in scores.items()}
    at.history.append({"step": at.step, "epoch": at.epoch, "metrics": metrics})
    _report(runtime, metrics, total, total)
    at.train_seconds = time.perf_counter() - started
    weights = model.state_dict() if runtime.rank == 0 else None
    return finish(job, runtime, at, dataset=dataset, primary=ops.primary, parameters=0, weights=weights)


def _batches(job: TrainJob, dataset: Dataset, runtime: Runtime) -> EvalBatches | tuple[Batch, ...]:
    """This rank's share of what there is to see."""
    if models.spec(job.run.arch).learns_by == "nothing":
        return ()
    split, rank, world_size = job.run.train.train_split, runtime.rank, runtime.world_size
    return EvalBatches(dataset, split, batch_size=_IMAGES_AT_ONCE, rank=rank, world_size=world_size)


def _report(runtime: Runtime, metrics: dict[str, float], step: int, total: int) -> None:
    if runtime.rank == 0:
        runtime.report(TrainProgress(metrics, step, total))
