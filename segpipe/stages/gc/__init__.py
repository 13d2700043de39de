"""Removing what nobody needs: old dataset versions, what killed ingests left, the resume state of ended trainings.

Behind `segpipe data gc`. Looks only, unless it is told to delete.

    named.py    which versions this home names
    dataset.py  what of a dataset may go, and its removal
    runs.py     what of the runs may go
    outcome.py  what was found, as plain data
"""

from __future__ import annotations

from segpipe import storage
from segpipe.errors import ConflictError, InputError
from segpipe.shards import open_dataset
from segpipe.stages import at_work, layout
from segpipe.stages.gc import dataset
from segpipe.stages.gc.named import named_versions
from segpipe.stages.gc.outcome import Collection, Going, Place, Staying

KEEP, MIN_AGE_HOURS = 3, 24.0

__all__ = ["KEEP", "MIN_AGE_HOURS", "Collection", "Going", "Place", "Staying", "collect"]


def collect(
    uri: str | None = None, *, keep: int = KEEP, min_age_hours: float = MIN_AGE_HOURS, delete: bool = False
) -> Collection:
    """Tells what of the dataset at `uri` may go; without one, of every dataset and run of the home. Deletes if told so.

    Stays: the current version and the last `keep`, what is younger than `min_age_hours`, every version that something
    in the home names or somebody reads. A dataset on which an ingest is at work is left for later, and told as a
    `problem`. Raises InputError without such a dataset, CorruptError where it cannot be known what is needed.
    """
    if keep < 1 or min_age_hours < 0:
        raise InputError(f"keep {keep}, min age {min_age_hours}: expected at least one version, and no negative age")
    datasets = _datasets() if uri is None else [layout.absolute(uri)]
    places = [_collect_dataset(each, keep=keep, min_age=3600 * min_age_hours, delete=delete) for each in datasets]
    if uri is None:
        places.append(_collect_runs(delete=delete))
    return Collection(places=tuple(places), deleted=delete, bytes=sum(place.bytes for place in places))


def _datasets() -> list[str]:
    """Every dataset of the home."""
    folder = storage.join(layout.home(), "datasets")
    names = {path.partition("/log/")[0] for path in storage.list_tree(folder, suffix=".json") if "/log/" in path}
    return [storage.join(folder, name) for name in sorted(names)]


def _collect_dataset(uri: str, *, keep: int, min_age: float, delete: bool) -> Place:
    open_dataset(uri)  # before anything is written: a claim would make the folder of a misspelt name
    if not delete:
        found = dataset.plan(
            uri, keep=keep, min_age=min_age, named=named_versions(), readers=at_work.readers(uri), mine=None
        )
        return Place(uri=uri, going=found.going, staying=found.staying, deleted=False, problem=None)
    try:
        with at_work.collecting(uri) as (mine, readers):
            # Named after our claim: what a training that has just ended left is seen, and one that begins waits.
            named = named_versions()
            found = dataset.plan(uri, keep=keep, min_age=min_age, named=named, readers=readers, mine=mine)
            dataset.remove(uri, found)
    except ConflictError as error:
        return Place(uri=uri, going=(), staying=(), deleted=False, problem=str(error))
    return Place(uri=uri, going=found.going, staying=found.staying, deleted=True, problem=None)


def _collect_runs(*, delete: bool) -> Place:
    from segpipe.stages.gc import runs  # a dataset need not wait seconds for torch

    uri = storage.join(layout.home(), "runs")
    going, staying = runs.look(uri)
    busy = list(runs.remove(uri, going)) if delete else []
    taken = {each.name for each in busy}
    gone = tuple(each for each in going if each.path.removesuffix("/checkpoints/") not in taken)
    return Place(uri=uri, going=gone, staying=(*staying, *busy), deleted=delete, problem=None)
