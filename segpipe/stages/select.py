"""The images whose labels would teach the most: active learning. Behind `segpipe select`.

`scores.py` asks the models and keeps what they say, `selection/` decides, `labelling.py` writes the folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from segpipe import predict as asking
from segpipe import selection
from segpipe.errors import InputError
from segpipe.selection import Candidate, Choice
from segpipe.shards import open_dataset
from segpipe.stages import datasets, layout, scores
from segpipe.stages.export import require_free
from segpipe.stages.images import Chosen, Images, Request, chosen_model, images_of
from segpipe.stages.labelling import FORMATS, ChosenImage, Folder, Format, Wanted
from segpipe.stages.numbers import counted
from segpipe.stages.scores import Scored
from segpipe.types import Annotation, QuarantineEntry, Task

Progress = Callable[[str, int, int], None]
_TELLS_PIXELS = (Task.SEMANTIC, Task.INSTANCE, Task.PANOPTIC)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many images were not to be chosen: labelled already, the same bytes as another, almost the same as one that
    is taken, of a group of which enough are taken. The last two are of those that were looked at on the way."""

    labelled: int
    repeated: int
    near_copies: int
    group_full: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """What a call came to: of `images`, `asked` answers of models were made now, others were kept from a call before.
    `next_steps` are what a person does now, the last one a command that reads the answers."""

    to: str
    format: Format
    strategy: str
    models: tuple[str, ...]
    weights_sha256: tuple[str, ...]
    images: int
    asked: int
    chosen: tuple[ChosenImage, ...]
    left_out: LeftOut
    quarantined: tuple[QuarantineEntry, ...]
    notes: tuple[str, ...]
    next_steps: tuple[str, ...]
    seconds: float


def select(
    source: str,
    *,
    models: Sequence[str],
    count: int,
    to: str,
    format: Format = "label-studio",  # noqa: A002 - as on the command line
    strategy: str | None = None,
    labelled: Sequence[str] = (),
    per_group: int | None = None,
    spread: int = 2,
    version: str | None = None,
    split: str | None = None,
    window: tuple[int, int] | None = None,
    batch_size: int = 4,
    on_progress: Progress | None = None,
) -> Selected:
    """Writes the `count` images of `source` below `to` of which one model is least sure, or on which several disagree,
    with what the first model proposes for them.

    Those that the datasets `labelled` hold are left out, by the hash of their file; `per_group` and `spread` are those
    of `selection.choose`. The same call again changes nothing. Raises InputError for what cannot be asked,
    ConflictError where something else lies.
    """
    started = time.perf_counter()
    tell = on_progress or (lambda what, done, total: None)
    if format not in FORMATS:
        raise InputError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    committee, how = _committee(models, strategy)
    images, place = images_of(source, version=version, split=split), layout.absolute(to)
    require_free(place)
    asked = _ask(committee, images, unwanted=_labelled(labelled), window=window, batch_size=batch_size, tell=tell)
    candidates, repeated = _candidates(images, asked, how)
    choice = selection.choose(candidates, count, spread=spread, per_group=per_group)
    entries = {entry.item: entry for each in asked for entry in each.refused}
    labelled_already = asked[0].left_out
    if not choice.chosen:
        raise InputError(
            f"{images.root}: none of its {counted(len(images.requests), 'image')} is left to choose from: "
            f"{labelled_already} labelled already, {len(entries)} unusable. Nothing was written"
        )
    names = tuple(each.uri for each in committee)
    folder = Folder(to=place, format=format, proposer=committee[0], window=window, strategy=how, models=names)
    wanted = _wanted(images.requests, candidates, choice, asked[0], how)
    chosen = folder.write(wanted, images, batch_size=batch_size, on_progress=partial(tell, "writing"))
    return Selected(
        to=place,
        format=format,
        strategy=how,
        models=names,
        weights_sha256=tuple(each.bundle.weights_sha256 for each in committee),
        images=len(images.requests),
        asked=sum(each.asked for each in asked),
        chosen=chosen,
        left_out=LeftOut(labelled_already, repeated, choice.near_copies, choice.group_full),
        quarantined=tuple(entries.values()),
        notes=(*images.notes, *_fewer(len(chosen), count), *_unfit(committee[0], format)),
        next_steps=folder.next_steps(),
        seconds=time.perf_counter() - started,
    )


def _ask(
    committee: Sequence[Chosen],
    images: Images,
    *,
    unwanted: frozenset[str],
    window: tuple[int, int] | None,
    batch_size: int,
    tell: Progress,
) -> list[Scored]:
    """The scores of each model, one after the other. Raises InputError where one cannot be asked before any is."""
    for each in committee:
        asking.check_model(each.bundle, window=window, from_dataset=images.version is not None)
    return [
        scores.score(
            each,
            images,
            unwanted=unwanted,
            window=window,
            batch_size=batch_size,
            on_progress=partial(tell, f"{each.label} {each.bundle.weights_sha256[:8]}"),
        )
        for each in committee
    ]


