"""Which photographs are of which split, and where the text file of each is. Part of `yolo`.

As Ultralytics has it: data.yaml names folders (with all that is below them) or lists of photographs, and the text file
stands in `labels` for the last `images` of a photograph's path. Only what lies below the root is ever named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from segpipe.errors import InputError
from segpipe.sources.reading import Listing, below, is_inside, read_lines
from segpipe.sources.yolo.description import FILE, Description

SPLIT_MARK = "{split}"
# Ultralytics says train, val and test, Roboflow valid; the long words are what people write.
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Tree(NamedTuple):
    """What there is: all files below the root, the photographs among them, and the `path` of data.yaml."""

    root: str
    files: Collection[str]
    pictures: Collection[str]
    path: str


class Found(NamedTuple):
    """A photograph, the place of its text file (which may not be there), its split, and where that is said."""

    picture: str
    labels: str
    split: str
    said: str


def by_folders(pictures: Collection[str], images: str, labels: str) -> Iterator[Found]:
    """The photographs below `images`, a pattern that holds {split}, with text files below `labels`."""
    for folder, split in SPLIT_FOLDERS.items():
        place, other = images.replace(SPLIT_MARK, folder), labels.replace(SPLIT_MARK, folder)
        for picture in _below(pictures, place):
            stem = picture.removeprefix(f"{place}/").rpartition(".")[0]
            yield Found(picture, f"{other}/{stem}.txt", split, place)


def by_description(tree: Tree, description: Description, listing: Listing) -> Iterator[Found]:
    """The photographs that data.yaml names. A line of a list that names none is refused.

    Raises InputError where `train` or `val` has none; of `test` that is noted: Roboflow writes the line in any case.
    """
    for split, entries in description.splits:
        found = [each for entry in entries for each in _of_entry(tree, entry, split, listing)]
        if not found:
            named = f"{split}: {', '.join(entries)}"
            if split != "test":
                raise InputError(
                    f"{tree.root}/{FILE}: {named}: no JPEG or PNG there (folders that are links are not entered): mend "
                    "the line, or say where the photographs are by the options images and labels"
                )
            listing.pass_over(f"split(s) of {FILE} without a photograph", [named], "fetch them or take out the line")
        yield from found


def labels_of(picture: str) -> str:
    """Where the text file of a photograph is looked for."""
    stem, last = picture.rpartition(".")[0], "/images/"
    head, found, tail = f"/{stem}".rpartition(last)
    return f"{head}/labels/{tail}.txt"[1:] if found else f"{stem}.txt"


def _of_entry(tree: Tree, entry: str, split: str, listing: Listing) -> Iterator[Found]:
    """The photographs of one folder or list."""
    for place in _candidates(entry, tree.path):
        if place in tree.files and place.endswith(".txt"):
            yield from _of_list(tree, place, split, listing)
            return
        if inside := _below(tree.pictures, place):
            yield from (Found(picture, labels_of(picture), split, place or FILE) for picture in inside)
            return


def _of_list(tree: Tree, listed: str, split: str, listing: Listing) -> Iterator[Found]:
    for number, line in enumerate(read_lines(tree.root, listed), start=1):
        if not (text := line.strip()):
            continue
        if text.startswith("./"):  # counts from where the list is
            text = below(listed.rpartition("/")[0], text[2:])
        picture = next((each for each in _candidates(text, tree.path) if each in tree.pictures), None)
        if picture is None:
            detail = f"{text[:120]!r} is no JPEG or PNG below the root: mend the line or add it"
            listing.refuse(listed, f"line {number}", "missing_image", detail)
        else:
            yield Found(picture, labels_of(picture), split, listed)


def _candidates(text: str, path: str) -> Iterator[str]:
    """What a path of data.yaml, or of a list, may mean below the root ("" is the root itself), likeliest first.

    The root is where the file lies, whatever `path` was elsewhere. Of a path that leads out of it, such as Roboflow's
    ../train/images or /content/roofs/train/images, any end may be meant, the longest first.
    """
    parts = _parts(text)
    leads_out = text.startswith("/") or parts[:1] == [".."] or (bool(parts) and parts[0].endswith(":"))
    within = [] if path.startswith("/") else _parts(path)
    ends = [parts[start:] for start in range(len(parts))] if leads_out else [within + parts, parts]
    yield from (place for end in ends if not (place := "/".join(end)) or is_inside(place))


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]


def _below(paths: Collection[str], folder: str) -> list[str]:
    return [path for path in paths if not folder or path.startswith(f"{folder}/")]
