"""A training tried for some seconds before a night is spent on it: can it learn one step's images by heart?

The steps are those of `loop.py`, on the batches that it would meet first, in a folder that is thrown away. What is a
fault and what only a caution is decided by `stages/rehearsal.py`; here it is measured.

Legend: N crops, K classes, H W crop size.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch

from segpipe.config import RunConfig
from segpipe.data.batch import Batch, training_inputs
from segpipe.data.loader import EvalBatches
from segpipe.errors import NonFiniteError
from segpipe.evaluate import count
from segpipe.tasks.pixel_losses import cross_entropy_in
from segpipe.train.loop import train_step
from segpipe.train.outcome import bundle_of, inference_of
from segpipe.train.runtime import LocalRuntime
from segpipe.train.session import Session, TrainJob
from segpipe.types import IMAGENET_MEAN, IMAGENET_STD

MOST_STEPS, LEAST_STEPS = 40, 4
ENOUGH = 0.3  # a fall of the loss after which no more steps are made
LEAST_FALL = 0.02  # what counts as one: below it is the noise of a step
ROUNDING = 1e-6  # of float32, some digits of its last
LOWER_RATE = 0.1
LOOKED_AT, SHOWN = 8, 6  # steps whose labels are looked at, crops that are drawn
_PROCESS = Path("/proc/self")  # of Linux


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """What was measured. `losses` are those of the steps at the recipe's learning rate, on one step's images;
    `losses_lower` at a tenth of it, tried only where these did not fall, but moved. `first_entropy` is the cross
    entropy of the pixels at the first step, one term of its loss, where there is one; `expected` is ln K, times the
    weight of that term. `crops` were looked at in `batches` batches; `unlabelled` of them have no label, where all that
    is learnt of is a label map, `one_class` of the batches show one class alone, `seen` are the classes that they
    show. `image_seconds` is of a prediction. `peak_bytes` is the most memory of this process meanwhile, or of what it
    took of its GPU; None where the system does not tell.

    `images_NHW3` (uint8, as lists of bytes) and `labels_NHW` are some crops as the model sees them, each of `size`.
    """

    losses: tuple[float, ...]
    losses_lower: tuple[float, ...]
    first_entropy: float | None
    expected: float | None
    batches: int
    crops: int
    unlabelled: int
    one_class: int
    seen: tuple[int, ...]
    batch_seconds: float
    step_seconds: float
    image_seconds: float
    peak_bytes: int | None
    device: str
    size: tuple[int, int]
    images_NHW3: bytes
    labels_NHW: bytes | None


def rehearse(job: TrainJob, *, seconds: float) -> Rehearsal:
    """Tries the training of a job for about so many seconds, at the least LEAST_STEPS steps, after its model is built
    and its first images are read.

    A start from another training's weights, which may not be there yet, and torch.compile, which takes minutes, are
    left out. Raises as a training does before its first step.
    """
    has_forgotten = _forget_peak()
    train = job.run.train.model_copy(update={"compile": False})
    run = job.run.model_copy(update={"train": train, "start_from": None, "trained_as": None})
    with tempfile.TemporaryDirectory(prefix="segpipe-rehearsal-") as folder, torch.random.fork_rng():
        s = Session(dataclasses.replace(job, run=run, run_uri=folder), LocalRuntime())
        num_classes = len(s.dataset.manifest.classes)
        started = time.perf_counter()
        groups = _groups(s)
        waited = (time.perf_counter() - started) / len(groups)
        labels = [[_classes(batch, num_classes) for batch in group] for group in groups]
        most = max(range(len(groups)), key=lambda at: sum(map(len, chain.from_iterable(labels[at]))))
        deadline = time.perf_counter() + seconds
        losses, terms, step_seconds = _overfit(s, groups[most], deadline)
        lower: list[float] = []
        if not fell(losses) and not stood(losses):
            slower = train.model_copy(update={"learning_rate": LOWER_RATE * train.learning_rate})
            del s  # two at once may not fit into memory
            s = Session(
                dataclasses.replace(job, run=run.model_copy(update={"train": slower}), run_uri=folder), LocalRuntime()
            )
            lower, _, _ = _overfit(s, groups[most], max(deadline, time.perf_counter() + 0.25 * seconds))
        image_seconds = _prediction_seconds(s)
    batches = [batch for group in groups for batch in group]
    found = [classes for group in labels for classes in group]
    first_entropy = cross_entropy_in(terms, train.loss)
    shown = batches[0]
    labels_NHW = shown.labels_NHW
    return Rehearsal(
        losses=tuple(losses),
        losses_lower=tuple(lower),
        first_entropy=first_entropy,
        expected=None if first_entropy is None else _expected(run, num_classes),
        batches=len(batches),
        crops=sum(len(batch.sample_ids) for batch in batches),
        # A crop without objects is an example of none.
        unlabelled=sum(not each for each in chain(*found)) if shown.objects is None else 0,
        one_class=sum(len(set().union(*each)) == 1 for each in found),
        seen=tuple(sorted(set().union(*chain(*found)))),
        batch_seconds=waited,
        step_seconds=step_seconds,
        image_seconds=image_seconds,
        peak_bytes=_peak_bytes() if has_forgotten else None,
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
    return sum(last) / len(last) < losses[0] - LEAST_FALL * abs(losses[0])


def stood(losses: Sequence[float]) -> bool:
    """Whether all steps were made, and the loss has stayed but for the rounding: no weight that it depends on moves.

    At this pace a million steps would bring some hundredths, on one step's images.
    """
    moved = max(losses, default=0.0) - min(losses, default=0.0)
    return len(losses) >= MOST_STEPS and losses[0] != 0 and moved <= ROUNDING * abs(losses[0])


def _groups(s: Session) -> list[list[Batch]]:
    """The micro-batches of the first steps of the first epoch."""
    micro_batches = s.batches.epoch(0)
    try:
        number = min(LOOKED_AT, s.steps_per_epoch)
        return [list(islice(micro_batches, s.config.accumulate)) for _ in range(number)]
    finally:
        micro_batches.close()


def _overfit(s: Session, group: Sequence[Batch], deadline: float) -> tuple[list[float], Mapping[str, float], float]:
    """The losses of step after step on the same images, the terms of the first, and the median seconds of a step; a NaN
    ends it.

    Every step is the first after the warm-up: at the highest rate of the schedule, and with one and the same dropout.
    """
    s.at.step = min(s.config.warmup_steps, s.total_steps - 1)
    losses: list[float] = []
    first_terms: Mapping[str, float] = {}
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
        first_terms = first_terms or terms
        losses.append(sum(terms.values()))
        seconds.append(time.perf_counter() - started)
    return losses, first_terms, statistics.median(seconds[1:] or seconds or [0.0])


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


def _expected(run: RunConfig, num_classes: int) -> float:
    """The first cross entropy, times its weight, of a head that says the same of every class: ln K nats.

    Weights of classes leave it at that, as a weighted mean divides by them; one logit for two classes is ln 2, too.
    """
    return float(run.train.loss.terms["cross_entropy"].weight) * math.log(num_classes)


def _as_seen(batch: Batch) -> bytes:
    """Some crops as they enter the model, brought back into 0..255: what a mistake of normalisation or colours would
    show."""
    images_N3HW = training_inputs(batch, torch.device("cpu"))[:SHOWN]
    mean_311, std_311 = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    pixels_N3HW = (images_N3HW * std_311 + mean_311).mul(255).round().clamp(0, 255).to(torch.uint8)
    return pixels_N3HW.permute(0, 2, 3, 1).contiguous().numpy().tobytes()


def _forget_peak() -> bool:
    """Of what ran in this process before: Ray's workers live for many trainings. False where the system cannot."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        (_PROCESS / "clear_refs").write_text("5")  # proc_pid_clear_refs(5): resets VmHWM
    except OSError:  # not Linux, or a container without this file
        return False
    return True


def _peak_bytes() -> int | None:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    fields = dict(line.split(":", 1) for line in (_PROCESS / "status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 if "VmHWM" in fields else None  # of KiB
