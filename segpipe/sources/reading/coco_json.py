"""COCO's annotation documents, checked: which there are, their categories, their images. Part of `reading`.

Shared by `coco` (objects) and `coco_panoptic` (segments in a PNG), whose sources are made of `Documented`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading.colours import class_colour
from segpipe.sources.reading.files import is_inside, read_document
from segpipe.sources.reading.trees import below, files_below
from segpipe.sources.reading.values import coding, ignored_beside
from segpipe.types import ClassInfo, LabelCoding

SPLIT_MARK = "{split}"
PROPOSED = "proposed_by"  # a key of `info`: the annotations are a model's, and wait for a person
OBJECTS = "annotations/instances_{split}2017.json"
KEYPOINTS = "annotations/person_keypoints_{split}2017.json"
PANOPTIC = "annotations/panoptic_{split}2017.json"
IMAGES = "{split}2017"
SHARES = "0.8,0.1,0.1"
EXPECTED = {"train": 118287, "val": 5000}  # COCO 2017
LICENCE = "annotations CC BY 4.0; each image under its own Flickr licence (cocodataset.org)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """One category: its class id (its place in the file) and how many keypoints its objects have."""

    class_id: int
    info: ClassInfo
    num_keypoints: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageEntry:
    """One entry of `images`, its name known to stay inside the images' folder."""

    file_name: str
    height: int
    width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One annotation file. `images` and `categories` go by COCO's ids; `faults` are entries that cannot be used."""

    path: str
    categories: Mapping[int, Category]
    images: Mapping[int | str, ImageEntry]
    annotations: tuple[Mapping[str, Any], ...]
    faults: tuple[tuple[str, str], ...]

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return tuple(category.info for category in self.categories.values())

    @property
    def ignore_index(self) -> int:
        return ignored_beside(len(self.categories))


@dataclass(frozen=True, kw_only=True, slots=True)
class Documented:
    """What the sources of COCO's documents share: where documents and images are, and what the documents declare.

    `documents` and `images` are patterns below the root that may hold {split}; without it, `shares` deals the images.
    """

    root: str
    documents: str
    images: str
    shares: tuple[float, ...]
    licence: str = LICENCE

    def read_documents(self) -> dict[str, Document]:
        """Split -> document. Raises InputError."""
        return read_documents(self.root, self.documents)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The categories in the order of the files. Raises InputError as `index`."""
        return next(iter(self.read_documents().values())).classes

    @property
    def coding(self) -> LabelCoding:
        first = next(iter(self.read_documents().values()))
        return coding({raw: category.class_id for raw, category in first.categories.items()}, "values are category ids")

    @property
    def ignore_index(self) -> int:
        """255, or 65535 where there are more than 255 classes."""
        return next(iter(self.read_documents().values())).ignore_index

    @property
    def expected(self) -> Mapping[str, int] | None:
        """COCO 2017's counts; none for documents of another name."""
        return EXPECTED if self.documents in (OBJECTS, KEYPOINTS, PANOPTIC) else None


def folder_of(pattern: str, split: str) -> str:
    """The folder below the root that `pattern` means for a split."""
    return pattern.replace(SPLIT_MARK, split).strip("/")


def files_of(root: str, splits: Iterable[str], *patterns: str) -> frozenset[str]:
    """Every file in the folders that `patterns` mean, as paths below the root. Splits may share one: listed once."""
    folders = {folder_of(pattern, split) for pattern in patterns for split in splits}
    return frozenset().union(*(files_below(root, folder) for folder in folders))


def read_documents(root: str, pattern: str) -> dict[str, Document]:
    """Split -> document, for every file that fits `pattern` (with {split}; without, one document whose split is "").

    Raises InputError where no file fits, one is not COCO's, or two have other categories. Parsed once, as
    long as the files stay the same.
    """
    found = _find(root, pattern)
    stamps = tuple(storage.fingerprint(storage.join(root, path)) for path in found.values())
    return _parsed(root, tuple(found.items()), stamps)


@functools.lru_cache(maxsize=1)
def _parsed(root: str, found: tuple[tuple[str, str], ...], stamps: tuple[str, ...]) -> dict[str, Document]:
    """COCO's own take ten seconds to parse, and the classes are asked for before and after the index."""
    documents = {split: _document(root, path) for split, path in found}
    first, *others = documents.values()
    for other in others:
        if other.categories != first.categories:
            raise InputError(
                f"{root}: the categories of {other.path} differ from those of {first.path}; expected one list with one "
                "order for all splits: export them together"
            )
    return documents


