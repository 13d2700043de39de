"""The datasets of a home: which there are, and which one a person means. Behind every command that is given one."""

from __future__ import annotations

import difflib
import re

from segpipe import storage
from segpipe.errors import InputError
from segpipe.stages import layout

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")  # as a recipe's `dataset.name`


def names() -> list[str]:
    """Every dataset of the home, sorted; also one that is not published yet, or whose first ingest was interrupted."""
    return storage.list_folders(storage.join(layout.home(), "datasets"))


def found(place: str) -> str:
    """The URI of the dataset that `place` means: a path or URI, or the bare name of one in the home.

    A dataset in a folder of that name right here comes first: `ingest --to NAME` makes such a one. A folder that holds
    something else, such as the files that the dataset was made of, does not count. Raises InputError for a bare name
    that neither has.
    """
    here = layout.absolute(place)
    if not _NAME.fullmatch(place) or storage.list_names(storage.join(here, "log"), suffix=".json"):
        return here
    known = names()
    if place in known:
        return layout.dataset_uri(place)
    close = difflib.get_close_matches(place, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InputError(
        f"{place!r}: no dataset here, and none of that name in {layout.home()} (looked for {here} and "
        f"{layout.dataset_uri(place)}); {hint}there are: {', '.join(known) or 'none'}. Give one of these names, or the "
        "folder or URI of a dataset that was ingested elsewhere (--to)"
    )
