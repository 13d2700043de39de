"""What a model says of many images, as a new dataset version: Parquet in, Parquet out. Behind the `predict` flow and
`segpipe predict --into`.

A dataset version, and no store of another kind: so every command that reads one (inspect, diff, export, evaluate, a
training on what was predicted) reads predictions too, they are immutable and have a hash, and there is no second format
to keep. The price is a copy of the images, which a version holds as well.

    <dataset>/shards/<split>-<hash>.parquet     one for each part: a row group of the source, or some of its files
    <dataset>/predicted/<key>.json              what became of a part: written after its shard

Parts are spread over a Ray cluster, and named by what decides them, so that a run that was killed goes on with the
parts that are missing; the version is published when all are there.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Literal

from segpipe import drift, reports, storage
from segpipe import predict as asking
from segpipe.errors import CorruptError, InputError
from segpipe.evaluate import one_thread
from segpipe.predict import Refused
from segpipe.predictions import surest
from segpipe.shards import SCHEMA_VERSION, make_split, manifest_version, open_dataset, publish, write_shard
from segpipe.stages import at_work, fingerprint, layout, quarantine
from segpipe.stages import drift as drifting
from segpipe.stages.drift import THRESHOLD, Drift
from segpipe.stages.images import NO_SPLIT, Chosen, Images, Reader, Request, chosen_model, entry_of, splits_of
from segpipe.stages.parts import Written
from segpipe.types import Fingerprint, ImageLook, LabelCoding, Manifest, QuarantineEntry, Sample, Task
from segpipe.version import code_version

Progress = Callable[[int, int], None]
SOURCE = "predict"  # of the versions that are made here, in the place of a format that people label in
FILES_A_PART = 64  # of photographs as many as a row group holds: seconds to a few minutes of a core


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedPart:
    """What a worker needs to predict one part, picklable. `key` names what decides its outcome."""

    model: str
    root: str
    version: str | None
    split: str | None
    requests: tuple[Request, ...]
    to: str
    key: str
    window: tuple[int, int] | None
    least_score: float
    batch_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PartOutcome:
    """What became of a part, as its record tells: what an ingest's worker gives of one, and what its images count as
    when drift is looked for (`drift.in_columns`)."""

    written: Written
    levels: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedDataset:
    """The version that a call made, or found: of `parts`, `kept` were there. `uncertainty`: whether samples tell it.
    `images_per_second` counts those of the parts that were made now, over the whole call; None where none was."""

    name: str
    uri: str
    version: str
    status: Literal["published", "already_published"]
    model: str
    weights_sha256: str
    splits: dict[str, int]
    parts: int
    kept: int
    uncertainty: bool
    quarantined: tuple[QuarantineEntry, ...]
    notes: tuple[str, ...]
    seconds: float
    images_per_second: float | None
    drift: Drift


def predict_dataset(
    model: str,
    source: str,
    *,
    name: str,
    to: str | None = None,
    version: str | None = None,
    split: str | None = None,
    window: tuple[int, int] | None = None,
    least_score: float = 0.5,
    batch_size: int = 4,
    drift_threshold: float = THRESHOLD,
    runtime: Literal["ray", "local"] = "ray",
    on_progress: Progress | None = None,
) -> PredictedDataset:
    """Predicts on every image of `source` (a dataset, one split of it, a folder) and publishes a version of the dataset
    `name` (in the home, or at `to`) whose labels are the model's.

    Objects of a score below `least_score` are no labels. Of `drift_threshold` tells `drift.py`. Raises InputError for
    what cannot be asked, for a model that has no masks to store, for a dataset that holds anything but predictions, and
    where no image is left.
    """
    started = time.perf_counter()
    drifting.check_threshold(drift_threshold)
    chosen = chosen_model(model)
    sources = splits_of(source, version=version, split=split)
    _check(chosen, sources[0], window, least_score)
    uri = layout.absolute(to or layout.dataset_uri(name))
    _check_place(uri, sources[0])
    parts = [part for images in sources for part in _parts(chosen, images, uri, window, least_score, batch_size)]
    with ExitStack() as held:
        held.enter_context(at_work.ingesting(uri))
        if sources[0].version:
            held.enter_context(at_work.reading(sources[0].root, sources[0].version))
        outcomes, missing = _outcomes(parts, runtime, on_progress)
        written = [outcome.written for outcome in outcomes]
        entries = tuple(entry for each in written for entry in each.refused)
        manifest = _manifest(name, chosen, sources, least_score, written, quarantine.keep(entries, uri))
        fingerprint.keep(_fingerprint(manifest, written), uri)
        published, status = publish(uri, manifest)
    found = _drift(chosen, outcomes, sources[0].version, drift_threshold)
    seconds, asked = time.perf_counter() - started, sum(len(part.requests) for part in missing)
    return PredictedDataset(
        name=name,
        uri=uri,
        version=published,
        status=status,
        model=chosen.uri,
        weights_sha256=chosen.bundle.weights_sha256,
        splits={each: found.samples for each, found in manifest.splits.items()},
        parts=len(parts),
        kept=len(parts) - len(missing),
        uncertainty=asking.tells_doubt(chosen.bundle),
        quarantined=entries,
        notes=tuple(note for images in sources for note in images.notes),
        seconds=seconds,
        images_per_second=asked / seconds if asked else None,
        drift=found,
    )


def _fingerprint(manifest: Manifest, written: Sequence[Written]) -> Fingerprint:
    """Of the splits that are left: one whose images were all refused is none."""
    own = [each for each in written if each.split in manifest.splits]
    return fingerprint.make(manifest_version(manifest), own, len(manifest.classes))


def _levels(outcomes: Sequence[PartOutcome]) -> Iterator[tuple[str, drift.Levels]]:
    """What each image of the parts counts as, named as in the version: its split and its id."""
    for outcome in outcomes:
        made = outcome.written
        for sample_id, levels in zip(made.result.sample_ids, drift.in_rows(outcome.levels), strict=True):
            yield f"{made.split}/{sample_id}", levels


def _drift(chosen: Chosen, outcomes: Sequence[PartOutcome], version: str | None, threshold: float) -> Drift:
    groups = {
        f"{each.written.split}/{sample_id}": group
        for each in outcomes
        for sample_id, group in zip(each.written.result.sample_ids, each.written.result.groups, strict=True)
    }
    levels = partial(_levels, outcomes)
    return drifting.told(chosen, levels, groups=groups, version=version, threshold=threshold)


def predict_part(part: PredictedPart) -> PartOutcome:
    """Predicts one part and writes its shard, then its record. Runs on a worker; on a CPU in one thread, so that the
    same part has the same bytes wherever it is made."""
    reader = _reader(part.root, part.version, part.split)
    refused: list[QuarantineEntry] = []
    looks, levels = list[ImageLook](), list[drift.Levels]()
    load = partial(_loaded, part.model, part.window)

    def samples() -> Iterator[Sample]:
        asked = asking.answers(load, part.requests, reader.picture, batch_size=part.batch_size)
        with one_thread(), closing(asked):
            for request, outcome in asked:
                if isinstance(outcome, Refused):
                    refused.append(entry_of(request, outcome))
                elif outcome is not None:
                    bundle = load().bundle
                    looks.append(asking.look_at(outcome))
                    levels.append(asking.levels_of(outcome, looks[-1], bundle))
                    yield asking.sample_with(
                        reader.sample(outcome, request),
                        surest(outcome.prediction, part.least_score),
                        num_classes=len(bundle.classes),
                        ignore_index=bundle.ignore_index,
                    )

    split = part.split or NO_SPLIT
    result = write_shard(samples(), part.to, split)
    written = Written(split=split, result=result, looks=tuple(looks), refused=tuple(refused))
    outcome = PartOutcome(written=written, levels=drift.in_columns(levels))
    storage.failpoint("predict.part")
    # In place of one that is damaged, or whose shard is gone.
    storage.replace(_record_uri(part), storage.canonical_json(reports.to_plain(outcome)))
    return outcome


@functools.lru_cache(maxsize=1)
def _loaded(uri: str, window: tuple[int, int] | None) -> asking.Model:
    """One model a process: a worker is given part after part."""
    return asking.load(uri, window=window, unsure=True)


@functools.lru_cache(maxsize=1)
def _reader(root: str, version: str | None, split: str | None) -> Reader:
    """One reader a process: it checks the hash of a shard once, and a shard is many parts."""
    return Reader(root, version=version, split=split)


def _check(chosen: Chosen, images: Images, window: tuple[int, int] | None, least_score: float) -> None:
    task = chosen.bundle.task
    if not 0 <= least_score <= 1:
        raise InputError(f"least_score {least_score}: is a score from 0 to 1, below which an object is no label")
    if task not in asking.FILLS:
        raise InputError(
            f"{chosen.uri}: {chosen.bundle.arch} of task {task} gives no masks, which a dataset version of predictions "
            f"stores; it takes models of {', '.join(asking.FILLS)}. `segpipe predict --output coco` writes what it says"
        )
    asking.check_model(chosen.bundle, window=window, from_dataset=images.version is not None)


def _check_place(uri: str, images: Images) -> None:
    """Whoever trains on what people labelled takes the newest version: that must never be what a model says."""
    if uri == images.root:
        raise InputError(f"{uri}: is the dataset that is read; give what is predicted a name of its own")
    if storage.last_record(storage.join(uri, "log")) is None:
        return
    there = open_dataset(uri)
    if there.manifest.source != SOURCE:
        raise InputError(
            f"{uri}: holds what people labelled (version {there.version[:12]}, of format {there.manifest.source!r}), "
            "and predictions would be its newest version; give what is predicted a name of its own"
        )


def _parts(
    chosen: Chosen, images: Images, to: str, window: tuple[int, int] | None, least_score: float, batch_size: int
) -> Iterator[PredictedPart]:
    """One for each row group of a split, or for some files."""
    sizes: Sequence[int] = [FILES_A_PART] * -(-len(images.requests) // FILES_A_PART)
    if images.version and images.split:
        sizes = open_dataset(images.root, version=images.version).row_groups(images.split)
    stamps = {} if images.version else storage.fingerprints(images.root, [each.file for each in images.requests])
    for first, rows in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False):
        own = images.requests[first : first + rows]
        # Whether a file was touched since; of one that is gone, that it is.
        content = [f"{each.file}\0{stamps.get(each.file, 'gone')}" for each in own if not images.version]
        asked = str((first, rows, window, least_score, batch_size))
        key = layout.key(chosen.bundle.weights_sha256, code_version(), images.identity, asked, *content)
        yield PredictedPart(
            model=chosen.uri,
            root=images.root,
            version=images.version,
            split=images.split,
            requests=own,
            to=to,
            key=key,
            window=window,
            least_score=least_score,
            batch_size=batch_size,
        )


def _outcomes(
    parts: Sequence[PredictedPart], runtime: Literal["ray", "local"], on_progress: Progress | None
) -> tuple[list[PartOutcome], list[PredictedPart]]:
    """What became of every part, in order, and the parts that were missing and are made now."""
    found = {part.key: known for part in parts if (known := _known(part)) is not None}
    missing = [part for part in parts if part.key not in found]
    made = _run(missing, parts, runtime, on_progress)
    found |= {part.key: outcome for part, outcome in zip(missing, made, strict=True)}
    return [found[part.key] for part in parts], missing


def _run(
    missing: Sequence[PredictedPart],
    parts: Sequence[PredictedPart],
    runtime: Literal["ray", "local"],
    on_progress: Progress | None,
) -> list[PartOutcome]:
    """Makes the parts that are missing; their outcomes, in order."""
    total = sum(len(part.requests) for part in parts)
    left = sum(len(part.requests) for part in missing)

    def advance(done: int) -> None:
        if on_progress is not None:  # of parts that end in another order, about
            on_progress(total - left + sum(len(part.requests) for part in missing[:done]), total)

    advance(0)
    if not missing:
        return []
    if runtime == "local":
        made = list[PartOutcome]()
        for part in missing:
            made.append(predict_part(part))
            advance(len(made))
        return made
    from segpipe.train import on_ray  # ray costs seconds to import, and one process does not need it

    on_ray.connect()
    return on_ray.fan_out(predict_part, missing, num_gpus=on_ray.gpu_share(), on_done=advance)


def _known(part: PredictedPart) -> PartOutcome | None:
    """What became of a part, where its record and its shard are there."""
    uri = _record_uri(part)
    if not storage.exists(uri):
        return None
    try:
        found = reports.from_plain(PartOutcome, storage.read_json(uri), origin=uri)
    except CorruptError:
        return None
    shard = found.written.result.shard
    if shard is None:
        return found
    place = storage.join(part.to, shard.path)
    return found if storage.exists(place) and storage.size(place) == shard.bytes else None


def _record_uri(part: PredictedPart) -> str:
    return storage.join(part.to, "predicted", f"{part.key}.json")


def _manifest(
    name: str,
    chosen: Chosen,
    sources: Sequence[Images],
    least_score: float,
    written: Sequence[Written],
    quarantine_path: str | None,
) -> Manifest:
    bundle, first = chosen.bundle, sources[0]
    found = {each.split: [part.result for part in written if part.split == each.split] for each in written}
    made = {split: make_split(results, len(bundle.classes)) for split, results in sorted(found.items())}
    splits = {split: each for split, each in made.items() if each.samples}
    entries = [entry for each in written for entry in each.refused]
    if not splits:
        example = f"; the first: {entries[0].file}: {entries[0].detail}" if entries else ""
        raise InputError(f"{first.root}: none of its images could be used{example}. Nothing was published")
    licence = open_dataset(first.root, version=first.version).manifest.licence if first.version else "of the images"
    return Manifest(
        schema_version=SCHEMA_VERSION,
        dataset=name,
        source=SOURCE,
        licence=licence,
        classes=bundle.classes,
        ignore_index=bundle.ignore_index,
        coding=LabelCoding(
            values=tuple((k, k) for k in range(len(bundle.classes))),
            rules=(
                f"predicted by {bundle.arch} with weights {bundle.weights_sha256}, code {code_version()}",
                f"images of dataset version {first.version}" if first.version else "images of a folder",
                "extra uncertainty, where it is: PNG of 16 bits, 65535 is 1",
                *([f"objects of a score of {least_score:g} or more"] if bundle.task is Task.INSTANCE else []),
            ),
        ),
        annotations=asking.FILLS[bundle.task],
        splits=splits,
        quarantined=dict(sorted(Counter(entry.reason for entry in entries).items())),
        quarantine_path=quarantine_path,
    )
