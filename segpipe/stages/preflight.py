"""Before a night's work: what of a recipe can be refused at once, and whether anything is left to do.

Called by `retrain.py` and by every door that ingests a recipe's dataset, so that a typo costs seconds and not a night.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from segpipe import models
from segpipe.config import Recipe, RunConfig, TrainConfig
from segpipe.cores import ray_address
from segpipe.data.copy_paste import unfit
from segpipe.errors import InputError
from segpipe.models.spec import DenseOutput, MaskOutput
from segpipe.predictions import LabelMap
from segpipe.sources import Source
from segpipe.sources.spec import PosedSource
from segpipe.stages import layout, listings
from segpipe.stages.evaluate import location
from segpipe.stages.evaluations import finished_report
from segpipe.stages.halving.plan import is_halved
from segpipe.stages.identity import options_of
from segpipe.stages.ingest import IngestResult
from segpipe.stages.numbers import counted
from segpipe.stages.train import finished, run_location
from segpipe.tasks import TASKS
from segpipe.tasks.refusals import unfilled
from segpipe.train import counting
from segpipe.train.runtime import num_gpus
from segpipe.types import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What the source's listing told: samples by split, what it passed over (`spec.Index`), and what is wrong.

    `num_keypoints` are the most that an object may have, None where the source does not say.
    """

    samples: Mapping[str, int] = field(default_factory=dict)
    num_keypoints: int | None = None
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def check(recipe: Recipe, *, runtime: Literal["ray", "local"] = "ray") -> Listed:
    """Everything that can be refused before any work: architectures with options and weights, resources, source.

    Raises InputError with every fault found, each with its path in the recipe.
    """
    listed = _listed(recipe, _splits_of_a_night(recipe), training=True)
    faults = [*_architecture_faults(recipe, listed.num_keypoints), *listed.faults]
    _refuse(recipe, [*faults, *(_absent_gpus(recipe) if runtime == "ray" else ())])
    return listed


def check_evaluation(recipe: Recipe) -> None:
    """What an evaluation needs of a recipe: its source, and there the split to score on. Raises as `check`.

    Not the rest: a model of elsewhere may be scored on a dataset that has no other split.
    """
    _refuse(recipe, _listed(recipe, {"evaluate.split": recipe.evaluate.split}).faults)


def check_splits(recipe: Recipe, dataset: IngestResult) -> None:
    """Refuses a recipe whose splits the dataset does not have, before anything is trained on the others.

    `check` has asked the source; but a split is empty also when ingest refused every sample of it.
    """
    _refuse(recipe, list(_split_faults(f"dataset {dataset.name!r}", dataset.splits, _splits_of_a_night(recipe))))


def _refuse(recipe: Recipe, faults: Sequence[str]) -> None:
    if faults:
        raise InputError(f"recipe {recipe.name!r}:\n  " + "\n  ".join(map(recipe.named, faults)))


def _absent_gpus(recipe: Recipe) -> Iterator[str]:
    """The fault of GPUs that Ray on this machine will not have, so that no training could begin. A cluster may have
    them, or grow; without Ray a training takes what there is."""
    wanted = recipe.resources.gpus_per_worker * recipe.resources.workers
    if ray_address() == "local" and wanted > (there := num_gpus()):
        yield (
            f"resources: {counted(recipe.resources.workers, 'worker')} of gpus_per_worker "
            f"{recipe.resources.gpus_per_worker:g} ask for {wanted:g} GPU, and this machine has {there}: set "
            "RAY_ADDRESS to a cluster that has them, or lower workers or gpus_per_worker (0 trains on CPUs)"
        )


def _architecture_faults(recipe: Recipe, num_keypoints: int | None) -> Iterator[str]:
    yield from (*_unlike(recipe), *_unheard(recipe), *_idle_budget(recipe))
    for index, run in enumerate(recipe.run_configs()):
        if run.members:  # each of them is checked as the entry that it is
            yield from _member_faults(index, run)
            continue
        try:
            models.check(run.arch, options_of(run), pretrained=run.pretrained)
            if run.start_from is not None:
                models.check_start(run.arch, options_of(run), run.start_from.arch, options_of(run.start_from))
            foreign = [*_foreign(index, run)]
            yield from foreign
            if not foreign:
                where = f"the source {recipe.dataset.root or recipe.dataset.format}"
                TASKS[run.task_kind].check_run(run, num_keypoints=num_keypoints, is_counted=False, where=where)
        except InputError as error:
            yield f"architectures.{index}: {error}"
        yield from _ignored(recipe, index)
        workers = recipe.resources.workers
        if run.train.batch_size % workers:
            yield (
                f"architectures.{index}: batch_size {run.train.batch_size} does not divide over resources.workers "
                f"{workers}; choose a multiple"
            )


