"""How the files of clips are called: `clip/frame.png`, and the order in which people count them. Part of `frames`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from segpipe.sources.reading import Listing, shown

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")
_LAST_NUMBER = re.compile(r"\d+(?=\D*$)")


def pictures(root: str, folder: str, listing: Listing) -> dict[str, str]:
    """Path below `folder` without ending -> path below `root`, of pictures in folders; doubles are refused."""
    found: dict[str, list[str]] = {}
    loose: list[str] = []
    for path in shown(root, folder):
        stem, dot, ending = path.rpartition(".")
        if dot + ending.lower() in ENDINGS:
            (found.setdefault(stem, []) if "/" in path else loose).append(f"{folder}/{path}")
    listing.pass_over("picture(s) in no folder of a clip", loose, f"move them to {folder}/<clip>/")
    for stem, paths in found.items():
        for path in paths if len(paths) > 1 else ():
            listing.refuse(path, stem, "duplicate_id", f"{', '.join(paths)} share the id {stem!r}: keep one")
    return {stem: paths[0] for stem, paths in found.items() if len(paths) == 1}


def folder_of(path: str) -> str:
    """`bmx/1` of `bmx/1/bmx_06668`."""
    return path.rpartition("/")[0]


def name_of(path: str) -> str:
    """`bmx_06668` of `bmx/1/bmx_06668`."""
    return path.rpartition("/")[2]


def in_order(names: Iterable[str]) -> Callable[[str], str]:
    """Pads the last number of a name with zeros, to the longest of `names`: then letters sort as people count."""
    longest = max((len(found[0]) for name in names if (found := _LAST_NUMBER.search(name))), default=0)
    return lambda name: _LAST_NUMBER.sub(lambda found: found[0].zfill(longest), name)
