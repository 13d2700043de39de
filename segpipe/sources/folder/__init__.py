"""folder: any dataset of photographs and masks; `images/**` and `masks/**` matched by stem, and a classes file.

Splits, by the first rule that fits: lists (splits/*.txt, or train.txt, val.txt, test.txt in the root) of stems or
paths; folders named train, val and test below both trees; else a stable hash of the group, cut by `shares`. The group
is what `group_pattern` finds in the sample id, else the parent folder, else the stem itself; the hash never cuts one.
Files that are not pictures, and hidden ones, are passed over. Image bytes are kept as shipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.folder.classes import read_classes
from segpipe.sources.folder.splits import PICTURES, find_lists, read_lists
from segpipe.sources.reading import coding, empty_splits, hashed_split, parse_shares, passed_over, read_pair, shown
from segpipe.sources.spec import Index, Licence, Shares, SourceInfo
from segpipe.types import Annotation, ClassInfo, LabelCoding, QuarantineEntry, Sample, SampleRef, Task

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}

# What to do about a split that the hash left empty.
UNDEALT = (
    "name the splits in train.txt, val.txt and test.txt, or tell the groups apart by the option group_pattern (without "
    "it a group is the folder of an image)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """A user's dataset, opened by `open_folder`. `table` takes raw mask values to class ids."""

    root: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    table: Mapping[int, int]
    palette: Mapping[tuple[int, int, int], int]
    images: str
    masks: str
    image_suffix: str
    mask_suffix: str
    splits: str
    shares: tuple[float, ...]
    group_pattern: str
    licence: str
    name: str = "folder"
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def coding(self) -> LabelCoding:
        """The mask values of the classes file; colours first become the value of their class."""
        return coding(self.table, *(("RGB masks are read by the colours of the classes file",) if self.palette else ()))

    @property
    def expected(self) -> None:
        """Nobody has written down how many samples there should be."""

    def index(self) -> Index:
        """Pairs images with masks and deals them to splits. Raises InputError where the folders hold no picture."""
        images, masks = self._pictures(self.images, self.image_suffix), self._pictures(self.masks, self.mask_suffix)
        lists = find_lists(self.root, self.splits)
        if lists:
            chosen, refused = read_lists(self.root, lists, images.keys(), self.image_suffix)
            notes = self._unlisted(chosen, images, masks, lists)
        else:
            chosen, refused, notes = self._dealt(images), [], []
            for key in sorted(masks.keys() - images.keys()):
                detail = f"a mask without an image {self.images}/{key}{self.image_suffix}.*: add the image or remove it"
                refused.append(QuarantineEntry(file=masks[key][0], item=key, reason="missing_image", detail=detail))
        refs: list[SampleRef] = []
        for key, split in chosen.items():
            if entry := self._fault(key, images[key], masks.get(key, [])):
                refused.extend(entry)
            else:
                files = (images[key][0], masks[key][0])
                refs.append(SampleRef(sample_id=key, split=split, group=self._group(key), files=files))
        if not lists and not self._in_split_folders(images):
            notes += self._half_split(images)
            notes += empty_splits(refs, self.shares, UNDEALT)
        return Index(sorted(refs, key=lambda ref: (ref.split, ref.sample_id)), refused, tuple(notes))

    def read(self, ref: SampleRef) -> Sample:
        """One image with its label map. Raises BadSampleError."""
        return read_pair(self.root, ref, self.table, palette=self.palette, own="the classes file")

    def _unlisted(
        self,
        chosen: Mapping[str, str],
        images: Mapping[str, list[str]],
        masks: Mapping[str, list[str]],
        lists: Mapping[str, str],
    ) -> list[str]:
        """What the lists leave out, and whoever wrote them may have forgotten."""
        files = [images[key][0] for key in images.keys() - chosen.keys()]
        alone = [masks[key][0] for key in masks.keys() - images.keys()]
        return [
            *passed_over("image(s) that no split list names", files, f"name them in {' or '.join(lists.values())}"),
            *passed_over("mask(s) without an image", alone, f"add the images to {self.images}/, or remove the masks"),
        ]

    def _pictures(self, folder: str, suffix: str) -> dict[str, list[str]]:
        """Path below `folder` without suffix and extension -> the pictures that have it (one, unless ambiguous)."""
        pictures: dict[str, list[str]] = {}
        for path in shown(self.root, folder):
            stem, dot, extension = path.rpartition(".")
            if dot + extension.lower() in PICTURES and stem.endswith(suffix):
                pictures.setdefault(stem.removesuffix(suffix), []).append(f"{folder}/{path}")
        if not pictures:
            ending = f"*{suffix}.jpg or *{suffix}.png"
            raise InputError(
                f"{storage.join(self.root, folder)}: no {ending} here; expected photographs below {self.images}/ and "
                f"masks below {self.masks}/: give the options images, masks, image_suffix, mask_suffix"
            )
        return pictures

    def _fault(self, key: str, images: list[str], masks: list[str]) -> list[QuarantineEntry]:
        """Why a sample cannot be used, found from names alone: one entry for each file concerned."""
        for files in (images, masks):
            if len(files) > 1:
                detail = f"{', '.join(files)} share the id {key!r}: keep one of them"
                return [QuarantineEntry(file=f, item=key, reason="duplicate_id", detail=detail) for f in files]
        if not masks:
            detail = f"no mask {self.masks}/{key}{self.mask_suffix}.png: add it or remove the image"
            return [QuarantineEntry(file=images[0], item=key, reason="missing_mask", detail=detail)]
        if self.group_pattern and not re.search(self.group_pattern, key):
            detail = f"group_pattern {self.group_pattern!r} does not match {key!r}: widen the pattern"
            return [QuarantineEntry(file=images[0], item=key, reason="bad_annotation", detail=detail)]
        return []

    def _group(self, key: str) -> str:
        if self.group_pattern:
            found = re.search(self.group_pattern, key)
            return (found.group(1) if found else None) or key
        parts = key.split("/")[:-1]
        if parts and parts[0] in SPLIT_FOLDERS:
            parts = parts[1:]
        return "/".join(parts) or key

    def _in_split_folders(self, images: Mapping[str, list[str]]) -> bool:
        """Whether every image is below a folder that is called like a split."""
        return {key.partition("/")[0] if "/" in key else "" for key in images} <= SPLIT_FOLDERS.keys()

    def _half_split(self, images: Mapping[str, list[str]]) -> list[str]:
        """What to say where some of the folders are called like splits, and the others keep that from counting."""
        tops = {key.partition("/")[0] if "/" in key else "." for key in images}
        if not (named := tops & SPLIT_FOLDERS.keys()):
            return []
        others = sorted(tops - named)
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        return [
            f"{', '.join(sorted(named))} below {self.images}/ are called like splits, but {shown} beside them not: all "
            "samples are dealt by a hash: rename or move those folders, or write split lists"
        ]

    def _dealt(self, images: Mapping[str, list[str]]) -> dict[str, str]:
        """Splits without lists: by the folders train, val, test, or by the hash of the group."""
        if self._in_split_folders(images):
            return {key: SPLIT_FOLDERS[key.partition("/")[0]] for key in sorted(images)}
        return {key: hashed_split(self._group(key), self.shares) for key in sorted(images)}


