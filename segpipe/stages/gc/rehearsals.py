"""What of the rehearsals nobody needs: trainings that were tried for some seconds, some time ago.

One saves a minute where its training is begun again with the same data, recipe and code: that is the night after, or
never. Its picture may be looked at the morning after.
"""

from __future__ import annotations

from collections.abc import Iterator

from segpipe import storage
from segpipe.stages.gc.outcome import Going, Staying
from segpipe.stages.numbers import counted


def look(rehearsals_uri: str, *, min_age: float, now: float) -> tuple[list[Going], list[Staying]]:
    """The folders of which nothing was changed in `min_age` seconds until `now`, and that there are younger ones."""
    sizes: dict[str, int] = {}
    changed: dict[str, float] = {}
    for each in storage.inventory(rehearsals_uri):
        folder = each.path.rpartition("/")[0]
        sizes[folder] = sizes.get(folder, 0) + each.bytes
        changed[folder] = max(changed.get(folder, 0.0), each.changed)
    old = [folder for folder in sorted(sizes) if now - changed[folder] >= min_age]
    going = [Going(path=f"{folder}/", bytes=sizes[folder], why="a training tried some time ago") for folder in old]
    young = len(sizes) - len(old)
    why = f"tried less than {min_age / 3600:g} hours ago"
    return going, [Staying(kind="files", name=counted(young, "rehearsal"), why=why)] * bool(young)


def remove(rehearsals_uri: str, going: list[Going]) -> Iterator[Going]:
    """Removes folders, and gives each when it is gone."""
    for each in going:
        storage.delete_tree(storage.join(rehearsals_uri, each.path.rstrip("/")))
        yield each
