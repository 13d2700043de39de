"""What a dataset version holds, for a person who must trust it: label contract, fingerprint, warnings, contact sheet.

Behind `segpipe data inspect` and `segpipe data diff`. Reads manifests and fingerprints; only the contact sheet reads
images, a few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from segpipe import storage
from segpipe.errors import InputError
from segpipe.report import choosing
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import datasets, layout
from segpipe.stages import fingerprint as fingerprints
from segpipe.stages.numbers import split_order
from segpipe.types import Annotation, Manifest, Sample, SplitFingerprint

SHEET_ROWS = 3
Outline = Sequence[tuple[str, bool]]  # of a split: (group, whether there is a label map) of each sample


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One class of the contract. `raw_values` are what its files call it; the mappings go by split.

    `shares` are of the labelled pixels, None where the dataset has objects only; `objects` are without crowds.
    """

    class_id: int
    name: str
    colour: tuple[int, int, int]
    is_thing: bool
    raw_values: tuple[int, ...]
    shares: Mapping[str, float | None]
    images: Mapping[str, int]
    objects: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRow:
    """One split. `unlabelled` are samples without label map in a dataset that has them, `ignored` is the share of the
    pixels of its label maps, None where there is none; `sizes` are the most frequent first; mean and std of red, green,
    blue in 0..1."""

    name: str
    samples: int
    unlabelled: int
    groups: int
    ignored: float | None
    sizes: tuple[tuple[str, int], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    objects_by_size: tuple[int, int, int]
    crowds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """A dataset version, told. `sheet` is the file of the contact sheet, if one was asked for."""

    name: str
    uri: str
    version: str
    source: str
    licence: str
    annotations: tuple[str, ...]
    ignore_index: int
    ignored_values: tuple[int, ...]
    rules: tuple[str, ...]
    classes: tuple[ClassRow, ...]
    splits: tuple[SplitRow, ...]
    warnings: tuple[str, ...]
    quarantined: Mapping[str, int]
    proposal: Mapping[str, Any]
    reasons: Mapping[str, str]
    sheet: str | None


def inspect(
    uri: str, *, version: str | None = None, sheet: str | None = None, split: str | None = None, rows: int = SHEET_ROWS
) -> Inspection:
    """Tells what a version of the dataset at `uri` holds; with `sheet`, draws `rows` samples of `split`, or of each
    split, into that file.

    Raises InputError where there is no such dataset, version or split, or where the file is there already.
    """
    uri = datasets.found(uri)
    dataset = open_dataset(uri, version=version)
    manifest, seen = dataset.manifest, fingerprints.load(uri, dataset.version)
    proposal = fingerprints.propose(manifest, seen)
    outline = cache(dataset.outline)
    drawn = None if sheet is None else _draw(dataset, layout.absolute(sheet), split, rows, outline)
    return Inspection(
        name=manifest.dataset,
        uri=uri,
        version=dataset.version,
        source=manifest.source,
        licence=manifest.licence,
        annotations=tuple(str(each) for each in manifest.annotations),
        ignore_index=manifest.ignore_index,
        ignored_values=tuple(raw for raw, mapped in manifest.coding.values if mapped == manifest.ignore_index),
        rules=manifest.coding.rules,
        classes=tuple(_classes(manifest, seen.splits)),
        splits=tuple(_split(name, dataset, seen.splits[name], outline(name)) for name in split_order(manifest.splits)),
        warnings=seen.warnings,
        quarantined=manifest.quarantined,
        proposal=proposal.values,
        reasons=proposal.reasons,
        sheet=drawn,
    )


def _classes(manifest: Manifest, seen: Mapping[str, SplitFingerprint]) -> Iterator[ClassRow]:
    for k, info in enumerate(manifest.classes):
        shares: dict[str, float | None] = {}
        for name, split in manifest.splits.items():
            labelled = sum(split.class_pixels)
            shares[name] = split.class_pixels[k] / labelled if labelled else None
        yield ClassRow(
            class_id=k,
            name=info.name,
            colour=info.colour,
            is_thing=info.is_thing,
            raw_values=tuple(raw for raw, mapped in manifest.coding.values if mapped == k),
            shares=shares,
            images={name: split.images_of_class[k] for name, split in seen.items()},
            objects={name: split.objects_of_class[k] for name, split in seen.items()},
        )


def _split(name: str, dataset: Dataset, seen: SplitFingerprint, outline: Outline) -> SplitRow:
    split = dataset.manifest.splits[name]
    mean, std = fingerprints.mean_and_std(seen)
    labelled = sum(split.class_pixels) + split.ignored_pixels
    return SplitRow(
        name=name,
        samples=split.samples,
        unlabelled=len(_unlabelled(dataset, outline)),
        groups=len({group for group, _ in outline}),
        ignored=split.ignored_pixels / labelled if labelled else None,
        sizes=tuple(sorted(seen.sizes.items(), key=lambda item: (-item[1], item[0]))),
        mean=mean,
        std=std,
        objects_by_size=seen.objects_by_size,
        crowds=seen.crowds,
    )


def _draw(dataset: Dataset, to: str, split: str | None, rows: int, outline: Callable[[str], Outline]) -> str:
    """The contact sheet of samples that lie evenly over each split, or over the one that is asked for."""
    from segpipe.report.contact_sheet import draw_sheet

    manifest = dataset.manifest
    names = split_order(manifest.splits) if split is None else [split]
    if storage.exists(to):
        raise InputError(f"{to}: is there already; name another file for the contact sheet, or remove it")
    picture = draw_sheet(
        dict(_spread(dataset, name, rows, outline) for name in names),
        classes=manifest.classes,
        ignore_index=manifest.ignore_index,
        title=f"{manifest.dataset}, version {dataset.version[:8]}",
        label_maps=Annotation.LABEL_MAP in manifest.annotations,
    )
    storage.write_once(to, picture)
    return to


def _unlabelled(dataset: Dataset, outline: Outline) -> list[int]:
    """The rows without label map, in a dataset that has label maps: an image without objects lacks nothing."""
    if Annotation.LABEL_MAP not in dataset.manifest.annotations:
        return []
    return [row for row, (_, labelled) in enumerate(outline) if not labelled]


def _spread(dataset: Dataset, split: str, rows: int, outline: Callable[[str], Outline]) -> tuple[str, list[Sample]]:
    """The heading of a split, and samples that lie evenly over it: over the labelled ones, where there are any."""
    every, bare = range(dataset.rows(split)), _unlabelled(dataset, outline(split))
    places = sorted(set(every) - set(bare)) or every
    heading = f"split {split}"
    if bare:
        heading += ": no labels" if len(bare) == len(every) else f": no labels in {len(bare)} of {len(every)} samples"
    return heading, list(dataset.read(split, choosing.evenly(places, rows), extras=False))
