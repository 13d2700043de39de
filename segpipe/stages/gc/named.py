"""Which dataset versions this home names: by runs, reports, nights, decisions, and what MLflow was not shown yet.

A version that any of these names stays: a champion is judged by its reports, and a report without its data is hearsay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from segpipe import storage
from segpipe.errors import CorruptError
from segpipe.stages import layout

_OF_RUNS = ("/data.json", "/train.json", "/model/model.json")
_KEY = "dataset_version"


def named_versions() -> dict[str, str]:
    """Version, or the 12 digits that an evaluation's folder is named by -> the first file of the home that names it.

    Raises CorruptError for a document that cannot be read: nobody knows which version it names.
    """
    home = layout.home()
    found: dict[str, str] = {}
    for room in ("ledger", "nights", "pending", "runs"):
        for path in storage.list_tree(storage.join(home, room), suffix=".json"):
            if room != "runs" or path.endswith(_OF_RUNS):
                for version in _versions(storage.join(home, room, path)):
                    found.setdefault(version, f"{room}/{path}")
    for path in storage.list_tree(storage.join(home, "evaluations"), suffix="/report.json"):
        found.setdefault(path.split("/")[1], f"evaluations/{path}")
    return found


def _versions(uri: str) -> Iterator[str]:
    try:
        document = storage.read_json(uri)
    except CorruptError as error:
        raise CorruptError(
            f"{error}. Until then nobody knows which dataset version it needs, and none is removed"
        ) from error
    yield from _inside(document)


def _inside(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == _KEY and isinstance(value, str):
                yield value
            else:
                yield from _inside(value)
    elif isinstance(node, list):
        for each in node:
            yield from _inside(each)