def _member_faults(index: int, run: RunConfig) -> Iterator[str]:
    for member in run.members:
        if member.arch in models.MODELS and models.spec(member.arch).output is not DenseOutput:
            yield (
                f"architectures.{index}.ensemble: {member.label} is a {member.arch}, which has no logits for every "
                "pixel to take the mean of; leave it out"
            )


def _unlike(recipe: Recipe) -> Iterator[str]:
    """The fault of architectures that cannot stand on one board, which a night would end with."""
    found = [entry.arch for entry in recipe.architectures if entry.arch in models.MODELS]
    told = [arch for arch in found if models.spec(arch).output is MaskOutput]
    if told and len(told) < len(found):
        others = [arch for arch in found if arch not in told]
        yield (
            f"architectures: {', '.join(told)} is given the boxes of objects, and {', '.join(others)} must find them: "
            "their scores do not compare; give each of the two kinds a recipe of its own"
        )


def _unheard(recipe: Recipe) -> Iterator[str]:
    """The fault of keys that the recipe says of all its architectures, and none of them has a use for."""
    runs = [run for _, run in _trained(recipe) if run.arch in models.MODELS]
    ways = {run.arch: models.spec(run.arch).learns_by for run in runs}
    if len(runs) < len(_trained(recipe)):
        return  # the unknown one may be what they are for
    common = [key for key in recipe.train.told if all(key in run.common for run in runs)]
    says_classes = TASKS[Task(recipe.task)].prediction is LabelMap
    if "descent" not in ways.values():
        unused = [
            key for key in common if key not in counting.TAKEN and not TrainConfig.model_fields[key].is_required()
        ]
        if unused:
            told = ", ".join(f"{arch} learns by {way}" for arch, way in ways.items())
            yield f"train: {told}: {', '.join(unused)} would be ignored; leave that out"
    elif "aux_weight" in common and says_classes and not any(map(_has_heads, runs)):
        yield (
            f"train.aux_weight is {recipe.train.aux_weight:g}: none of {', '.join(ways)} has auxiliary heads; leave it "
            "out"
        )


def _idle_budget(recipe: Recipe) -> Iterator[str]:
    """The fault of a budget for trainings that cost nothing."""
    runs = [run for _, run in _trained(recipe) if run.arch in models.MODELS]
    if recipe.budget and runs and not any(map(is_halved, runs)):
        yield f"budget: of {', '.join(run.label for run in runs)} none learns by descent; leave it out"


def _has_heads(run: RunConfig) -> bool:
    try:
        return bool(models.aux_heads(run.arch, run.options))
    except InputError:
        return True  # nobody knows: its options are a fault of their own


def _ignored(recipe: Recipe, index: int) -> Iterator[str]:
    """The fault of an architecture that does not learn by descent and has keys of its own that are for that. What the
    recipe says of all its architectures may be meant for the others."""
    entry = recipe.architectures[index]
    way = models.spec(entry.arch).learns_by if entry.arch in models.MODELS else "descent"
    unused = [key for key in entry.train if key not in counting.TAKEN]
    if unused and way != "descent":
        yield (
            f"architectures.{index}.train: {entry.arch} learns by {way} and would ignore {', '.join(unused)}; leave "
            f"that out (it takes {', '.join(counting.TAKEN)})"
        )


def _foreign(index: int, run: RunConfig) -> Iterator[str]:
    """The fault of an architecture that answers another question than the recipe asks."""
    fitting = models.names(run.task_kind)
    if run.arch not in fitting:
        theirs = models.spec(run.arch).task
        yield (
            f"architectures.{index}.arch: {run.arch} is a model of task {theirs}, and the recipe's task is {run.task}; "
            f"choose one of that task ({', '.join(fitting) or 'none yet'}), or set task: {theirs}"
        )


