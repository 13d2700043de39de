"""Whether the images of a call are like those that a model was trained and scored on. Below `predict.py` and
`predict_dataset.py`.

What they are held against lies where lineage finds it from the model: the fingerprint of its dataset version, which an
ingest wrote (how the images of its training split look), and the report of its evaluation (what it said of images that
it had not learnt from). Both are counts, a few kilobytes; no image is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
# What is assumed where nothing is known, as the call that it is said of may change it.
_ONE_GROUP = (
    "the training's images come in groups (drives, patients), and nothing tells groups of these: all count as one. Put "
    "each group into a folder of its own, or ask about a dataset version whose samples have groups"
)
_NO_GROUPS = (
    "each image counts by itself, as the training's have no groups: images of one drive or patient are alike, and may "
    "be told as drift for that"
)
_ITS_OWN = "no drift looked for: these images are of the version that the model was trained on"
_WITHOUT_GROUPS = "an earlier segpipe wrote it, without the groups of its images, which therefore count one by one"


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """What became of the question. `shifts` are all statistics that were compared, those that moved first; `to_label`
    names the images that are least like those of the training, where any statistic moved. It `is_undecided` where none
    moved, and one stands out as far as so few groups let it. `groups` is in how many groups the images were taken; None
    where each counted by itself. `notes` say what could not be compared, and what was assumed. `experiment` and
    `dataset` are the model's."""

    has_drifted: bool
    is_undecided: bool
    sentence: str
    threshold: float
    images: int
    groups: int | None
    experiment: str | None
    dataset: str
    shifts: tuple[Shift, ...]
    to_label: tuple[str, ...]
    notes: tuple[str, ...]


class Before(NamedTuple):
    """What images are held against: counts of images that a model knows, together and by group; no groups where no two
    images share one. `note` says what a file of an earlier segpipe lacks."""

    counts: Counts
    groups: tuple[Counts, ...]
    note: str | None


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
    groups: Mapping[str, str],
    version: str | None,
    threshold: float = THRESHOLD,
) -> Drift:
    """Holds the levels of a call's images, by name, against what the model was trained and scored on; `images` is
    called again and again. `groups` tells what each name belongs to. Of the very version that it was trained on nothing
    is compared."""
    now, bundle = drift.counted(levels for _, levels in images()), chosen.bundle
    number = max((sum(found.values()) for found in now.values()), default=0)
    is_trained_on = version == bundle.dataset_version
    known, notes = ([], []) if is_trained_on else _known(chosen)
    own: Sequence[Counts] = ()
    if any(before.groups for before in known):
        own = drift.counted_by_group((groups[name], levels) for name, levels in images())
        notes += [] if own else [_ONE_GROUP]
        own = own or (now,)
    shifts = _compared(known, now, own, threshold)
    moved, unlike = [shift for shift in shifts if shift.has_moved], tuple[str, ...]()
    if moved:
        joined = {name: levels for before in known for name, levels in before.counts.items()}
        named = [shift.statistic for shift in moved]
        unlike = drift.most_unlike(images(), joined, now, named, at_most=MOST_NAMED)
        notes += [] if own else [_NO_GROUPS]
    of = counted(number, "image") + (f" of {counted(len(own), 'group')}" if own else "")
    return Drift(
        has_drifted=bool(moved),
        is_undecided=not moved and any(shift.is_undecided for shift in shifts),
        sentence=_ITS_OWN if is_trained_on else _sentence(of, shifts, known),
        threshold=threshold,
        images=number,
        groups=len(own) or None,
        experiment=_experiment(chosen),
        dataset=bundle.dataset,
        shifts=shifts,
        to_label=unlike,
        notes=tuple(notes),
    )


def _compared(known: Sequence[Before], now: Counts, own: Sequence[Counts], threshold: float) -> tuple[Shift, ...]:
    """The shifts of all statistics; `own` are the groups of the images, for what is known by group."""
    return drift.in_order(
        shift
        for before in known
        for shift in drift.compare(
            before.counts,
            now,
            groups=(before.groups, own) if before.groups else None,
            threshold=threshold,
            false_alarms=_level(known),
        )
    )


