"""What changed between two dataset versions: images added, removed, moved, painted over, relabelled; and the classes.

Behind `segpipe data diff`. Compares hashes of images and of annotations, sample by sample, and what fingerprints count;
reads no image.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from segpipe.shards import Dataset, open_dataset
from segpipe.stages import datasets, fingerprint
from segpipe.types import Annotation, Manifest

_VERSION = re.compile(r"(.+)@([0-9a-f]{8,64})")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassChange:
    """One class by its name, over all splits: its share of the labelled pixels, and its objects without crowds.

    None where the version has no such class, or no label map (no objects) at all.
    """

    name: str
    old: float | None
    new: float | None
    old_objects: int | None
    new_objects: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One sample that is elsewhere now, each as "split/id"."""

    old: str
    new: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """From one version to another. Samples are "split/id", in the new version where they are in both.

    A sample is the same one by its id, or else by the very bytes of its image, as where the id holds the folder of a
    split. `moved` is in another split now, `renamed` in the same one under another id; `repainted` changed the bytes of
    the image, `relabelled` any annotation; one sample may be in several of them. `coding` says what raw values mean
    now that they did not before.
    """

    old_uri: str
    old_version: str
    new_uri: str
    new_version: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: tuple[Move, ...]
    renamed: tuple[Move, ...]
    repainted: tuple[str, ...]
    relabelled: tuple[str, ...]
    unchanged: int
    coding: tuple[str, ...]
    classes: tuple[ClassChange, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """One sample of a version: where it is, and the hashes of what it holds."""

    sample_id: str
    split: str
    image: str
    labels: str

    @property
    def place(self) -> str:
        return f"{self.split}/{self.sample_id}"


def diff(old: str, new: str) -> Difference:
    """Compares two versions, each given as a dataset (its newest version) or DATASET@HASH, where a dataset is a path, a
    URI or the name of one in the home; or as a model, models:/NAME@champion or models:/NAME/3, for what it was trained
    on. Raises InputError, CorruptError; UnreachableError where MLflow is asked for a version's number and is down."""
    before, after = _open(old), _open(new)
    first, second = _samples(before), _samples(after)
    pairs = [(first[sample_id], second[sample_id]) for sample_id in sorted(first.keys() & second.keys())]
    gone = [first[sample_id] for sample_id in sorted(first.keys() - second.keys())]
    come = [second[sample_id] for sample_id in sorted(second.keys() - first.keys())]
    same = _same_images(gone, come)
    pairs += same
    elsewhere = [(a, b) for a, b in pairs if a.place != b.place]
    return Difference(
        old_uri=before.uri,
        old_version=before.version,
        new_uri=after.uri,
        new_version=after.version,
        added=_places(set(come) - {b for _, b in same}),
        removed=_places(set(gone) - {a for a, _ in same}),
        moved=_moves([(a, b) for a, b in elsewhere if a.split != b.split]),
        renamed=_moves([(a, b) for a, b in elsewhere if a.split == b.split]),
        repainted=_places({b for a, b in pairs if a.image != b.image}),
        relabelled=_places({b for a, b in pairs if a.labels != b.labels}),
        unchanged=sum(a == b for a, b in pairs),
        coding=tuple(_coding(before.manifest, after.manifest)),
        classes=_classes(before, after),
    )


def _open(place: str) -> Dataset:
    if place.startswith("models:/"):
        from segpipe.stages import named_models  # which imports torch: seconds that two datasets need not wait

        return named_models.trained_on(named_models.named_model(place))
    named = _VERSION.fullmatch(place)
    return open_dataset(datasets.found(named[1] if named else place), version=named[2] if named else None)


def _samples(dataset: Dataset) -> dict[str, _Seen]:
    """Sample id -> the sample."""
    found: dict[str, _Seen] = {}
    for split in dataset.manifest.splits:
        columns = (dataset.sample_ids(split), dataset.image_hashes(split), dataset.annotation_hashes(split))
        for sample_id, image, labels in zip(*columns, strict=True):
            found[sample_id] = _Seen(sample_id=sample_id, split=split, image=image, labels=labels)
    return found


def _same_images(gone: list[_Seen], come: list[_Seen]) -> list[tuple[_Seen, _Seen]]:
    """Who of `come` is one of `gone` under another id, by the bytes of the image; each once.

    Of several copies those belong together first whose labels and name are the same, then those with the same labels.
    """
    found: list[tuple[_Seen, _Seen]] = []
    keys: tuple[Callable[[_Seen], tuple[str, ...]], ...] = (
        lambda each: (each.image, each.labels, each.sample_id.rpartition("/")[2]),
        lambda each: (each.image, each.labels),
        lambda each: (each.image,),
    )
    for key in keys:
        waiting: dict[tuple[str, ...], deque[_Seen]] = {}
        for each in gone:
            waiting.setdefault(key(each), deque()).append(each)
        pairs = [(there.popleft(), each) for each in come if (there := waiting.get(key(each)))]
        found += pairs
        taken = {each for pair in pairs for each in pair}
        gone, come = [a for a in gone if a not in taken], [b for b in come if b not in taken]
    return found


def _places(samples: set[_Seen]) -> tuple[str, ...]:
    return tuple(sorted(each.place for each in samples))


def _moves(pairs: list[tuple[_Seen, _Seen]]) -> tuple[Move, ...]:
    return tuple(Move(old=a.place, new=b.place) for a, b in sorted(pairs, key=lambda pair: pair[1].place))


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


def _classes(old: Dataset, new: Dataset) -> tuple[ClassChange, ...]:
    before, after = _shares(old.manifest), _shares(new.manifest)
    objects_before, objects_after = _objects(old), _objects(new)
    return tuple(
        ClassChange(
            name=name,
            old=before.get(name),
            new=after.get(name),
            old_objects=objects_before.get(name),
            new_objects=objects_after.get(name),
        )
        for name in dict.fromkeys([*before, *after])
    )


def _objects(dataset: Dataset) -> Mapping[str, int]:
    """Class -> its objects; empty where the dataset holds none."""
    manifest = dataset.manifest
    if Annotation.SEGMENTS not in manifest.annotations:
        return {}
    splits = fingerprint.load(dataset.uri, dataset.version).splits.values()
    return {info.name: sum(each.objects_of_class[k] for each in splits) for k, info in enumerate(manifest.classes)}


def _shares(manifest: Manifest) -> Mapping[str, float | None]:
    """Class -> its share of the labelled pixels; None where there is no label map."""
    pixels = [sum(split.class_pixels[k] for split in manifest.splits.values()) for k in range(len(manifest.classes))]
    total = sum(pixels)
    return {info.name: count / total if total else None for info, count in zip(manifest.classes, pixels, strict=True)}
