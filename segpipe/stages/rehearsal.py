"""Every training of a recipe tried for some seconds before its night: `segpipe check --deep`, and the first thing that
a retrain does with a dataset version.

A **fault** is what makes the hours that follow worthless whatever is done with them: a loss that cannot be brought down
on one step's images at the recipe's learning rate nor at a tenth of it, NaN at both, a model that cannot be built or
does not fit into memory, crops of which most have no label, batches that all show one class. A **caution** may be
meant: a loss that falls only at a tenth of the rate (a warm-up may save it), or by little, one that starts far from
ln K, classes that are never labelled in training. An architecture with a fault is left out of the night, as one that
fails is: a night in which all have one is over in seconds, with a sentence for each on record.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from segpipe import models, reports, storage
from segpipe.config import Recipe, RunConfig
from segpipe.errors import ConflictError, SegpipeError, UnreachableError
from segpipe.report.inputs import draw_inputs
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import layout
from segpipe.stages.ingest import IngestResult
from segpipe.stages.numbers import counted
from segpipe.stages.train import finished, run_location
from segpipe.train.rehearsal import Rehearsal, fell, rehearse
from segpipe.train.session import TrainJob
from segpipe.version import code_version

CHECK, SHEET = "check.json", "inputs.png"
TRIED_FIRST = "not trained, since it was tried for some seconds first"
FAR = 2.0  # times ln K, or the part of it: a head of random weights says some tenths more
LITTLE = 0.1  # a fall below this share of the first loss is told


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsed:
    """One architecture: a sentence for each fault and caution, and what was measured.

    Where nothing was tried that is None, and `aside` says why; a loss that is not finite is None. `hours` are those of
    its training and evaluation by these numbers, without a CRF, `training_hours` those of its `steps` with their
    validations alone; `sheet` is the picture of what the model sees. `remembered` where the same was tried before.
    """

    label: str
    faults: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    aside: str = ""
    losses: tuple[float | None, ...] = ()
    expected: float | None = None
    step_seconds: float | None = None
    image_seconds: float | None = None
    images_per_second: float | None = None
    peak_bytes: int | None = None
    device: str = ""
    hours: float | None = None
    steps: int | None = None
    training_hours: float | None = None
    sheet: str = ""
    remembered: bool = False


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


def rehearse_night(
    recipe: Recipe,
    runs: Sequence[RunConfig],
    dataset: IngestResult,
    *,
    runtime: Literal["ray", "local"] = "ray",
    seconds: float | None = None,
) -> RehearsedNight:
    """Tries each of the resolved `runs` for `seconds`, by default the recipe's `rehearsal.seconds`, one by one, where
    its training would run: on Ray with its CPUs and GPUs, or in this process.

    What was tried without a fault with the same recipe, dataset version and code is remembered below the home.
    """
    opened = open_dataset(dataset.uri, version=dataset.version)
    wanted = recipe.rehearsal.seconds if seconds is None else seconds
    found = [_of_run(recipe, run, opened, runtime, wanted) for run in runs]
    hours = sum(each.hours or 0.0 for each in found)
    cores = recipe.resources.workers * recipe.resources.cpus_per_worker
    return RehearsedNight(architectures=tuple(found), hours=hours, core_hours=hours * cores)


def _of_run(
    recipe: Recipe, run: RunConfig, dataset: Dataset, runtime: Literal["ray", "local"], seconds: float
) -> Rehearsed:
    if aside := _aside(run, recipe, dataset):
        return Rehearsed(label=run.label, aside=aside)
    folder = _location(recipe, run, dataset)
    path = storage.join(folder, CHECK)
    if storage.exists(path):
        return replace(reports.from_plain(Rehearsed, storage.read_json(path), origin=path), remembered=True)
    workers = recipe.resources.workers
    share = run.train.model_copy(update={"batch_size": max(1, run.train.batch_size // workers)})
    job = TrainJob(
        run=run.model_copy(update={"train": share}),
        data=dataset.uri,
        version=dataset.version,
        run_uri="",
        code_version=code_version(),
    )
    try:
        measured = _measure(job, recipe, runtime, seconds)
    except UnreachableError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the training would end of it as well
        return Rehearsed(label=run.label, faults=(f"could not make a step: {type(error).__name__}: {error}",))
    judged = _judged(run, measured, dataset, recipe)
    sheet = storage.join(folder, SHEET)
    storage.delete_tree(folder)  # of a try before, which had a fault
    storage.write_once(sheet, _drawn(measured, run, dataset))
    result = replace(judged, sheet=sheet)
    if not result.faults:
        try:
            storage.write_json_once(path, reports.to_plain(result))
        except ConflictError:
            return result  # somebody tried the same just now, in other seconds
    return result


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
    if finished(run_location(run, version=dataset.version, to=layout.runs_uri(recipe.name))):
        return "is trained already"
    return ""


def _location(recipe: Recipe, run: RunConfig, dataset: Dataset) -> str:
    share = f"{recipe.resources.workers}"
    name = layout.key(layout.run_key(run.digest, dataset.version, code_version()), share)
    return storage.join(layout.rehearsals_uri(recipe.name), f"{run.label}-{name}")


def _judged(run: RunConfig, found: Rehearsal, dataset: Dataset, recipe: Recipe) -> Rehearsed:
    manifest, train = dataset.manifest, run.train
    steps = manifest.splits[train.train_split].samples // train.batch_size // train.accumulate * train.epochs
    looks = manifest.splits[train.validation_split].samples * math.ceil(train.epochs / train.evaluate_every)
    scored = manifest.splits[recipe.evaluate.split].samples if recipe.evaluate.split in manifest.splits else 0
    step = max(found.step_seconds, found.batch_seconds)  # batches are made beside the steps
    images = train.batch_size * train.accumulate
    training = steps * step + looks * found.image_seconds
    return Rehearsed(
        label=run.label,
        faults=tuple(_faults(found)),
        cautions=(*_cautions(run, found), *_unseen(run, dataset)),
        aside="",
        losses=tuple(loss if math.isfinite(loss) else None for loss in found.losses),
        expected=found.expected,
        step_seconds=step,
        image_seconds=found.image_seconds,
        images_per_second=images / step if step else None,
        peak_bytes=found.peak_bytes,
        device=found.device,
        hours=(training + scored * found.image_seconds) / 3600,
        steps=steps,
        training_hours=training / 3600,
    )


def _faults(found: Rehearsal) -> Iterator[str]:
    if 2 * found.unlabelled > found.crops:
        yield (
            f"{found.unlabelled} of {found.crops} crops have no label: nothing is learnt of them; look at the masks "
            "with `segpipe data inspect --sheet`, and at augment.crop"
        )
    elif found.batches > 1 and found.one_class == found.batches:
        yield f"each of {found.batches} batches shows one class alone: look at the masks with `segpipe data inspect`"
    if not fell(found.losses) and not fell(found.losses_lower):
        yield (
            f"on one step's images the loss does not fall: {_course(found.losses)}, and at a tenth of the learning "
            f"rate {_course(found.losses_lower)}; look at loss, labels and pretrained weights"
        )


def _cautions(run: RunConfig, found: Rehearsal) -> Iterator[str]:
    rate = run.train.learning_rate
    if not fell(found.losses) and fell(found.losses_lower):
        yield (
            f"at learning_rate {rate:g} the loss of one step's images goes {_course(found.losses)}, at a tenth of it "
            f"{_course(found.losses_lower)}: lower it, or raise warmup_steps"
        )
    elif fell(found.losses) and found.losses[-1] > (1 - LITTLE) * found.losses[0]:
        yield f"on one step's images the loss falls by little: {_course(found.losses)}; learning_rate is {rate:g}"
    start, expected = found.losses[0], found.expected
    if expected and math.isfinite(start):
        # Pretrained weights may bring a head that knows the classes: a low start is then none to wonder at.
        is_low = run.pretrained is None and start < expected / FAR
        if start > expected * FAR or is_low:
            yield (
                f"the first loss is {start:.3g}, and a head that knows nothing is near {expected:.3g} (ln K; from half "
                "to twice of it is usual): look at the head's start, and at class ids"
            )
    if 0 < found.unlabelled <= found.crops / 2:
        yield f"{found.unlabelled} of {found.crops} crops have no label"


def _unseen(run: RunConfig, dataset: Dataset) -> Iterator[str]:
    """Of the whole split, which the manifest has counted."""
    split = dataset.manifest.splits[run.train.train_split]
    if not any(split.class_pixels):
        return  # of objects, it counts no pixels
    names = [info.name for info, pixels in zip(dataset.manifest.classes, split.class_pixels, strict=True) if not pixels]
    if names:
        yield f"no pixel of split {run.train.train_split!r} is {', '.join(names)}: it cannot be learnt"


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


def without(faults: Mapping[str, str], label: str) -> None:
    """Raises SegpipeError where the architecture was tried and cannot be trained."""
    if label in faults:
        raise SegpipeError(f"{TRIED_FIRST}: {faults[label]}")