def _find(root: str, pattern: str) -> dict[str, str]:
    if SPLIT_MARK not in pattern:
        found = {"": pattern} if storage.exists(storage.join(root, pattern)) else {}
    else:
        before, _, after = pattern.partition(SPLIT_MARK)
        expression = re.compile(re.escape(before) + r"([A-Za-z][A-Za-z0-9_-]{0,31}?)" + re.escape(after))
        folder = before.rpartition("/")[0]  # nothing beside it is listed: images are many
        paths = files_below(root, folder) if "/" in after else _json_files(root, folder)
        found = {match[1]: path for path in sorted(paths) if (match := expression.fullmatch(path))}
    if not found:
        raise InputError(
            f"{root}: no {pattern} here; expected COCO's layout: give the folder that holds annotations/ as root, or "
            "say where the documents and images are by the options annotations and images"
        )
    return found


def _json_files(root: str, folder: str) -> list[str]:
    """The JSON files directly below `folder`, as paths below `root`."""
    names = storage.list_names(storage.join(root, folder) if folder else root, suffix=".json")
    return [below(folder, name) for name in names]


def _document(root: str, path: str) -> Document:
    where = storage.join(root, path)
    document = read_document(root, path)
    if not isinstance(document, dict):
        raise InputError(
            f"{where}: a {type(document).__name__}; expected an object with images, annotations, categories"
        )
    if isinstance(info := document.get("info"), dict) and PROPOSED in info:
        raise InputError(
            f"{where}: holds what {info[PROPOSED]!r:.60} proposes, which nobody has looked at; give the document that "
            f"the annotation tool saved. If that is this one, remove {PROPOSED!r} from its info"
        )
    parts: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        entries = document.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{where}: {key} is {entries!r:.80}; expected a list of objects: export the file again")
        parts[key] = entries
    images: dict[int | str, ImageEntry] = {}
    faults: list[tuple[str, str]] = []
    for number, entry in enumerate(parts["images"]):
        fault = _image_fault(entry)
        if fault is None and entry["id"] in images:
            fault = f"the image id {entry['id']!r} is given twice"
        if fault is not None:
            faults.append((f"images[{number}]", fault))
            continue
        images[entry["id"]] = ImageEntry(file_name=entry["file_name"], height=entry["height"], width=entry["width"])
    return Document(
        path=path,
        categories=dict(_categories(parts["categories"], where)),
        images=images,
        annotations=tuple(parts["annotations"]),
        faults=tuple(faults),
    )


def _image_fault(entry: Mapping[str, Any]) -> str | None:
    if not _is_id(entry.get("id")):
        return f"id is {entry.get('id')!r:.40}; expected a whole number or a name"
    if not is_inside(entry.get("file_name")):
        return f"file_name is {entry.get('file_name')!r:.80}; expected a path inside the images' folder"
    if not all(_is_count(entry.get(key)) for key in ("height", "width")):
        return f"height and width are {entry.get('height')!r:.20} and {entry.get('width')!r:.20}; expected pixels"
    return None


def _categories(entries: list[Any], where: str) -> Iterator[tuple[int, Category]]:
    seen: dict[str, set[Any]] = {"id": set(), "name": set()}
    for class_id, entry in enumerate(entries):
        for key, kind in (("id", int), ("name", str)):
            value = entry.get(key)
            fits = value >= 0 if type(value) is int else bool(value)
            if type(value) is not kind or not fits or value in seen[key]:
                raise InputError(
                    f"{where}: categories[{class_id}].{key} is {value!r:.80}; expected a {kind.__name__}, each once"
                )
            seen[key].add(value)
        colour = entry.get("color")
        if not (isinstance(colour, list) and len(colour) == 3 and all(_is_channel(part) for part in colour)):
            colour = class_colour(class_id + 1)
        is_thing = entry.get("isthing", 1) == 1
        yield (
            entry["id"],
            Category(
                class_id=class_id,
                info=ClassInfo(name=entry["name"], colour=(colour[0], colour[1], colour[2]), is_thing=is_thing),
                num_keypoints=len(entry.get("keypoints") or ()),
            ),
        )
    if not entries:
        raise InputError(f"{where}: categories is empty; expected at least one class: export the file again")


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_channel(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255
