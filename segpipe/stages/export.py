"""A dataset version -> files of a common format. Behind `segpipe export`."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from segpipe import storage
from segpipe.errors import ConflictError, InputError
from segpipe.exports import EXPORTS, Export
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import at_work, datasets, layout
from segpipe.stages.numbers import counted
from segpipe.types import Annotation, Manifest, Sample

Progress = Callable[[int, int], None]
NOTE = "segpipe-export.json"  # what lies in a folder, and of which version


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written where. `left_out` are annotations that the format does not hold, `renamed` the stems of samples
    whose id is no name of a file, `notes` what tools may not expect; `command` ingests it again."""

    dataset: str
    version: str
    format: str
    to: str
    samples: dict[str, int]
    left_out: tuple[str, ...]
    renamed: Mapping[str, str]
    notes: tuple[str, ...]
    command: str


def export(
    data: str,
    format: str,  # noqa: A002 - as on the command line
    to: str,
    *,
    version: str | None = None,
    on_progress: Progress | None = None,
) -> Exported:
    """Writes a version of the dataset at `data` below the folder or URI `to`. The same again changes nothing.

    Raises InputError (unknown format, a dataset without what the format holds, a sample that nobody has labelled),
    ConflictError where other files lie.
    """
    dataset = open_dataset(datasets.found(data), version=version)
    manifest = dataset.manifest
    how = _format(format, manifest, dataset.uri)
    _require_labels(dataset)
    place = layout.absolute(to)
    note = claim_place(place, {"dataset": manifest.dataset, "version": dataset.version, "format": format})
    with at_work.reading(dataset.uri, dataset.version):
        try:
            outcome = how.write(_samples(dataset, on_progress), manifest, place)
        except InputError:
            if storage.list_tree(place) == [NOTE]:  # refused before the first file: the place is free again
                storage.delete(note)
            raise
    source, options = how.read_back
    asked = [word for key, value in options.items() for word in ("--option", f"{key}={value}")]
    return Exported(
        dataset=manifest.dataset,
        version=dataset.version,
        format=format,
        to=place,
        samples={name: split.samples for name, split in manifest.splits.items()},
        left_out=(*(str(each) for each in manifest.annotations if each not in how.keeps), *outcome.unfit),
        renamed=outcome.renamed,
        notes=outcome.notes,
        # Under a name of its own: the format's may be that of a dataset that is there already.
        command=shlex.join(["segpipe", "ingest", source, place, "--name", f"{manifest.dataset}_{format}", *asked]),
    )


def _format(name: str, manifest: Manifest, uri: str) -> Export:
    """The format, which holds something of the dataset at `uri`. Raises InputError."""
    if name not in EXPORTS:
        close = difflib.get_close_matches(name, EXPORTS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"unknown export format {name!r}; {hint}known are: {', '.join(EXPORTS)}")
    how = EXPORTS[name]
    if how.needs not in manifest.annotations:
        has = ", ".join(str(each) for each in manifest.annotations)
        fits = ", ".join(each for each, other in EXPORTS.items() if other.needs in manifest.annotations) or "none"
        raise InputError(f"{uri}: export as {name} needs {how.needs}, the dataset has {has}; it fits: {fits}")
    return how


def _require_labels(dataset: Dataset) -> None:
    """Raises InputError where nobody has labelled some of the samples, such as frames of a clip: formats of objects
    would write them as images without objects."""
    if Annotation.LABEL_MAP not in dataset.manifest.annotations:
        return
    bare: list[str] = []
    for split in dataset.manifest.splits:
        rows = zip(dataset.sample_ids(split), dataset.labelled(split), strict=True)
        bare += [f"{split}/{sample_id}" for sample_id, labelled in rows if not labelled]
    if bare:
        total = sum(split.samples for split in dataset.manifest.splits.values())
        raise InputError(
            f"{dataset.uri}: {len(bare)} of {counted(total, 'sample')} have no label map, {bare[0]} first, and an "
            "export needs one of each; nothing was written. Ingest the labelled samples alone (source `frames`: option "
            "unlabelled=false)"
        )


def _samples(dataset: Dataset, on_progress: Progress | None) -> dict[str, Iterator[Sample]]:
    """The samples of each split, counted as they pass."""
    manifest = dataset.manifest
    total, done = sum(split.samples for split in manifest.splits.values()), 0

    def passing(split: str) -> Iterator[Sample]:
        nonlocal done
        for sample in dataset.samples(split):
            yield sample
            done += 1
            if on_progress is not None:
                on_progress(done, total)

    return {split: passing(split) for split in manifest.splits}


def claim_place(place: str, what: dict[str, str]) -> str:
    """Sees that the place is empty or holds this very export, before anything is written there; gives the note of it.

    Raises ConflictError, which names a file of somebody else's.
    """
    require_free(place)
    note = storage.join(place, NOTE)
    try:
        storage.write_json_once(note, what)
    except ConflictError as error:
        raise ConflictError(
            f"{note}: another export lies there ({storage.read_json(note)}), and nothing was written; "
            "name another folder"
        ) from error
    return note


def require_free(place: str) -> None:
    """Raises ConflictError where files lie that are of no export, before hours are spent on one that cannot be written
    there."""
    if not storage.exists(storage.join(place, NOTE)) and (there := storage.list_tree(place)):
        raise ConflictError(
            f"{place}: holds {counted(len(there), 'file')} already, {there[0]} among them, and no {NOTE}; "
            "nothing was written. Name a folder that is empty or not there yet"
        )
