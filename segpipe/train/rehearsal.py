"""A training tried for some seconds before a night is spent on it: can it learn one step's images by heart?

The steps are those of `loop.py`, on the batches that it would meet first, in a folder that is thrown away. What is a
fault and what only a caution is decided by `stages/rehearsal.py`; here it is measured.

Legend: N crops, K classes, H W crop size.
"""

from __future__ import annotations

import dataclasses
import math
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from segpipe.config import RunConfig
from segpipe.data.batch import Batch, training_inputs
from segpipe.data.loader import EvalBatches
from segpipe.errors import NonFiniteError
from segpipe.evaluate import count
from segpipe.train.loop import train_step
from segpipe.train.outcome import bundle_of, inference_of
from segpipe.train.runtime import LocalRuntime
from segpipe.train.session import Session, TrainJob
from segpipe.types import IMAGENET_MEAN, IMAGENET_STD

MOST_STEPS, LEAST_STEPS = 40, 4
ENOUGH = 0.3  # a fall of the loss after which no more steps are made
LEAST_FALL = 0.02  # what counts as one: below it is the noise of a step
LOWER_RATE = 0.1
LOOKED_AT, SHOWN = 8, 6  # steps whose labels are looked at, crops that are drawn


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """What was measured. `losses` are those of the steps at the recipe's learning rate, on one step's images;
    `losses_lower` at a tenth of it, tried only where these did not fall; `expected` is ln K, times the weight of the
    cross entropy, where the loss has one. `crops` were looked at in `batches` batches; `unlabelled` of them have no
    label, `one_class` of the batches show one class alone, `seen` are the classes that they show. `image_seconds` is
    of a prediction. `peak_bytes` is the most memory of this process, or of its GPU.

    `images_NHW3` (uint8, as lists of bytes) and `labels_NHW` are some crops as the model sees them, each of `size`.
    """

    losses: tuple[float, ...]
    losses_lower: tuple[float, ...]
    expected: float | None
    batches: int
    crops: int
    unlabelled: int
    one_class: int
    seen: tuple[int, ...]
    batch_seconds: float
    step_seconds: float
    image_seconds: float
    peak_bytes: int
    device: str
    size: tuple[int, int]
    images_NHW3: bytes
    labels_NHW: bytes | None


def rehearse(job: TrainJob, *, seconds: float) -> Rehearsal:
    """Tries the training of a job for about so many seconds, at the least LEAST_STEPS steps.

    A start from another training's weights, which may not be there yet, and torch.compile, which takes minutes, are
    left out. Raises as a training does before its first step.
    """
    deadline = time.perf_counter() + seconds
    train = job.run.train.model_copy(update={"compile": False})
    run = job.run.model_copy(update={"train": train, "start_from": None, "trained_as": None})
    with tempfile.TemporaryDirectory(prefix="segpipe-rehearsal-") as folder, torch.random.fork_rng():
        s = Session(dataclasses.replace(job, run=run, run_uri=folder), LocalRuntime())
        started = time.perf_counter()
        groups = _groups(s)
        waited = (time.perf_counter() - started) / len(groups)
        batches = [batch for group in groups for batch in group]
        labels = [_classes(batch, len(s.dataset.manifest.classes)) for batch in batches]
        chosen = max(groups, key=lambda group: sum(_labelled(batch) for batch in group))
        losses, step_seconds = _overfit(s, chosen, deadline)
        lower: list[float] = []
        if not fell(losses):
            slower = train.model_copy(update={"learning_rate": LOWER_RATE * train.learning_rate})
            s = Session(
                dataclasses.replace(job, run=run.model_copy(update={"train": slower}), run_uri=folder), LocalRuntime()
            )
            lower, _ = _overfit(s, chosen, max(deadline, time.perf_counter() + 0.25 * seconds))
        image_seconds = _prediction_seconds(s)
    shown = batches[0]
    labels_NHW = shown.labels_NHW
    return Rehearsal(
        losses=tuple(losses),
        losses_lower=tuple(lower),
        expected=_expected(run, len(s.dataset.manifest.classes)),
        batches=len(batches),
        crops=sum(len(batch.sample_ids) for batch in batches),
        unlabelled=sum(not classes for found in labels for classes in found),
        one_class=sum(len(set().union(*found)) == 1 for found in labels),
        seen=tuple(sorted(set().union(*(classes for found in labels for classes in found)))),
        batch_seconds=waited,
        step_seconds=step_seconds,
        image_seconds=image_seconds,
        peak_bytes=_peak_bytes(),
        device=str(s.runtime.device),
        size=(shown.images_N3HW.shape[-2], shown.images_N3HW.shape[-1]),
        images_NHW3=_as_seen(shown),
        labels_NHW=None if labels_NHW is None else labels_NHW[:SHOWN].to(torch.int32).numpy().tobytes(),
    )


