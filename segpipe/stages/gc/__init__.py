"""Removing what nobody needs: old dataset versions, what killed ingests left, the resume state of trainings that
have ended, or that nobody goes on with.

Behind `segpipe data gc`. Looks only, unless it is told to delete.

    named.py       which versions this home names
    dataset.py     what of a dataset may go, and its removal
    runs.py        what of the runs may go
    rehearsals.py  what of the trainings that were tried may go
    outcome.py     what was found, as plain data
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from segpipe import storage
from segpipe.errors import ConflictError, CorruptError, InputError, SegpipeError
from segpipe.shards.versions import versions_logged
from segpipe.stages import at_work, datasets, layout
from segpipe.stages.gc import dataset, rehearsals
from segpipe.stages.gc.named import named_versions
from segpipe.stages.gc.outcome import Collection, Going, Place, Staying

KEEP, MIN_AGE_HOURS = 3, 24.0

__all__ = ["KEEP", "MIN_AGE_HOURS", "Collection", "Going", "Place", "Staying", "collect"]


def collect(
    uri: str | None = None, *, keep: int = KEEP, min_age_hours: float = MIN_AGE_HOURS, delete: bool = False
) -> Collection:
    """Tells what of the dataset at `uri` may go; without one, of every dataset, run and rehearsal of the home. Deletes
    if told so.

    Stays: the current version and the last `keep`, what is younger than `min_age_hours`, every version that something
    in the home names or somebody reads. A dataset on which an ingest is at work is left for later, and told as a
    `problem`; so is a damaged one among the others of the home, and whatever stops a removal half-way, with what had
    gone by then. Raises InputError without such a dataset, CorruptError where it cannot be known what is needed.
    """
    if keep < 1 or min_age_hours < 0:
        raise InputError(f"keep {keep}, min age {min_age_hours}: expected at least one version, and no negative age")
    # Who only looks reads the home's documents once for all datasets; who deletes, anew for each, after its claim.
    named = named_versions if delete else functools.cache(named_versions)
    rules = _Rules(keep=keep, min_age=3600 * min_age_hours, delete=delete, named=named)
    if uri is None:
        every = [layout.dataset_uri(name) for name in datasets.names()]
        places = [_collect_one_of_many(each, rules) for each in every]
        places += [_collect_rehearsals(rules), _collect_runs(rules, every)]
    else:
        places = [_collect_dataset(datasets.found(uri), rules)]
    return Collection(places=tuple(places), deleted=delete, bytes=sum(place.bytes for place in places))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rules:
    """What was asked for; `min_age` in seconds."""

    keep: int
    min_age: float
    delete: bool
    named: Callable[[], Mapping[str, str]]

    def plan(self, uri: str, readers: Sequence[storage.Claim], *, now: float) -> dataset.Plan:
        """Named after our claim: what a training that has just ended left is seen, and one that begins waits."""
        named = self.named()
        return dataset.plan(uri, keep=self.keep, min_age=self.min_age, named=named, readers=readers, now=now)


def _collect_one_of_many(uri: str, rules: _Rules) -> Place:
    """What is wrong with one dataset of a home is no reason to leave the others."""
    try:
        return _collect_dataset(uri, rules)
    except (CorruptError, InputError) as error:
        return Place(uri=uri, going=(), staying=(), deleted=False, problem=str(error))


def _collect_dataset(uri: str, rules: _Rules) -> Place:
    dataset.require(uri)  # before anything is written: a claim would make the folder of a misspelt name
    if not rules.delete:
        found = rules.plan(uri, at_work.readers(uri), now=time.time())
        return Place(uri=uri, going=found.going, staying=found.staying, deleted=False, problem=None)
    gone: list[Going] = []
    staying: tuple[Staying, ...] = ()
    try:
        with at_work.collecting(uri) as (now, readers):
            found = rules.plan(uri, readers, now=now)
            staying = found.staying
            for each in dataset.remove(uri, found):
                gone.append(each)  # one by one: what is told has gone, whatever comes next
    except SegpipeError as error:
        if not gone and not isinstance(error, ConflictError):
            raise
        return Place(uri=uri, going=tuple(gone), staying=staying, deleted=bool(gone), problem=str(error))
    return Place(uri=uri, going=found.going, staying=staying, deleted=True, problem=None)


def _collect_runs(rules: _Rules, dataset_uris: Sequence[str]) -> Place:
    from segpipe.stages.gc import runs  # a dataset need not wait seconds for torch

    uri, before = storage.join(layout.home(), "runs"), time.time() - rules.min_age
    going, staying = runs.look(uri, earlier=_earlier(dataset_uris), before=before)
    return _removed(uri, going, staying, runs.remove(uri, going, before=before) if rules.delete else None)


def _earlier(dataset_uris: Sequence[str]) -> set[str]:
    """The versions that were current in one of the datasets, and are in none. A damaged log says nothing here."""
    earlier, current = set[str](), set[str]()
    for uri in dataset_uris:
        with suppress(CorruptError):
            logged = versions_logged(uri)
            earlier.update(logged[:-1])
            current.update(logged[-1:])
    return earlier - current


def _collect_rehearsals(rules: _Rules) -> Place:
    uri = storage.join(layout.home(), "rehearsals")
    going, staying = rehearsals.look(uri, min_age=rules.min_age, now=time.time())
    return _removed(uri, going, staying, rehearsals.remove(uri, going) if rules.delete else None)


def _removed(
    uri: str, going: Sequence[Going], staying: Sequence[Staying], removal: Iterator[Going | Staying] | None
) -> Place:
    """What went by a removal, as far as it came; what would go, where there is none."""
    if removal is None:
        return Place(uri=uri, going=tuple(going), staying=tuple(staying), deleted=False, problem=None)
    gone: list[Going] = []
    left, problem = list(staying), None
    try:
        for each in removal:
            if isinstance(each, Going):
                gone.append(each)
            else:
                left.append(each)
    except SegpipeError as error:  # the datasets have been seen to by now, and what went of them is still told
        problem = str(error)
    return Place(uri=uri, going=tuple(gone), staying=tuple(left), deleted=not problem or bool(gone), problem=problem)
