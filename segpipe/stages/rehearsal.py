"""Every training of a recipe tried for some seconds before its night: `segpipe check --deep`, and the first thing that
a retrain does with a dataset version.

A **fault** is said only of what certainly cannot be trained, however long: the recipe or the data are refused, a split
has no label at all, the loss is not finite before anything was learnt, or no weight moves. Some seconds prove nothing
else: a loss that does not fall on one step's images, crops without labels or of one class, a start far from ln K are
**cautions**, and the training is begun; so it is where the trial itself came to an end, as for want of memory that
others held just then. A loss that cannot be learnt costs the hours of one architecture, a sound training refused costs
the night. One with a fault is left out of the night, as one that fails is, with the sentence on record.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from segpipe import checkpoint, models, reports, storage
from segpipe.config import Recipe, RunConfig
from segpipe.errors import ConflictError, InputError, SegpipeError, UnreachableError
from segpipe.report.inputs import draw_inputs
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import layout
from segpipe.stages.attempts import attempt_all, message_of
from segpipe.stages.ingest import IngestResult
from segpipe.stages.numbers import counted
from segpipe.stages.train import finished, run_location
from segpipe.tasks import TASKS
from segpipe.train.rehearsal import MOST_STEPS, Rehearsal, fell, rehearse, stood
from segpipe.train.session import TrainJob
from segpipe.version import code_version

CHECK, SHEET = "check.json", "inputs.png"
TRIED_FIRST = "not trained, since it was tried for some seconds first"
FAR = 2.0  # times ln K, or the part of it: a head of random weights says some tenths more
LITTLE = 0.1  # a fall below this share of the first loss is told


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsed:
    """One architecture: a sentence for each fault and caution, and what was measured.

    Where nothing was tried that is None, and `aside` says why, or `failed` what ended the trial; a loss that is not
    finite is None. `first_entropy` is the part of the first loss that is near `expected` where a model knows nothing.
    `training_hours` are those of all its `steps` with their validations by these numbers; `reached` is the step that an
    earlier night or search left it at, after `train_seconds`, and `hours` are those of the rest and of its evaluation,
    without a CRF. `sheet` is the picture of what the model sees. `remembered` where the same was tried before.
    """

    label: str
    faults: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    aside: str = ""
    failed: str = ""
    losses: tuple[float | None, ...] = ()
    first_entropy: float | None = None
    expected: float | None = None
    step_seconds: float | None = None
    image_seconds: float | None = None
    images_per_second: float | None = None
    peak_bytes: int | None = None
    device: str = ""
    hours: float | None = None
    steps: int | None = None
    training_hours: float | None = None
    reached: int = 0
    train_seconds: float = 0.0
    sheet: str = ""
    remembered: bool = False

    @property
    def share(self) -> float:
        """How much of its training an earlier night or search has done."""
        return self.reached / self.steps if self.steps else 0.0

    @property
    def told(self) -> list[str]:
        failed = (
            [f"could not be tried, and is begun all the same, unless within a budget: {self.failed}"]
            if self.failed
            else []
        )
        return [*failed, *self.faults, *self.cautions]


@dataclass(frozen=True, kw_only=True, slots=True)
class RehearsedNight:
    """All architectures; `core_hours` is what they cost together, and `hours` how long they take one after the other.
    Both are of what is still to be trained, at most: patience may end a training earlier."""

    architectures: tuple[Rehearsed, ...]
    hours: float
    core_hours: float

    @property
    def faults(self) -> dict[str, str]:
        """By label, all of one architecture in one text."""
        return {each.label: "; ".join(each.faults) for each in self.architectures if each.faults}

    @property
    def told(self) -> list[str]:
        """What a person should read before the night goes on, a line each."""
        return [f"{each.label}: {said}" for each in self.architectures for said in each.told]

    @property
    def cost(self) -> str:
        return f"at most {self.hours:.2g} hours one by one, {self.core_hours:.2g} core hours"

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found that cannot be trained, and no trial came to an end of its own."""
        return not any(each.faults or each.failed for each in self.architectures)


