"""What changed between two dataset versions: images added, removed, moved, painted over, relabelled; and the classes.

Behind `segpipe data diff`. Compares hashes of images and of annotations, sample by sample; reads no image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from segpipe.shards import Dataset, open_dataset
from segpipe.stages import layout
from segpipe.types import Manifest

_VERSION = re.compile(r"(.+)@([0-9a-f]{8,64})")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassChange:
    """One class by its name: its share of the labelled pixels, all splits; None where the version has no such class."""

    name: str
    old: float | None
    new: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """From one version to another. Samples are "split/id", in the new version where they are in both.

    `moved` changed the split, `repainted` the bytes of the image, `relabelled` any annotation; one sample may be in
    several of the three. `coding` says what raw values mean now that they did not before.
    """

    old_uri: str
    old_version: str
    new_uri: str
    new_version: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: tuple[str, ...]
    repainted: tuple[str, ...]
    relabelled: tuple[str, ...]
    unchanged: int
    coding: tuple[str, ...]
    classes: tuple[ClassChange, ...]


def diff(old: str, new: str) -> Difference:
    """Compares two versions, each given as URI (the newest) or URI@HASH. Raises InputError, CorruptError."""
    before, after = _open(old), _open(new)
    first, second = _samples(before), _samples(after)
    both = sorted(first.keys() & second.keys())
    where = {sample_id: f"{second[sample_id][0]}/{sample_id}" for sample_id in both}
    changed = [tuple(a != b for a, b in zip(first[i], second[i], strict=True)) for i in both]
    return Difference(
        old_uri=before.uri,
        old_version=before.version,
        new_uri=after.uri,
        new_version=after.version,
        added=tuple(sorted(f"{second[i][0]}/{i}" for i in second.keys() - first.keys())),
        removed=tuple(sorted(f"{first[i][0]}/{i}" for i in first.keys() - second.keys())),
        moved=tuple(where[i] for i, (split, _, _) in zip(both, changed, strict=True) if split),
        repainted=tuple(where[i] for i, (_, image, _) in zip(both, changed, strict=True) if image),
        relabelled=tuple(where[i] for i, (_, _, labels) in zip(both, changed, strict=True) if labels),
        unchanged=sum(not any(change) for change in changed),
        coding=tuple(_coding(before.manifest, after.manifest)),
        classes=_classes(before.manifest, after.manifest),
    )


def _open(place: str) -> Dataset:
    named = _VERSION.fullmatch(place)
    return open_dataset(layout.absolute(named[1] if named else place), version=named[2] if named else None)


def _samples(dataset: Dataset) -> dict[str, tuple[str, str, str]]:
    """Sample id -> (split, hash of the image, hash of the annotations)."""
    found: dict[str, tuple[str, str, str]] = {}
    for split in dataset.manifest.splits:
        columns = (dataset.sample_ids(split), dataset.image_hashes(split), dataset.annotation_hashes(split))
        found.update({sample_id: (split, image, labels) for sample_id, image, labels in zip(*columns, strict=True)})
    return found


def _coding(old: Manifest, new: Manifest) -> Iterator[str]:
    """What changed in the meaning of raw values, a line each."""
    before, after = ({raw: _meaning(m, k) for raw, k in m.coding.values} for m in (old, new))
    for raw in sorted(before.keys() | after.keys()):
        was, now = before.get(raw, "unknown"), after.get(raw, "unknown")
        if was != now:
            yield f"value {raw} was {was}, is {now}"
    for rule in dict.fromkeys((*old.coding.rules, *new.coding.rules)):
        if (rule in old.coding.rules) != (rule in new.coding.rules):
            yield f"{'no longer' if rule in old.coding.rules else 'now'}: {rule}"


def _meaning(manifest: Manifest, mapped: int) -> str:
    return "ignored" if mapped == manifest.ignore_index else manifest.classes[mapped].name


def _classes(old: Manifest, new: Manifest) -> tuple[ClassChange, ...]:
    before, after = _shares(old), _shares(new)
    names = dict.fromkeys([*before, *after])
    return tuple(ClassChange(name=name, old=before.get(name), new=after.get(name)) for name in names)


def _shares(manifest: Manifest) -> Mapping[str, float]:
    pixels = [sum(split.class_pixels[k] for split in manifest.splits.values()) for k in range(len(manifest.classes))]
    total = max(1, sum(pixels))
    return {info.name: count / total for info, count in zip(manifest.classes, pixels, strict=True)}
