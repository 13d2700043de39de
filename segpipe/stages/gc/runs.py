"""What of the runs nobody needs: the resume state of trainings that have ended, whose models stay, and of those that
were paused on a version of their dataset that is no longer current: a retrain is on the newest, in a folder of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from segpipe import checkpoint, storage
from segpipe.errors import ConflictError
from segpipe.stages.gc.outcome import Going, Staying
from segpipe.stages.numbers import file_size
from segpipe.stages.train import CONFIG, DATA, DRIVERS, finished
from segpipe.user import current_user

_ENDED = "the training has ended; its model stays"
_PAUSED = "paused on an earlier version of its dataset; a retrain is on the newest"


def look(runs_uri: str, *, earlier: Collection[str] = (), before: float = 0.0) -> tuple[list[Going], list[Staying]]:
    """The checkpoints that may go and the runs that keep theirs: those that have not ended, unless they are on one of
    the `earlier` versions and were last changed `before` that time. Reads each model once: one that is damaged is made
    again from its checkpoints."""
    sizes: dict[str, int] = {}
    changed: dict[str, float] = {}
    entries = storage.inventory(runs_uri)
    folders = {each.path.removesuffix(f"/{CONFIG}") for each in entries if each.path.endswith(f"/{CONFIG}")}
    for each in entries:
        run, found, _ = each.path.partition("/checkpoints/")
        if found and run in folders:
            sizes[run] = sizes.get(run, 0) + each.bytes
            changed[run] = max(changed.get(run, 0.0), each.changed)
    going, staying = [], []
    for run, size in sorted(sizes.items()):
        run_uri = storage.join(runs_uri, run)
        if finished(run_uri) is not None:
            going.append(Going(path=f"{run}/checkpoints/", bytes=size, why=_ENDED))
        elif changed[run] < before and _version_of(run_uri) in earlier:
            going.append(Going(path=f"{run}/checkpoints/", bytes=size, why=_PAUSED))
        else:
            why = f"not finished: it goes on from here ({file_size(size)})"
            staying.append(Staying(kind="run", name=run, why=why))
    return going, staying


def remove(runs_uri: str, going: list[Going], *, before: float = 0.0) -> Iterator[Going | Staying]:
    """Removes checkpoints, and gives each when it is gone; or the run, when somebody is or was at work on it again."""
    for each in going:
        run = each.path.removesuffix("/checkpoints/")
        run_uri = storage.join(runs_uri, run)
        done: Going | Staying = each
        try:
            with storage.lease(storage.join(run_uri, DRIVERS), what=run_uri, who=current_user()):
                if finished(run_uri) is not None or (each.why == _PAUSED and _is_old(run_uri, before)):
                    checkpoint.drop(run_uri)
                else:
                    done = Staying(kind="run", name=run, why="not finished any more: it goes on from here")
        except ConflictError as error:
            done = Staying(kind="run", name=run, why=str(error))
        yield done
        storage.failpoint("gc.run")


def _version_of(run_uri: str) -> str | None:
    """The dataset version that a run reads. Raises CorruptError: nobody knows which, as `named_versions` says."""
    uri = storage.join(run_uri, DATA)
    return storage.read_json(uri).get("dataset_version") if storage.exists(uri) else None


def _is_old(run_uri: str, before: float) -> bool:
    return all(entry.changed < before for entry in storage.inventory(storage.join(run_uri, "checkpoints")))
