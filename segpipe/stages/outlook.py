"""What a recipe's trainings would come to on its dataset: steps, and crops that the images do not fill.

Behind `segpipe check`, after `preflight.check` has found nothing to refuse. Reads counts and sizes, never an image:
those of the dataset where this source was ingested before; else what `check` has counted in it, and no sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from segpipe import models, storage
from segpipe.config import Recipe, RunConfig
from segpipe.errors import InputError
from segpipe.shards import open_dataset
from segpipe.stages import fingerprint, layout
from segpipe.stages.identity import resolve
from segpipe.stages.numbers import counted
from segpipe.stages.train import finished, run_location
from segpipe.train import counting
from segpipe.types import Manifest

FEW_STEPS = 200  # after fewer a net has hardly left its start


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """One entry: optimiser steps that are left, 0 of a model that does not learn by descent, is of others' weights or
    is trained already; what a person should look at before a night is spent on it; and `aside`, that it is trained,
    where its weights come from or how it learns, if not from the beginning and by descent."""

    label: str
    steps: int
    notes: tuple[str, ...]
    aside: str = ""


def outlook(recipe: Recipe, listed: Mapping[str, int]) -> list[Outlook]:
    """One entry an architecture, in the recipe's order; `listed` are the samples of each split of the source.

    Raises InputError where a training would have no step, and as opening the dataset does.
    """
    samples, sizes, version = dict(listed), dict[str, dict[str, int]](), None
    uri = layout.dataset_uri(recipe.dataset.name)
    if storage.list_names(storage.join(uri, "log")):
        dataset = open_dataset(uri)
        if _is_of(dataset.manifest, recipe.dataset.format, listed):
            samples, version = {name: split.samples for name, split in dataset.manifest.splits.items()}, dataset.version
            seen = fingerprint.load(uri, dataset.version)
            sizes = {name: dict(split.sizes) for name, split in seen.splits.items()}
    trained = [version is not None and _is_trained(run, version, recipe) for run in recipe.run_configs()]
    found = [_of_run(*each, samples, sizes) for each in zip(recipe.run_configs(), trained, strict=True)]
    # Not refused before a night, in which the others go on without it: data may come to be too little for one.
    idle = [f"architectures.{at}: {each.notes[0]}" for at, each in enumerate(found) if not each.steps and each.notes]
    if idle:
        raise InputError(recipe.named(f"recipe {recipe.name!r}:\n  " + "\n  ".join(idle)))
    return found


def _is_of(manifest: Manifest, source: str, listed: Mapping[str, int]) -> bool:
    """Whether a version may be of what the source lists now: not of another root or state, whose counts differ by more
    than was quarantined."""
    published = {name: split.samples for name, split in manifest.splits.items()}
    refused = sum(listed.values()) - sum(published.values())
    return (
        manifest.source == source
        and published.keys() == listed.keys()
        and all(published[name] <= listed[name] for name in listed)
        and refused <= sum(manifest.quarantined.values())
    )


def _is_trained(run: RunConfig, version: str, recipe: Recipe) -> bool:
    runs = layout.runs_uri(recipe.name)
    if not any(name.startswith(f"{run.label}-") for name in storage.list_folders(runs)):
        return False  # at no cost: to resolve a run may take building its model
    return finished(run_location(resolve(run), version=version, to=runs)) is not None


def _of_run(
    run: RunConfig, is_trained: bool, samples: Mapping[str, int], sizes: Mapping[str, Mapping[str, int]]
) -> Outlook:
    way = "descent" if run.members else models.spec(run.arch).learns_by
    if run.members:
        aside = f"made of {', '.join(member.label for member in run.members)}"
    elif run.trained_as:
        aside = f"takes the weights of {run.trained_as.label}: their training is the same"
    elif way != "descent":  # whole images, each once: nothing of what follows
        learns = "learns nothing" if way == "nothing" else f"learns by {way}"
        aside = f"{learns}: of train it takes {', '.join(counting.TAKEN)} alone"
    elif is_trained:
        aside = "is trained already, on what was ingested last; where the source has changed since, it is trained anew"
    else:
        return _of_descent(run, samples, sizes)
    return Outlook(label=run.label, steps=0, notes=(), aside=aside)


def _of_descent(run: RunConfig, samples: Mapping[str, int], sizes: Mapping[str, Mapping[str, int]]) -> Outlook:
    train = run.train
    found = samples.get(train.train_split, 0)
    steps = train.steps(found)
    notes = (
        *_steps(found, train.batch_size * train.accumulate, steps, train.epochs),
        *_crop(train.augment.crop, train.input_scale, sizes.get(train.train_split, {})),
    )
    aside = "" if run.start_from is None else f"starts from the weights of {run.start_from.label}"
    return Outlook(label=run.label, steps=steps, notes=notes, aside=aside)


def _steps(samples: int, in_a_step: int, steps: int, epochs: int) -> Iterator[str]:
    if not steps:
        yield (
            f"{counted(samples, 'sample does', 'samples do')} not fill one step of {in_a_step}: nothing would be "
            "trained; lower batch_size or accumulate"
        )
    elif steps < FEW_STEPS:
        told = f"{counted(steps, 'step')} in {counted(epochs, 'epoch')} of {counted(samples, 'sample')}"
        yield f"only {told}: raise epochs, or lower batch_size"


def _crop(crop: tuple[int, int], scale: float, sizes: Mapping[str, int]) -> Iterator[str]:
    """Where most of the images, at the scale at which the model sees them, do not fill the crop."""
    smaller = 0
    for size, count in sizes.items():
        width, height = (scale * int(side) for side in size.split("x"))
        smaller += count * (height < crop[0] or width < crop[1])
    if sizes and 2 * smaller > sum(sizes.values()):
        seen = f"{fingerprint.usual_size(sizes)} pixels" + (f" at input_scale {scale:g}" if scale != 1 else "")
        yield (
            f"augment.crop {crop[0]}x{crop[1]} (height x width) is larger than {smaller} of {sum(sizes.values())} "
            f"images (most are {seen}, width x height): the rest is padding, of which nothing is learnt"
        )
