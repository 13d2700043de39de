"""What of the runs nobody needs: the resume state of trainings that have ended. Their models stay."""

from __future__ import annotations

from collections.abc import Iterator

from segpipe import checkpoint, storage
from segpipe.errors import ConflictError
from segpipe.stages.gc.outcome import Going, Staying
from segpipe.stages.numbers import file_size
from segpipe.stages.train import CONFIG, DRIVERS, finished
from segpipe.user import current_user


def look(runs_uri: str) -> tuple[list[Going], list[Staying]]:
    """The checkpoints that may go and the runs that keep theirs. Reads each model once: one that is damaged is made
    again from its checkpoints."""
    sizes: dict[str, int] = {}
    entries = storage.inventory(runs_uri)
    folders = {each.path.removesuffix(f"/{CONFIG}") for each in entries if each.path.endswith(f"/{CONFIG}")}
    for each in entries:
        run, found, _ = each.path.partition("/checkpoints/")
        if found and run in folders:
            sizes[run] = sizes.get(run, 0) + each.bytes
    going, staying = [], []
    for run, size in sorted(sizes.items()):
        if finished(storage.join(runs_uri, run)) is not None:
            going.append(Going(path=f"{run}/checkpoints/", bytes=size, why="the training has ended; its model stays"))
        else:
            why = f"not finished: it goes on from here ({file_size(size)})"
            staying.append(Staying(kind="run", name=run, why=why))
    return going, staying


def remove(runs_uri: str, going: list[Going]) -> Iterator[Going | Staying]:
    """Removes checkpoints, and gives each when it is gone; or the run, when somebody is at work on it again."""
    for each in going:
        run = each.path.removesuffix("/checkpoints/")
        run_uri = storage.join(runs_uri, run)
        done: Going | Staying = each
        try:
            with storage.lease(storage.join(run_uri, DRIVERS), what=run_uri, who=current_user()):
                if finished(run_uri) is not None:
                    checkpoint.drop(run_uri)
                else:
                    done = Staying(kind="run", name=run, why="not finished any more: it goes on from here")
        except ConflictError as error:
            done = Staying(kind="run", name=run, why=str(error))
        yield done
        storage.failpoint("gc.run")
