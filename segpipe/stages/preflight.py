"""Before a night's work: what of a recipe can be refused at once, and whether anything is left to do.

Called by `retrain.py` and by every door that takes a recipe, so that a typo costs seconds and not a night.
"""

from __future__ import annotations

from segpipe import models
from segpipe.config import Recipe, expand_root
from segpipe.errors import InputError
from segpipe.sources import open_source
from segpipe.stages import layout
from segpipe.stages.evaluate import location
from segpipe.stages.evaluations import finished_report
from segpipe.stages.identity import resolve
from segpipe.stages.ingest import IngestResult
from segpipe.stages.train import finished, run_location


def check(recipe: Recipe) -> None:
    """Everything that can be refused before any work: architectures with options and weights, source, resources.

    Raises InputError with every fault found, each with its path in the recipe.
    """
    faults = []
    for index in range(len(recipe.architectures)):
        run = recipe.run_config(index)
        try:
            models.check(run.arch, run.options, pretrained=run.pretrained)
        except InputError as error:
            faults.append(f"architectures.{index}: {error}")
        workers = recipe.resources.workers
        if run.train.batch_size % workers:
            faults.append(
                f"architectures.{index}: batch_size {run.train.batch_size} does not divide over resources.workers "
                f"{workers}; choose a multiple"
            )
    try:
        open_source(recipe.dataset.format, expand_root(recipe.dataset.root), recipe.dataset.options)
    except InputError as error:
        faults.append(f"dataset: {error}")
    if faults:
        raise InputError(f"recipe {recipe.name!r}:\n  " + "\n  ".join(faults))


def check_splits(recipe: Recipe, dataset: IngestResult) -> None:
    """Refuses a recipe whose splits the dataset does not have, before anything is trained on the others."""
    wanted = {"evaluate.split": recipe.evaluate.split}
    for index, run in enumerate(recipe.run_configs()):
        wanted[f"architectures.{index}: train.train_split"] = run.train.train_split
        wanted[f"architectures.{index}: train.validation_split"] = run.train.validation_split
    faults = [f"{path} is {split!r}" for path, split in wanted.items() if not dataset.splits.get(split)]
    if faults:
        there = ", ".join(f"{name} ({samples})" for name, samples in dataset.splits.items())
        raise InputError(
            f"recipe {recipe.name!r}: dataset {dataset.name!r} has the splits {there}, but {'; '.join(faults)}. Name "
            "one of those, or give the source a list of samples for the missing split"
        )


def is_done(recipe: Recipe, dataset: IngestResult) -> bool:
    """Whether every architecture of the recipe was trained and evaluated on this version by this code."""
    for index in range(len(recipe.architectures)):
        run = resolve(recipe.run_config(index))
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