def rehearse_night(
    recipe: Recipe,
    runs: Sequence[RunConfig],
    dataset: IngestResult,
    *,
    runtime: Literal["ray", "local"] = "ray",
    seconds: float | None = None,
) -> RehearsedNight:
    """Tries each of the resolved `runs` for `seconds`, by default the recipe's `rehearsal.seconds`, where its training
    would run: on Ray with its CPUs and GPUs, as many at once as there is room for, or one by one in this process.

    What was tried without a fault, in the same place and for as long, with the same recipe, dataset version and code is
    remembered below the home.
    """
    opened = open_dataset(dataset.uri, version=dataset.version)
    wanted = recipe.rehearsal.seconds if seconds is None else seconds
    trials = {run.label: partial(_of_run, recipe, run, opened, runtime, wanted) for run in runs}
    outcomes = attempt_all(trials, side_by_side=runtime != "local")
    found = [_ended(label, outcome) for label, outcome in outcomes.items()]
    hours = sum(each.hours or 0.0 for each in found)
    cores = _workers(recipe, runtime) * recipe.resources.cpus_per_worker
    return RehearsedNight(architectures=tuple(found), hours=hours, core_hours=hours * cores)


def _of_run(
    recipe: Recipe, run: RunConfig, dataset: Dataset, runtime: Literal["ray", "local"], seconds: float
) -> Rehearsed:
    if aside := _aside(run, recipe, dataset):
        return Rehearsed(label=run.label, aside=aside)
    folder = _location(recipe, run, dataset, runtime, seconds)
    path = storage.join(folder, CHECK)
    if storage.exists(path):
        known = reports.from_plain(Rehearsed, storage.read_json(path), origin=path)
        return replace(_timed(known, recipe, run, dataset, runtime), remembered=True)
    share = max(1, run.train.batch_size // _workers(recipe, runtime))
    share_of_batch = run.train.model_copy(update={"batch_size": share})
    job = TrainJob(
        run=run.model_copy(update={"train": share_of_batch}),
        data=dataset.uri,
        version=dataset.version,
        run_uri="",
        code_version=code_version(),
    )
    try:
        measured = _measure(job, recipe, runtime, seconds)
    except InputError as error:  # the training would say the same
        return Rehearsed(label=run.label, faults=(f"could not make a step: {error}",))
    sheet = storage.join(folder, SHEET)
    storage.delete_tree(folder)  # of a try before, which had a fault
    storage.write_once(sheet, _drawn(measured, run, dataset))
    result = replace(_judged(run, measured, dataset), sheet=sheet)
    if not result.faults:
        with suppress(ConflictError):  # somebody tried the same just now, in other seconds
            storage.write_json_once(path, reports.to_plain(result))
    return _timed(result, recipe, run, dataset, runtime)


def _ended(label: str, outcome: Rehearsed | Exception) -> Rehearsed:
    """Of memory that others hold, a worker that died, a bug of the trial alone, nothing follows for the training."""
    if isinstance(outcome, UnreachableError):
        raise outcome
    return Rehearsed(label=label, failed=message_of(outcome)) if isinstance(outcome, Exception) else outcome


def _measure(job: TrainJob, recipe: Recipe, runtime: Literal["ray", "local"], seconds: float) -> Rehearsal:
    if runtime == "local":
        return rehearse(job, seconds=seconds)
    from segpipe.train import on_ray  # ray costs seconds to import, and a local check does not need it

    on_ray.connect()
    asked = recipe.resources
    (found,) = on_ray.fan_out(
        partial(rehearse, seconds=seconds), [job], num_cpus=asked.cpus_per_worker, num_gpus=asked.gpus_per_worker
    )
    return found


def _aside(run: RunConfig, recipe: Recipe, dataset: Dataset) -> str:
    """Why nothing is tried; "" where something is."""
    if run.members:
        return f"made of {', '.join(member.label for member in run.members)}"
    if run.trained_as:
        return f"takes the weights of {run.trained_as.label}"
    if models.spec(run.arch).learns_by != "descent":
        return f"learns by {models.spec(run.arch).learns_by}: no loss falls"
    if finished(_training_uri(recipe, run, dataset)):
        return "is trained already"
    return ""


def _training_uri(recipe: Recipe, run: RunConfig, dataset: Dataset) -> str:
    """Where the training of a run lies or will lie: what comes after it, such as a CRF, is not tried."""
    return run_location(run.training, version=dataset.version, to=layout.runs_uri(recipe.name))


def _location(
    recipe: Recipe, run: RunConfig, dataset: Dataset, runtime: Literal["ray", "local"], seconds: float
) -> str:
    """By the training, where it was tried and for how long: a CPU's numbers say nothing of a GPU's night."""
    run_key = layout.run_key(run.training.digest, dataset.version, code_version())
    name = layout.key(run_key, recipe.resources.model_dump_json(), runtime, str(seconds))
    return storage.join(layout.rehearsals_uri(recipe.name), f"{run.label}-{name}")


def _judged(run: RunConfig, found: Rehearsal, dataset: Dataset) -> Rehearsed:
    step = max(found.step_seconds, found.batch_seconds)  # batches are made beside the steps
    images = run.train.batch_size * run.train.accumulate
    return Rehearsed(
        label=run.label,
        faults=(*_unlearnable(run, dataset), *_faults(found)),
        cautions=(*_cautions(run, found), *_unseen(run, found, dataset)),
        losses=tuple(map(_finite, found.losses)),
        first_entropy=_finite(found.first_entropy),
        expected=found.expected,
        step_seconds=step,
        image_seconds=found.image_seconds,
        images_per_second=images / step if step else None,
        peak_bytes=found.peak_bytes,
        device=found.device,
    )


def _timed(
    tried: Rehearsed, recipe: Recipe, run: RunConfig, dataset: Dataset, runtime: Literal["ray", "local"]
) -> Rehearsed:
    """With where the training stands by now, and the hours, which are of what the recipe says now: those of a
    validation are shared by the workers of the training, those of the evaluation by its own."""
    if tried.step_seconds is None or tried.image_seconds is None:
        return tried
    splits, train = dataset.manifest.splits, run.train
    looks = splits[train.validation_split].samples * math.ceil(train.epochs / train.evaluate_every)
    scored = splits[recipe.evaluate.split].samples if recipe.evaluate.split in splits else 0
    scorers = recipe.evaluate.workers if runtime == "ray" else 1
    steps = train.steps(splits[train.train_split].samples)
    training = steps * tried.step_seconds + looks * tried.image_seconds / _workers(recipe, runtime)
    state = checkpoint.newest_state(_training_uri(recipe, run, dataset)) or {"step": 0, "train_seconds": 0.0}
    found = replace(
        tried,
        steps=steps,
        training_hours=training / 3600,
        reached=state["step"],
        train_seconds=state["train_seconds"],
    )
    rest = training * (1 - found.share)
    return replace(found, hours=(rest + scored * tried.image_seconds / scorers) / 3600)


def _workers(recipe: Recipe, runtime: Literal["ray", "local"]) -> int:
    return recipe.resources.workers if runtime == "ray" else 1


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None


def _unlearnable(run: RunConfig, dataset: Dataset) -> Iterator[str]:
    """Of the whole splits, whose pixels the manifest has counted."""
    if TASKS[run.task_kind].trains_on_objects:
        return  # whose pixels may all be of no class
    for split in dict.fromkeys((run.train.train_split, run.train.validation_split)):
        if not any(dataset.manifest.splits[split].class_pixels):
            yield f"no pixel of split {split!r} has a class: look at the masks with `segpipe data inspect --sheet`"


def _faults(found: Rehearsal) -> Iterator[str]:
    if not math.isfinite(found.losses[0]):
        yield "the loss of the first step is not finite, before anything was learnt; look at its images, and at loss"
    elif stood(found.losses):
        yield (
            f"on one step's images the loss stays {found.losses[0]:.6g} for {counted(len(found.losses), 'step')}: no "
            "weight moves; look at learning_rate, and at what the loss depends on"
        )


def _cautions(run: RunConfig, found: Rehearsal) -> Iterator[str]:
    yield from _slow(run, found)
    start, expected = found.first_entropy, found.expected
    if start is not None and expected is not None and math.isfinite(start):
        # Pretrained weights may bring a head that knows the classes: a low start is then none to wonder at.
        is_low = run.pretrained is None and start < expected / FAR
        if start > expected * FAR or is_low:
            yield (
                f"the first cross entropy is {start:.3g}, and of a head that knows nothing it is near {expected:.3g} "
                "(ln K; from half to twice of it is usual): look at the head's start, and at class ids"
            )
    if found.unlabelled:
        yield (
            f"{found.unlabelled} of {found.crops} crops have no label, and nothing is learnt of them: look at the "
            "masks with `segpipe data inspect --sheet`, and at augment.crop"
        )


def _slow(run: RunConfig, found: Rehearsal) -> Iterator[str]:
    """Of a loss that does not fall as it should. Not a fault: the first steps of a training have a warm-up, other
    images and thousands of steps to come, and here there may have been time for a few."""
    rate, losses, course = run.train.learning_rate, found.losses, _course(found.losses)
    had_its_steps = len(losses) >= MOST_STEPS or not math.isfinite(losses[-1])
    in_time = "" if had_its_steps else " (there was no time for more; raise rehearsal.seconds)"
    if not fell(losses) and fell(found.losses_lower):
        yield (
            f"at learning_rate {rate:g} the loss of one step's images goes {course}{in_time}, at a tenth of it "
            f"{_course(found.losses_lower)}: lower it, or raise warmup_steps"
        )
    elif not fell(losses) and math.isfinite(losses[0]) and not stood(losses):
        yield (
            f"on one step's images the loss does not fall: {course}{in_time}, and at a tenth of learning_rate "
            f"{_course(found.losses_lower)}; look at learning_rate {rate:g}, loss, labels and pretrained weights"
        )
    elif fell(losses) and had_its_steps and losses[-1] > (1 - LITTLE) * losses[0]:
        yield f"on one step's images the loss falls by little: {course}; learning_rate is {rate:g}"


def _unseen(run: RunConfig, found: Rehearsal, dataset: Dataset) -> Iterator[str]:
    """Classes that the whole split, which the manifest has counted, or its first crops do not show."""
    name = run.train.train_split
    pixels = dict(
        zip((info.name for info in dataset.manifest.classes), dataset.manifest.splits[name].class_pixels, strict=True)
    )
    there = [each for each, count in pixels.items() if count]
    if there and len(there) < len(pixels):  # of objects, no pixels are counted
        missing = ", ".join(each for each in pixels if each not in there)
        yield f"no pixel of split {name!r} is {missing}: it cannot be learnt"
    if len(there) > 1 and found.batches > 1 and found.one_class == found.batches:
        yield (
            f"each of the first {found.batches} batches shows one class alone, and split {name!r} holds {len(there)}: "
            "look at the masks with `segpipe data inspect --sheet`"
        )


def _course(losses: Sequence[float]) -> str:
    if not losses:
        return "nothing"
    steps = counted(len(losses), "step")
    return f"from {losses[0]:.3g} to {losses[-1]:.3g} in {steps}"


def _drawn(found: Rehearsal, run: RunConfig, dataset: Dataset) -> bytes:
    return draw_inputs(
        found.images_NHW3,
        found.labels_NHW,
        size=found.size,
        classes=dataset.manifest.classes,
        ignore_index=dataset.manifest.ignore_index,
        title=f"{run.label}: training crops as the model sees them",
    )


def without(faults: Mapping[str, str], run: RunConfig) -> None:
    """Raises SegpipeError where the training was tried and cannot succeed: the run's own, or that of the run whose
    weights it takes."""
    for each in (run, run.trained_as):
        if each is not None and each.label in faults:
            raise SegpipeError(f"{TRIED_FIRST}: {faults[each.label]}")
