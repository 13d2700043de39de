"""The one training loop. `_train` and `train_step` are the screen to read: forward, backward, step, report.

It knows no task and no cluster: the task comes through `tasks.TASKS`, the surroundings through `runtime.Runtime`. It
may be killed at any instant; called again, it goes on from the newest valid checkpoint and meets the same batches, the
same augmentation and the same dropout, because each is a function of (seed, epoch or step, rank), never of a history.

Legend: N batch, K classes, H W crop size.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from segpipe import checkpoint
from segpipe.cores import keep_freed_memory
from segpipe.data.batch import Batch, training_inputs
from segpipe.errors import NonFiniteError
from segpipe.train.optim import schedule_factor, set_learning_rate, update_average
from segpipe.train.outcome import finish, validation_scores
from segpipe.train.runtime import Runtime
from segpipe.train.session import InPrecision, Session, TrainJob
from segpipe.types import TrainPause, TrainProgress, TrainResult


def fit(job: TrainJob, runtime: Runtime) -> TrainResult:
    """Trains one architecture to the end, or goes on from where the last attempt was stopped.

    Raises NonFiniteError on every rank, within the step, when any rank meets a NaN or Inf; InputError for what no
    retry can mend.
    """
    s = _train(job, runtime)
    return _finish(s)


def fit_until(job: TrainJob, runtime: Runtime, *, until: int) -> TrainResult | TrainPause:
    """The same up to optimiser step `until`: a training that has not ended by then is paused there, and scored as it
    stands.

    What goes on from a pause, here or in `fit`, ends with the weights of a training that never paused, to the bit: the
    schedule is of the full length all the time, and the score enters neither its history nor the choice of its best
    step.
    """
    s = _train(job, runtime, until)
    return _finish(s) if s.at.stopped else _pause(s)


def _train(job: TrainJob, runtime: Runtime, until: float = math.inf) -> Session:
    """The session of a training that has ended, or stands at step `until` with a checkpoint of it."""
    keep_freed_memory()
    s = Session(job, runtime)
    while not s.at.stopped and s.at.step < until:
        started = time.perf_counter()
        micro_batches = s.batches.epoch(s.at.epoch, start=s.at.cursor)
        while s.at.step < until and (group := list(islice(micro_batches, s.config.accumulate))):
            losses, rate = train_step(s, group)
            s.at.step += 1
            s.at.cursor += len(group)
            s.at.loss_sums = {name: s.at.loss_sums.get(name, 0.0) + loss for name, loss in losses.items()}
            s.at.loss_steps += 1
            if s.at.step % s.log_every == 0:
                _record(s, {**_mean_losses(s), "train/learning_rate": rate})
                s.at.loss_sums, s.at.loss_steps = {}, 0
            # Not at an epoch's last step: `_end_epoch` saves that one, with what the evaluation found. A checkpoint
            # that is there already would stand, without it.
            every, within_epoch = s.config.checkpoint_every, s.at.cursor < s.batches.micro_batches
            if every and within_epoch and s.at.step % every == 0:
                s.at.train_seconds += time.perf_counter() - started
                s.save()
                started = time.perf_counter()
        s.at.train_seconds += time.perf_counter() - started
        if s.at.cursor < s.batches.micro_batches:
            micro_batches.close()
            s.save()
        else:
            s.at.epoch, s.at.cursor = s.at.epoch + 1, 0
            _end_epoch(s)
    return s


def train_step(s: Session, group: Sequence[Batch]) -> tuple[dict[str, float], float]:
    """One step of the optimiser on micro-batches; (mean over ranks of each term of the loss, learning rate)."""
    _seed(s.config.seed, s.at.step, s.runtime.rank)
    rate = set_learning_rate(s.optimizer, schedule_factor(s.at.step, s.total_steps, s.config))
    terms: dict[str, Tensor] = {}
    for batch in group:
        shares = {name: term / len(group) for name, term in _batch_losses(s, batch).items()}
        torch.stack(list(shares.values())).sum().backward()  # type: ignore[no-untyped-call]
        for name, share in shares.items():
            terms[name] = terms.get(name, 0.0) + share.detach()
    norm = nn.utils.clip_grad_norm_(s.model.parameters(), s.config.clip_norm or float("inf"))
    losses = _agree_on_finite(s, terms, norm)
    s.optimizer.step()
    s.optimizer.zero_grad(set_to_none=True)
    if s.average is not None and s.config.ema_decay is not None:
        update_average(s.average, s.model, s.config.ema_decay, s.at.step)
    return losses, rate


def _batch_losses(s: Session, batch: Batch) -> dict[str, Tensor]:
    """The task's terms of the loss of one micro-batch; the model runs in the configured precision."""
    device = s.runtime.device
    # As the weights lie: images alone, which come pixel by pixel, bring a network into channels-last memory, too.
    layout = torch.channels_last if s.config.channels_last else torch.contiguous_format
    images_N3HW = training_inputs(batch, device).contiguous(memory_format=layout)
    return s.ops.losses(s.forward, images_N3HW, batch)


