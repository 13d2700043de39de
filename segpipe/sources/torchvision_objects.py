"""torchvision's dataset objects -> the source that reads the same files. No format, but another way to name one.

For people who have a `VOCSegmentation(...)` at hand and want the pipeline over it. An object is one split of a dataset;
what it leads to is the dataset with all its splits, so that ingest gives the version that it gives for the folder.
Objects are known by the names of their classes and read by their attributes: nothing here imports torchvision.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segpipe.errors import InputError
from segpipe.sources import open_source
from segpipe.sources.spec import Source

Option = str | int | float | bool
_COCO_FOLDER = re.compile(r"(train|val|test)(.*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """What `open_source` needs to read an object's files, and the splits of the source that the object stands for."""

    format: str
    root: str
    options: Mapping[str, Option]
    splits: tuple[str, ...]


def describe(dataset: Any) -> Described:
    """What a torchvision dataset object stands for. Raises InputError on an object of another kind."""
    names = [kind.__name__ for kind in type(dataset).__mro__]
    for name in names:
        if name in _KINDS:
            return _KINDS[name](dataset)
    part = "a part of a dataset: give the dataset itself, all of it is read" if "Subset" in names else "not known here"
    raise InputError(f"an object of type {names[0]} is {part}; expected torchvision's {', '.join(sorted(_KINDS))}")


def from_torchvision(*datasets: Any, **options: Option) -> Source:
    """The source over the files of torchvision's VOCSegmentation, CocoDetection, Cityscapes or OxfordIIITPet objects.

    Several objects must be splits of one dataset. `options` are the source's own (`segpipe list sources`), over those
    that the objects imply. Raises InputError where they do not agree, or hold other samples than the files do.
    """
    described = describe_all(*datasets, **options)
    source = open_source(described.format, described.root, described.options)
    refs, refused, _ = source.index()
    for dataset in datasets:
        splits = describe(dataset).splits
        found, told = sum(ref.split in splits for ref in refs), len(dataset)
        if not found <= told <= found + len(refused):
            raise InputError(
                f"{described.root}: {type(dataset).__name__} holds {told} samples, the files of {' and '.join(splits)} "
                f"{found} ({len(refused)} refused); was it filtered? All files are read: name them in lists instead"
            )
    return source


def describe_all(*datasets: Any, **options: Option) -> Described:
    """The one dataset that all objects are splits of. Raises InputError where they are not."""
    if not datasets:
        raise InputError("no dataset object; expected one or more splits of one dataset: give at least one")
    each = [describe(dataset) for dataset in datasets]
    first = each[0]
    for other in each[1:]:
        if (other.format, other.root, other.options) != (first.format, first.root, first.options):
            raise InputError(
                f"{other.format} at {other.root} {dict(other.options)} is not a split of {first.format} at "
                f"{first.root} {dict(first.options)}; expected splits of one dataset: take them one by one"
            )
    splits = tuple(dict.fromkeys(split for described in each for split in described.splits))
    return Described(format=first.format, root=first.root, options={**first.options, **options}, splits=splits)


def _voc(dataset: Any) -> Described:
    if not dataset.images:
        raise InputError(f"{dataset.root}: VOCSegmentation of {dataset.image_set!r} holds no image: fetch the dataset")
    root = os.path.dirname(os.path.dirname(str(dataset.images[0])))  # <root>/JPEGImages/2007_000032.jpg
    splits = ("train", "val") if dataset.image_set == "trainval" else (str(dataset.image_set),)
    return Described(format="voc", root=_absolute(root), options={}, splits=splits)


def _cityscapes(dataset: Any) -> Described:
    if dataset.split == "test":
        raise InputError(
            f"{dataset.root}: split 'test' of Cityscapes has no published truth; expected train, val or train_extra"
        )
    options: dict[str, Option] = {"truth": str(dataset.mode), "segments": "instance" in dataset.target_type}
    return Described(format="cityscapes", root=_absolute(dataset.root), options=options, splits=(str(dataset.split),))


def _coco(dataset: Any) -> Described:
    """The object forgets its annFile, so that it must be where COCO puts it, or the option annotations says where."""
    parent, folder = os.path.split(_absolute(dataset.root))
    named = _COCO_FOLDER.fullmatch(folder)
    if named is None:
        raise InputError(
            f"{dataset.root}: the folder does not tell its split; expected train2017, val2017 or alike, with "
            "annotations/instances_train2017.json beside it: ingest the folder as source coco, with its options"
        )
    options: dict[str, Option] = {
        "images": f"{{split}}{named[2]}",
        "annotations": f"annotations/instances_{{split}}{named[2]}.json",
    }
    return Described(format="coco", root=parent, options=options, splits=(named[1],))


def _oxford_pet(dataset: Any) -> Described:
    splits = ("test",) if dataset._split == "test" else ("train", "val")
    return Described(
        format="oxford_pet", root=os.path.join(_absolute(dataset.root), "oxford-iiit-pet"), options={}, splits=splits
    )


def _absolute(root: Any) -> str:
    return os.path.abspath(str(root))


_KINDS: dict[str, Callable[[Any], Described]] = {
    "Cityscapes": _cityscapes,
    "CocoDetection": _coco,
    "OxfordIIITPet": _oxford_pet,
    "VOCSegmentation": _voc,
}