def open_folder(
    root: str,
    *,
    images: Annotated[str, "folder of the photographs below the root"] = "images",
    masks: Annotated[str, "folder of the masks below the root"] = "masks",
    image_suffix: Annotated[
        str, "end of a photograph's name before its extension, such as _rgb; the rest is the sample's id"
    ] = "",
    mask_suffix: Annotated[
        str, "end of a mask's name before its extension, such as _mask; the rest is the sample's id"
    ] = "",
    classes: Annotated[
        str, "the classes file, below the root or anywhere; empty: classes.json or classes.txt in the root"
    ] = "",
    splits: Annotated[
        str, "folder of the split lists (train.txt, ...) below the root; else they are looked for in the root"
    ] = "splits",
    shares: Shares = "0.8,0.1,0.1",
    group_pattern: Annotated[
        str, "regular expression whose (...) finds the group in a sample's id; empty: the image's folder"
    ] = "",
    ignore: Annotated[int, "a mask value that means void, besides 255 and those of the classes file; -1: none"] = -1,
    reduce_zero: Annotated[bool, "true for ADE20K's coding: 0 is void and class k is written as k + 1"] = False,
    licence: Licence = "not stated",
) -> Folder:
    """Opens a user's folder. Raises InputError on a bad option or classes file.

    Void is 255 (unless a class has that id), `ignore` and the entries that the classes file marks.
    """
    table = read_classes(root, classes, ignore=ignore, reduce_zero=reduce_zero)
    if splits != "splits" and not storage.list_names(storage.join(root, splits), suffix=".txt"):
        raise InputError(
            f"{root}: option splits={splits!r}: no .txt file in that folder; expected e.g. {splits}/train.txt"
        )
    _check_pattern(group_pattern)
    return Folder(
        root=root,
        classes=table.classes,
        ignore_index=table.ignore_index,
        table=table.table,
        palette=table.palette,
        images=images.strip("/"),
        masks=masks.strip("/"),
        image_suffix=image_suffix,
        mask_suffix=mask_suffix,
        splits=splits.strip("/"),
        shares=parse_shares(shares),
        group_pattern=group_pattern,
        licence=licence,
    )


def _check_pattern(pattern: str) -> None:
    if not pattern:
        return
    try:
        num_groups = re.compile(pattern).groups
    except re.error as error:
        raise InputError(f"option group_pattern={pattern!r}: {error}; expected a regular expression") from error
    if num_groups < 1:
        raise InputError(f"option group_pattern={pattern!r} has no (...): put the part that names the group in it")


INFO = SourceInfo(
    name="folder",
    open=open_folder,
    summary="your own data: images/, masks/ and a classes file, with or without split lists",
    licence="as its owner states (option licence)",
    tasks=(Task.SEMANTIC,),
    layout=("images/**.jpg", "masks/**.png", "classes.txt or classes.json", "{train,val,test}.txt (if any)"),
)