def fell(losses: Sequence[float]) -> bool:
    """Whether the last losses, the mean of three, are below the first by LEAST_FALL of it."""
    if len(losses) < 2 or not math.isfinite(sum(losses)):
        return False
    last = losses[1:][-3:]
    return sum(last) / len(last) <= losses[0] - LEAST_FALL * abs(losses[0])


def _groups(s: Session) -> list[list[Batch]]:
    """The micro-batches of the first steps of the first epoch."""
    micro_batches = s.batches.epoch(0)
    try:
        number = min(LOOKED_AT, s.steps_per_epoch)
        return [list(islice(micro_batches, s.config.accumulate)) for _ in range(number)]
    finally:
        micro_batches.close()


def _overfit(s: Session, group: Sequence[Batch], deadline: float) -> tuple[list[float], float]:
    """The losses of step after step on the same images, and the median seconds of one; a NaN ends it.

    Every step is the first after the warm-up: at the highest rate of the schedule, and with one and the same dropout.
    """
    s.at.step = min(s.config.warmup_steps, s.total_steps - 1)
    losses: list[float] = []
    seconds: list[float] = []
    while len(losses) < MOST_STEPS:
        started = time.perf_counter()
        if len(losses) >= LEAST_STEPS and (started > deadline or losses[-1] <= (1 - ENOUGH) * losses[0]):
            break
        try:
            terms, _ = train_step(s, group)
        except NonFiniteError:
            losses.append(math.nan)
            break
        losses.append(sum(terms.values()))
        seconds.append(time.perf_counter() - started)
    return losses, statistics.median(seconds[1:] or seconds or [0.0])


def _prediction_seconds(s: Session) -> float:
    """Of one image of the validation split, without a CRF."""
    split = s.config.validation_split
    batch = next(iter(EvalBatches(s.dataset, split, batch_size=1)))
    bundle = dataclasses.replace(bundle_of(s.job, s.dataset), inference=inference_of(s.config.inference.in_training))
    latencies: list[float] = []
    count(s.model.eval(), s.ops, bundle, [batch], latencies=latencies)
    return latencies[0]


def _classes(batch: Batch, num_classes: int) -> list[set[int]]:
    """The classes that each crop shows."""
    if batch.labels_NHW is not None:
        return [{k for k in labels_HW.unique().tolist() if 0 <= k < num_classes} for labels_HW in batch.labels_NHW]
    return [set(each.class_ids_N.tolist()) for each in batch.objects or ()]


def _labelled(batch: Batch) -> int:
    return sum(map(len, _classes(batch, 2**31)))


def _expected(run: RunConfig, num_classes: int) -> float | None:
    """What a head that knows nothing yet says of each pixel: the same of every class, ln K nats.

    Weights of classes leave it at that, as a weighted mean divides by them; one logit for two classes is ln 2, too.
    """
    term = run.train.loss.terms.get("cross_entropy")
    return float(term.weight) * math.log(num_classes) if run.task == "semantic" and term else None


def _as_seen(batch: Batch) -> bytes:
    """Some crops as they enter the model, brought back into 0..255: what a mistake of normalisation or colours would
    show."""
    images_N3HW = training_inputs(batch, torch.device("cpu"))[:SHOWN]
    mean_311, std_311 = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    pixels_N3HW = (images_N3HW * std_311 + mean_311).mul(255).round().clamp(0, 255).to(torch.uint8)
    return pixels_N3HW.permute(0, 2, 3, 1).contiguous().numpy().tobytes()


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