def _mean_losses(s: Session) -> dict[str, float]:
    """`train/loss` over the steps since the last record, and `train/losses/<term>` where it has several terms."""
    means = {name: total / s.at.loss_steps for name, total in s.at.loss_sums.items()}
    terms = {f"train/losses/{name}": mean for name, mean in means.items()} if len(means) > 1 else {}
    return {"train/loss": sum(means.values()), **terms}


def _agree_on_finite(s: Session, terms: Mapping[str, Tensor], norm: Tensor) -> dict[str, float]:
    """The mean of each term over ranks. Every rank learns in the same step that one of them met a NaN or Inf.

    `tolist` waits for the device, once a step: the price of weights that no NaN has reached, of an error that names its
    step and samples, and of ranks that stop together.
    """
    terms_T = torch.stack(list(terms.values()))
    loss = terms_T.sum()
    bad = (~torch.isfinite(loss) | ~torch.isfinite(norm)).to(loss.dtype)
    *totals, num_bad = s.runtime.sum(torch.cat([terms_T.nan_to_num(), bad[None]])).tolist()
    if num_bad:
        ids = [
            sample_id
            for offset in range(s.config.accumulate)
            for sample_id in s.batches.sample_ids(s.at.epoch, s.at.cursor + offset)
        ]
        raise NonFiniteError(
            f"loss {float(loss)} and gradient norm {float(norm)} on rank {s.runtime.rank} at step "
            f"{s.at.step} (epoch {s.at.epoch}); {int(num_bad)} rank(s) met NaN or Inf in samples {', '.join(ids)}. "
            "Lower train.learning_rate, set train.clip_norm, or look at these samples"
        )
    return {name: total / s.runtime.world_size for name, total in zip(terms, totals, strict=True)}


def _end_epoch(s: Session) -> None:
    """Evaluates when it is time, decides whether to go on, and saves."""
    at, config = s.at, s.config
    last = at.epoch >= config.epochs
    if last or at.epoch % config.evaluate_every == 0:
        started = time.perf_counter()
        scores = _validate(s)
        _record(s, {f"val/{name}": value for name, value in scores.items()})
        if scores[s.ops.primary] > at.best_value:
            at.best_value, at.best_epoch, at.best_step, at.stale = scores[s.ops.primary], at.epoch, at.step, 0
        else:
            at.stale += 1
        at.train_seconds += time.perf_counter() - started
    if config.patience is not None and at.stale >= config.patience:
        at.stopped = "patience"
    elif last:
        at.stopped = "finished"
    s.save()


def _validate(s: Session) -> dict[str, float]:
    _share_statistics(s)
    model = InPrecision(s.predictor.eval(), s.runtime.device.type, s.config.precision)
    scores = validation_scores(model, s.ops, s.job, s.dataset, s.runtime)
    s.model.train()
    return scores


def _share_statistics(s: Session) -> None:
    """Rank 0's batch statistics for every rank: what is scored is what rank 0 saves, and what a resume would load."""
    if s.runtime.world_size > 1:
        for buffer in s.predictor.buffers():
            buffer.copy_(s.runtime.sum(buffer if s.runtime.rank == 0 else torch.zeros_like(buffer)))


def _record(s: Session, metrics: Mapping[str, float]) -> None:
    """Into the history first, which checkpoints keep; then to whoever watches."""
    s.at.history.append({"step": s.at.step, "epoch": s.at.epoch, "metrics": dict(metrics)})
    if s.runtime.rank == 0:
        s.runtime.report(TrainProgress(metrics, s.at.step, s.total_steps, s.resumed_at))


def _pause(s: Session) -> TrainPause:
    """The score is that of the epoch's end where the pause meets one that was evaluated."""
    started, found = time.perf_counter(), f"val/{s.ops.primary}"
    newest = s.at.history[-1] if s.at.history else None
    if newest is not None and newest["step"] == s.at.step and found in newest["metrics"]:
        score = newest["metrics"][found]
    else:
        score = _validate(s)[s.ops.primary]
    return TrainPause(
        label=s.job.run.label,
        step=s.at.step,
        total_steps=s.total_steps,
        primary=s.ops.primary,
        score=score,
        train_seconds=s.at.train_seconds,
        scoring_seconds=time.perf_counter() - started,
    )


def _finish(s: Session) -> TrainResult:
    """The bundle is of the best step."""
    best = checkpoint.load(s.job.run_uri, s.at.best_step).weights if s.runtime.rank == 0 else None
    parameters = sum(p.numel() for p in s.model.parameters())
    return finish(
        s.job,
        s.runtime,
        s.at,
        dataset=s.dataset,
        primary=s.ops.primary,
        parameters=parameters,
        weights=best,
    )


def _seed(seed: int, step: int, rank: int) -> None:
    """Dropout's random numbers as a function of (seed, step, rank): nothing to save, nothing to restore."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "little"))