def _committee(models: Sequence[str], strategy: str | None) -> tuple[list[Chosen], str]:
    """The models, and the strategy that is asked for or usual for so many. Raises InputError where they cannot be asked
    so."""
    chosen = [chosen_model(name) for name in models]
    known = selection.COMMITTEE if len(chosen) > 1 else selection.UNCERTAINTY
    how = strategy or next(iter(known))
    if how not in known:
        kinds = f"{', '.join(selection.UNCERTAINTY)} ask one model; {', '.join(selection.COMMITTEE)} several"
        raise InputError(f"strategy {how!r} and {counted(len(chosen), 'model')}: {kinds}")
    first = chosen[0]
    for each in chosen:
        bundle = each.bundle
        if bundle.task not in _TELLS_PIXELS:
            raise InputError(
                f"{each.uri}: {bundle.arch} of task {bundle.task} gives no pixel a class, which is what proposals and "
                f"votes are made of; images are selected by models of {', '.join(_TELLS_PIXELS)}"
            )
        if len(chosen) == 1 and not asking.tells_probabilities(bundle):
            raise InputError(
                f"{each.uri}: {bundle.arch} of task {bundle.task} tells no probability of each class at a pixel, so "
                "that it cannot say how unsure it is; give a semantic network, or several models (--by), whose "
                "disagreement is counted"
            )
        names = [[info.name for info in model.bundle.classes] for model in (first, each)]
        if names[0] != names[1]:
            raise InputError(
                f"{first.uri} knows the classes {names[0]}, {each.uri} {names[1]}; a committee votes on the same ones"
            )
    weights = [each.bundle.weights_sha256 for each in chosen]
    if len(set(weights)) < len(weights):
        raise InputError(f"{', '.join(models)}: two of these are the same model, which never disagrees with itself")
    return chosen, how


def _labelled(sources: Sequence[str]) -> frozenset[str]:
    """The SHA-256 of every image that these datasets hold labelled."""
    found: set[str] = set()
    for name in sources:
        dataset = open_dataset(datasets.found(name))
        for split in dataset.manifest.splits:
            hashes = dataset.image_hashes(split)
            # Frames that nobody has drawn a mask for are waiting for a label, too.
            maps = Annotation.LABEL_MAP in dataset.manifest.annotations
            labelled = dataset.labelled(split) if maps else [True] * len(hashes)
            found.update(each for each, is_labelled in zip(hashes, labelled, strict=True) if is_labelled)
    return frozenset(found)


def _candidates(images: Images, asked: Sequence[Scored], strategy: str) -> tuple[list[Candidate], int]:
    """Every image that all models were asked about, once, and how many were the same bytes as another."""
    groups = images.groups()
    first, *others = asked
    seen: set[str] = set()
    found, repeated = list[Candidate](), 0
    for name, score in first.scores.items():
        if any(name not in other.scores for other in others):
            continue
        if score.image_sha256 in seen:
            repeated += 1
            continue
        seen.add(score.image_sha256)
        if others:
            votes = [scores.read_votes(each.scores[name]) for each in asked]
            value = selection.disagreement(strategy, votes)
        else:
            value = score.uncertainty[strategy]
        found.append(Candidate(name, value, groups[name], int(score.look, 16)))
    return found, repeated


def _wanted(
    requests: Sequence[Request], candidates: Sequence[Candidate], choice: Choice, scored: Scored, strategy: str
) -> list[Wanted]:
    by_name = {request.name: request for request in requests}
    order = sorted(range(len(candidates)), key=lambda at: (-candidates[at].score, candidates[at].name))
    places = {at: place for place, at in enumerate(order, start=1)}
    found = []
    for at in choice.chosen:
        each = candidates[at]
        why = f"{strategy} {each.score:.3f}, place {places[at]} of {len(candidates)}"
        if choice.pool > len(choice.chosen):
            why += f"; among the {len(choice.chosen)} least alike of {choice.pool}"
        found.append(Wanted(by_name[each.name], scored.scores[each.name].image_sha256, each.score, each.group, why))
    return found


def _fewer(chosen: int, count: int) -> Iterator[str]:
    if chosen < count:
        yield f"{chosen} of the {count} images that were asked for: there are no more that are unlike each other"


def _unfit(proposer: Chosen, format: Format) -> Iterator[str]:  # noqa: A002
    if format == "coco" and proposer.bundle.task is Task.SEMANTIC:
        yield (
            "COCO JSON holds objects, and a semantic model learns from label maps: its answers are read as objects; "
            "answers in Label Studio (--format label-studio) are read as label maps too"
        )