def _level(known: Sequence[Before]) -> float:
    return drift.FALSE_ALARMS / len(known)


def _sentence(of: str, shifts: Sequence[Shift], known: Sequence[Before]) -> str:
    """What came of it, in images `of` how many groups."""
    if not shifts:
        return "no drift looked for: there is nothing to compare"
    if moved := [shift for shift in shifts if shift.has_moved]:
        return f"drift: {_first(moved)}"
    if undecided := [shift for shift in shifts if shift.is_undecided]:
        own = next(before for before in known if undecided[0].statistic in before.counts)
        enough = drift.enough_groups(len(own.groups), _level(known))
        return (
            f"no drift can be told in {of}: so few of them, beside {len(own.groups)} of the training, differ as much "
            f"by chance ({enough} would do). What stands out: {_first(undecided)}"
        )
    return f"no drift in {of}: like those of the training by {len(shifts)} statistics"


def _first(shifts: Sequence[Shift]) -> str:
    more = f"; and {counted(len(shifts) - MOST_SAID, 'more statistic')}" if len(shifts) > MOST_SAID else ""
    return "; ".join(shift.sentence for shift in shifts[:MOST_SAID]) + more


def _experiment(chosen: Chosen) -> str | None:
    """That of the model's training; None of a bundle without the recipe of its run beside it."""
    try:
        return str(recipe_of(chosen.uri, chosen.bundle)["experiment"])
    except SegpipeError:
        return None


def _known(chosen: Chosen) -> tuple[list[Before], list[str]]:
    """What can be held against images, and what cannot, with the reason, or not as well as today."""
    known, notes = list[Before](), list[str]()
    for of, find in (("images", _looks), ("answers", _answers)):
        try:
            known.append(find(chosen))
        except SegpipeError as error:
            notes.append(f"no drift of {of} can be told: {error}")
    return known, notes + [before.note for before in known if before.note]


def _looks(chosen: Chosen) -> Before:
    """Of the training split. Raises InputError where it is gone, or was counted by an earlier segpipe."""
    dataset, split = dataset_of(chosen.bundle), origin_of(chosen.uri).trainings[0].train_split
    uri, found = fingerprint.uri_of(dataset.uri, dataset.version), fingerprint.load(dataset.uri, dataset.version)
    looks, by_group = found.splits[split].looks, found.splits[split].looks_by_group
    if looks is None:
        raise InputError(
            f"{uri}: an earlier segpipe wrote it, without counts of how images look; ingest the same source again"
        )
    lacks = by_group is None and _share(dataset.groups(split))
    note = f"{uri}: {_WITHOUT_GROUPS}; ingest the same source again" if lacks else None
    return Before(looks, by_group or (), note)


def _answers(chosen: Chosen) -> Before:
    """Of the evaluation of these weights on most images, among those on their own dataset version. Raises InputError
    where there is none."""
    experiment = str(recipe_of(chosen.uri, chosen.bundle)["experiment"])
    place = storage.join(layout.evaluations_uri(experiment), chosen.bundle.dataset_version[:12])
    weights, folders = chosen.bundle.weights_sha256, [storage.join(place, name) for name in storage.list_folders(place)]
    found = [finished_report(folder, weights=weights) for folder in folders]
    own = [each for each in found if each and each.answers]
    again = f"score the model again (`segpipe evaluate` with --experiment {experiment})"
    if not own:
        raise InputError(f"below {place} lies no report of these weights that counts their answers; {again}")
    report = max(own, key=lambda each: each.num_samples)
    lacks = report.answers_by_group is None and _share(report.groups)
    note = f"the report of {report.label} below {place}: {_WITHOUT_GROUPS}; {again}" if lacks else None
    return Before(report.answers or {}, report.answers_by_group or (), note)


def _share(groups: Sequence[str]) -> bool:
    """Whether any two images share one."""
    return len(set(groups)) < len(groups)
