"""Whether the images of a call are like those that a model was trained and scored on. Below `predict.py` and
`predict_dataset.py`.

What they are held against lies where lineage finds it from the model: the fingerprint of its dataset version, which an
ingest wrote (how the images of its training split look), and the report of its evaluation (what it said of images that
it had not learnt from). Both are counts, a few kilobytes; no image is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from segpipe import drift, storage
from segpipe.drift import Counts, Levels, Shift
from segpipe.errors import InputError, SegpipeError
from segpipe.stages import fingerprint, layout
from segpipe.stages.evaluations import finished_report
from segpipe.stages.images import Chosen
from segpipe.stages.numbers import counted
from segpipe.stages.origins import dataset_of, origin_of, recipe_of

THRESHOLD = drift.THRESHOLD
MOST_NAMED, MOST_SAID = 10, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """What became of the question. `shifts` are all statistics that were compared, those that moved first; `to_label`
    names the images that are least like those of the training, where any statistic moved. `notes` say what could not be
    compared, and why. `experiment` and `dataset` are the model's."""

    has_drifted: bool
    sentence: str
    threshold: float
    images: int
    experiment: str | None
    dataset: str
    shifts: tuple[Shift, ...]
    to_label: tuple[str, ...]
    notes: tuple[str, ...]


def check_threshold(threshold: float) -> None:
    """Raises InputError for one that no distance can be held against."""
    if not 0 < threshold <= 1:
        raise InputError(
            f"the drift threshold is {threshold:g}: expected more than 0 and at most 1, as a Jensen-Shannon distance is"
        )


def told(
    chosen: Chosen,
    images: Callable[[], Iterable[tuple[str, Levels]]],
    *,
    version: str | None,
    threshold: float = THRESHOLD,
) -> Drift:
    """Holds the levels of a call's images, by name, against what the model was trained and scored on; `images` is
    called twice. Of the very version that it was trained on nothing is compared."""
    now, bundle = drift.counted(levels for _, levels in images()), chosen.bundle
    experiment = _experiment(chosen)
    number = max((sum(found.values()) for found in now.values()), default=0)
    notes: list[str] = []
    before: dict[str, dict[str, int]] = {}
    if version != bundle.dataset_version:
        for of, find in (("images", _looks), ("answers", _answers)):
            try:
                before |= {name: dict(found) for name, found in find(chosen).items()}
            except SegpipeError as error:
                notes.append(f"no drift of {of} can be told: {error}")
    shifts = drift.compare(before, now, threshold=threshold)
    moved = [shift for shift in shifts if shift.has_moved]
    named = [shift.statistic for shift in moved]
    unlike = drift.most_unlike(images(), before, now, named, at_most=MOST_NAMED) if moved else ()
    return Drift(
        has_drifted=bool(moved),
        sentence=_sentence(number, shifts, is_trained_on=version == bundle.dataset_version),
        threshold=threshold,
        images=number,
        experiment=experiment,
        dataset=bundle.dataset,
        shifts=shifts,
        to_label=unlike,
        notes=tuple(notes),
    )


def _sentence(images: int, shifts: tuple[Shift, ...], *, is_trained_on: bool) -> str:
    if is_trained_on:
        return "no drift looked for: these images are of the version that the model was trained on"
    if not shifts:
        return "no drift looked for: there is nothing to compare"
    moved = [shift.sentence for shift in shifts if shift.has_moved]
    if not moved:
        return f"no drift in {counted(images, 'image')}: like those of the training by {len(shifts)} statistics"
    more = f"; and {counted(len(moved) - MOST_SAID, 'more statistic')}" if len(moved) > MOST_SAID else ""
    return f"drift: {'; '.join(itertools.islice(moved, MOST_SAID))}{more}"


def _experiment(chosen: Chosen) -> str | None:
    """That of the model's training; None of a bundle without the recipe of its run beside it."""
    try:
        return str(recipe_of(chosen.uri, chosen.bundle)["experiment"])
    except SegpipeError:
        return None


def _looks(chosen: Chosen) -> Counts:
    """Of the training split. Raises InputError where it is gone, or was counted by an earlier segpipe."""
    dataset, split = dataset_of(chosen.bundle), origin_of(chosen.uri).trainings[0].train_split
    found = fingerprint.load(dataset.uri, dataset.version).splits[split].looks
    if found is None:
        raise InputError(
            f"{fingerprint.uri_of(dataset.uri, dataset.version)}: an earlier segpipe wrote it, without counts of how "
            "images look; ingest the same source again"
        )
    return found


def _answers(chosen: Chosen) -> Counts:
    """Of the evaluation of these weights on most images, among those on their own dataset version. Raises InputError
    where there is none."""
    experiment = str(recipe_of(chosen.uri, chosen.bundle)["experiment"])
    place = storage.join(layout.evaluations_uri(experiment), chosen.bundle.dataset_version[:12])
    weights, folders = chosen.bundle.weights_sha256, [storage.join(place, name) for name in storage.list_folders(place)]
    found = [finished_report(folder, weights=weights) for folder in folders]
    own = [each for each in found if each and each.answers]
    if not own:
        raise InputError(
            f"below {place} lies no report of these weights that counts their answers; score the model again "
            f"(`segpipe evaluate` with --experiment {experiment})"
        )
    return max(own, key=lambda report: report.num_samples).answers or {}