def _listed(recipe: Recipe, wanted: Mapping[str, str], *, training: bool = False) -> Listed:
    """Lists the source. Faults are that it cannot be opened or listed, holds no sample, lacks a split or what the task
    needs; for `training` also what the task or its augmentation cannot do with it.

    Reads no pixels. The listing deals samples to splits as ingest will, by lists, folders or hash, so that what is
    missing here is missing there. Some sources only say at the listing that their root is wrong.
    """
    dataset = recipe.dataset
    try:
        own = listings.listing(dataset)
    except InputError as error:
        return Listed(faults=(f"dataset: {error}",))
    source, where = own.source, f"the source {own.root or own.format}"
    sources, amiss = [own], list[str]()
    try:
        sources = listings.joined(own, dataset.additions)
    except InputError as error:
        amiss = [str(error)]  # names its key itself
    samples = Counter(ref.split for each in sources for ref in each.refs)
    together = f"{where}{' with its additions' * (len(sources) > 1)}"
    faults = [*_split_faults(together, samples, wanted), *_task_faults(recipe, source, where, training=training)]
    if training:
        faults += _unknown_classes(recipe, [each.name for each in source.classes], where)
    return Listed(
        samples=samples,
        num_keypoints=source.num_keypoints if isinstance(source, PosedSource) else None,
        notes=tuple(note for each in sources for note in each.notes),
        faults=(*faults, *amiss),
    )


def _unknown_classes(recipe: Recipe, names: Sequence[str], where: str) -> Iterator[str]:
    """The fault of limits for classes that nobody scores."""
    for name in recipe.promote.max_falls:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            yield f"promote.max_falls: {where} has no class {name!r}; {hint}expected some of: {', '.join(names)}"


def _task_faults(recipe: Recipe, source: Source, where: str, *, training: bool) -> Iterator[str]:
    """What the task lacks in the source, and what it says of a training's config and classes, once for all
    architectures of which it says the same."""
    missing = unfilled(recipe.task, TASKS[Task(recipe.task)].needs, source.annotations, where=where)
    if missing:
        yield missing
    if missing or not training:
        return
    if any(run.train.augment.copy_paste for run in recipe.run_configs()):
        fault = unfit(source.annotations, source.classes)
        if fault:
            yield f"train.augment.copy_paste is on, but {where} {fault}"
    found: dict[str, list[str]] = {}
    for index, run in _trained(recipe):
        try:
            TASKS[run.task_kind](source.classes, source.ignore_index, config=run.train)
        except InputError as error:
            found.setdefault(str(error), []).append(f"architectures.{index}")
    for fault, places in found.items():
        yield f"{', '.join(places)}: {fault}"


def _trained(recipe: Recipe) -> list[tuple[int, RunConfig]]:
    return [(index, run) for index, run in enumerate(recipe.run_configs()) if not run.members]


def _splits_of_a_night(recipe: Recipe) -> dict[str, str]:
    """Key of the recipe -> the split that it names. An architecture's own key appears where it overrides the common."""
    wanted = {"evaluate.split": recipe.evaluate.split}
    common = {"train_split": recipe.train.train_split, "validation_split": recipe.train.validation_split}
    for index, run in _trained(recipe):
        for name, split in (("train_split", run.train.train_split), ("validation_split", run.train.validation_split)):
            wanted[f"train.{name}" if split == common[name] else f"architectures.{index}.train.{name}"] = split
    return wanted


def _split_faults(where: str, samples: Mapping[str, int], wanted: Mapping[str, str]) -> Iterator[str]:
    there = ", ".join(f"{name} ({count})" for name, count in sorted(samples.items()))
    for key, split in wanted.items():
        if not samples.get(split):
            yield (
                f"{key} is {split!r}, but {where} has the splits {there}: name one of those, or give the source a "
                "list of samples for the missing one"
            )


def is_done(recipe: Recipe, runs: Sequence[RunConfig], dataset: IngestResult) -> bool:
    """Whether every architecture of the recipe, with its resolved `runs`, was trained and evaluated on this version by
    this code."""
    for run in runs:
        result = finished(run_location(run, version=dataset.version, to=layout.runs_uri(recipe.name)))
        if result is None:
            return False
        folder = location(
            result.weights_sha256,
            label=result.label,
            version=dataset.version,
            config=recipe.evaluate,
            to=layout.evaluations_uri(recipe.name),
        )
        if finished_report(folder) is None:
            return False
    return True
