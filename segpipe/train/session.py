"""What one rank holds while it trains: model, optimiser, batches, and where the run stands. Driven by `loop.py`.

A `Session` is made anew at every start and then brought to the newest valid checkpoint, so that a first start, a resume
after a crash and a resume with another number of workers are the same code.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from segpipe import checkpoint, models
from segpipe.checkpoint import Checkpoint
from segpipe.config import RunConfig
from segpipe.data.loader import TrainBatches
from segpipe.errors import CorruptError, InputError
from segpipe.models.parts.placed import placed
from segpipe.shards import Dataset, open_dataset
from segpipe.tasks import TASKS, TaskOps
from segpipe.tasks.refusals import unfilled
from segpipe.train.margins import with_margins
from segpipe.train.optim import (
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from segpipe.train.runtime import Runtime

_log = logging.getLogger(__name__)
_POINTS_ON_A_LOSS_CURVE = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """What `fit` needs besides a runtime: picklable, and the same on every rank.

    `start_uri` is the model bundle whose weights a run with `start_from` begins with; one that goes on needs none.
    """

    run: RunConfig
    data: str
    version: str
    run_uri: str
    code_version: str
    start_uri: str | None = None


@dataclass(kw_only=True)
class Position:
    """Where a run stands: what `state.json` holds. `cursor` counts global micro-batches of this epoch."""

    step: int = 0
    epoch: int = 0
    cursor: int = 0
    best_value: float = -1.0
    best_epoch: int = -1
    best_step: int = -1
    stale: int = 0
    stopped: str = ""
    train_seconds: float = 0.0
    loss_sums: dict[str, float] = field(default_factory=dict)  # of each term, over the steps since the last record
    loss_steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class InPrecision(nn.Module):
    """A model whose forward pass runs in the configured precision, and nothing of what is made of its output.

    Places have no room in bfloat16, where 511.3 is 512; and autocast, around all of a validation, smoothed heatmaps in
    it before their peaks were read.
    """

    def __init__(self, model: Callable[..., Any], device_type: str, precision: str) -> None:
        super().__init__()
        self.model, self.device_type, self.is_mixed = model, device_type, precision == "bfloat16"

    def forward(self, *inputs: Any) -> Any:
        with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.is_mixed):
            return self.model(*inputs)


class Session:
    """Everything one rank holds while it trains; made anew at every start, then brought to the last checkpoint."""

    def __init__(self, job: TrainJob, runtime: Runtime) -> None:
        config = job.run.train
        self.job, self.runtime, self.config = job, runtime, config
        self.dataset = open_dataset(job.data, version=job.version)
        self.ops = open_task(self.dataset, job.run)
        found = checkpoint.latest(job.run_uri)
        num_outputs = 1 if config.sigmoid else len(self.dataset.manifest.classes)
        self.model = new_model(job, num_outputs, pretrained=None) if found else fresh_model(job, num_outputs)
        with_margins(self.model, runtime.device, config.precision)
        placed(self.model, runtime.device, channels_last=config.channels_last, precision=config.precision)
        self.average = copy.deepcopy(self.model) if config.ema_decay is not None else None
        self.optimizer = build_optimizer(self.model, config)
        self.batches = TrainBatches(
            self.dataset,
            config,
            rank=runtime.rank,
            world_size=runtime.world_size,
            objects=self.ops.trains_on_objects,
            keypoints=self.ops.trains_on_keypoints,
        )
        samples = self.dataset.rows(config.train_split)
        self.steps_per_epoch, self.total_steps = config.steps_per_epoch(samples), config.steps(samples)
        self.log_every = max(1, self.total_steps // _POINTS_ON_A_LOSS_CURVE)
        self.at = self._resume(found) if found else Position()
        self.resumed_at = self.at.step
        wrapped = runtime.wrap(self.model)
        self.forward = InPrecision(
            torch.compile(wrapped) if config.compile else wrapped, runtime.device.type, config.precision
        )

    def _resume(self, found: Checkpoint) -> Position:
        _log.info("resuming %s at step %d of %d", self.job.run.label, found.step, self.total_steps)
        raw = {k.removeprefix("model/"): v for k, v in found.training.items() if k.startswith("model/")}
        self.model.load_state_dict(raw or dict(found.weights))
        if self.average is not None:
            self.average.load_state_dict(dict(found.weights))
        restore_optimizer(self.optimizer, found.training)
        state = found.state
        return Position(**{**state, "history": list(state["history"]), "loss_sums": dict(state["loss_sums"])})

    @property
    def predictor(self) -> nn.Module:
        """The weights that are evaluated and kept: the average where there is one."""
        return self.average if self.average is not None else self.model

    def save(self) -> None:
        """Rank 0 writes a checkpoint of where the run stands."""
        if self.runtime.rank == 0:
            training = optimizer_tensors(self.optimizer)
            if self.average is not None:
                training |= {f"model/{key}": value for key, value in self.model.state_dict().items()}
            weights = self.predictor.state_dict()
            point = Checkpoint(step=self.at.step, weights=weights, training=training, state=vars(self.at))
            checkpoint.save(self.job.run_uri, point, keep_step=self.at.best_step)
        self.runtime.barrier()


def fresh_model(job: TrainJob, num_outputs: int) -> nn.Module:
    """The model before its first step: a new one, or one with the weights of the training that it starts from."""
    run, model = job.run, new_model(job, num_outputs, pretrained=job.run.pretrained)
    if run.start_from is not None:
        if job.start_uri is None:
            raise InputError(f"{run.label}: starts from {run.start_from.label}, and no model of it was given")
        parent, _ = checkpoint.load_model(job.start_uri)
        models.start_from(model, parent.state_dict(), start=run.start_from.label)
    return model


def new_model(job: TrainJob, num_outputs: int, *, pretrained: str | None) -> nn.Module:
    """The model with pretrained weights, or random ones by the seed; a run that goes on has weights of its own."""
    run = job.run
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.train.seed)
        return models.create(run.arch, num_outputs, pretrained=pretrained, **run.options)


def lost_best(run_uri: str) -> int | None:
    """The best step of a training that has ended, when its checkpoint is damaged or gone; None for every other run.

    Nothing is left then of which the model can be made, nor an earlier place to go on from. While a training goes on,
    a lost best one may still be beaten, and is no reason to throw the rest away.
    """
    state = checkpoint.newest_state(run_uri)
    if state is None or not state["stopped"]:
        return None
    best_step = int(state["best_step"])
    try:
        checkpoint.load(run_uri, best_step)
    except CorruptError:
        return best_step
    return None


def open_task(dataset: Dataset, run: RunConfig) -> TaskOps:
    """The task's operations, after checking that the dataset fills what they need and has the splits."""
    manifest = dataset.manifest
    for split in (run.train.train_split, run.train.validation_split):
        if split not in manifest.splits or not manifest.splits[split].samples:
            known = {name: s.samples for name, s in manifest.splits.items()}
            raise InputError(f"{dataset.uri}: split {split!r} is missing or empty; the dataset has {known}")
    task = TASKS[run.task_kind]
    missing = unfilled(run.task, task.needs, manifest.annotations, where=f"dataset {dataset.uri}")
    if missing:
        raise InputError(missing)
    statistics = manifest.splits[run.train.train_split]
    # Of all splits: what is trained on one is scored on the others.
    num_keypoints = max(map(dataset.num_keypoints, manifest.splits)) if task.trains_on_keypoints else None
    ops = task(manifest.classes, manifest.ignore_index, config=run.train, statistics=statistics)
    task.check_run(run, num_keypoints=num_keypoints, is_counted=True, where=dataset.uri)
    return ops
