"""Stage 1: source files -> a published dataset version. Between `sources/` and `shards/`.

The cut into shards depends on the source's sorted listing alone, each shard is named by its content, and the manifest
comes last, so a version is absent or complete, and the same files give the same version on any machine with any number
of workers. On one machine the shards are written by a process per core; with `RAY_ADDRESS` set, by tasks over the
cluster's nodes.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal

from segpipe import reports, storage
from segpipe.config import DatasetConfig, expand_root
from segpipe.errors import BadSampleError, InputError, SegpipeError
from segpipe.shards import SCHEMA_VERSION, ShardResult, make_split, open_dataset, publish, write_shard
from segpipe.sources import Source, open_source
from segpipe.stages import layout
from segpipe.types import Manifest, QuarantineEntry, Sample, SampleRef
from segpipe.version import code_version

Progress = Callable[[int, int], None]
_SHARDS_A_SPLIT, _FEWEST_ROWS, _MOST_ROWS = 8, 32, 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestResult:
    """A dataset version and what was noticed on the way to it."""

    name: str
    uri: str
    version: str
    status: Literal["published", "already_published"]
    splits: dict[str, int]
    quarantined: tuple[QuarantineEntry, ...]
    warnings: tuple[str, ...]
    seconds: float


class QuarantineLimitError(SegpipeError):
    """More samples were bad than the recipe allows; no version was published. `entries` lists them."""

    def __init__(self, message: str, entries: Sequence[QuarantineEntry]) -> None:
        super().__init__(message)
        self.entries = tuple(entries)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """The samples of one shard: what a worker needs to write it, picklable."""

    format: str
    root: str
    options: dict[str, Any]
    refs: tuple[SampleRef, ...]
    split: str
    to: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Written:
    """What a worker made of a part."""

    split: str
    result: ShardResult
    refused: tuple[QuarantineEntry, ...]


def ingest(config: DatasetConfig, *, to: str | None = None, on_progress: Progress | None = None) -> IngestResult:
    """Publishes the source's present content as a version of the dataset at `to` (default: in the home).

    Does nothing when this very listing was ingested before. Bad samples are quarantined, their neighbours published.
    Raises QuarantineLimitError above `config.max_quarantine`, InputError for an empty source or split.
    """
    started = time.perf_counter()
    root, uri = expand_root(config.root), to or layout.dataset_uri(config.name)
    source = open_source(config.format, root, config.options)
    refs, refused = source.index()
    if not refs:
        raise InputError(f"{root or config.format}: no usable sample found ({len(refused)} refused); is this the root?")
    receipt = storage.join(uri, "receipts", f"{_listing_key(config, root, refs, refused)}.json")
    if storage.exists(receipt):
        return _already(config.name, uri, storage.read_json(receipt), started)
    storage.sweep(storage.join(uri, "shards"))
    parts = list(_cut(config, root, refs, uri))
    written = _write_all(parts, on_progress)
    entries = sorted((*refused, *(e for w in written for e in w.refused)), key=lambda e: (e.file, e.item, e.reason))
    _refuse_above_limit(config, entries, len(refs) + len(refused))
    warnings = [*_count_warnings(source, written), *_duplicate_warnings(written)]
    manifest = _manifest(config, source, written, entries, uri)
    version, status = publish(uri, manifest)
    splits = {name: split.samples for name, split in manifest.splits.items()}
    outcome = {"version": version, "splits": splits, "warnings": warnings}
    storage.write_json_once(receipt, outcome | {"quarantined": reports.to_plain(entries)})
    return IngestResult(
        name=config.name,
        uri=uri,
        version=version,
        status=status,
        splits=splits,
        quarantined=tuple(entries),
        warnings=tuple(warnings),
        seconds=time.perf_counter() - started,
    )


def _already(name: str, uri: str, receipt: dict[str, Any], started: float) -> IngestResult:
    version = open_dataset(uri, version=receipt["version"]).version
    return IngestResult(
        name=name,
        uri=uri,
        version=version,
        status="already_published",
        splits=receipt["splits"],
        quarantined=tuple(reports.from_plain(QuarantineEntry, e, origin=uri) for e in receipt["quarantined"]),
        warnings=tuple(receipt["warnings"]),
        seconds=time.perf_counter() - started,
    )


def _listing_key(
    config: DatasetConfig, root: str, refs: Sequence[SampleRef], refused: Sequence[QuarantineEntry]
) -> str:
    """Names "these files under this config by this code": the listing with each file's size and time of change."""
    files = sorted({file for ref in refs for file in ref.files})
    stamps = [[file, storage.fingerprint(storage.join(root, file))] for file in files]
    listing = [config.model_dump(mode="json"), [reports.to_plain(ref) for ref in refs], reports.to_plain(list(refused))]
    return layout.key(code_version(), json.dumps([listing, stamps], sort_keys=True))


def _cut(config: DatasetConfig, root: str, refs: Sequence[SampleRef], uri: str) -> Iterator[_Part]:
    """Neighbours in (split, sample id) order share a shard; enough shards for parallel work, none tiny."""
    for split in sorted({ref.split for ref in refs}):
        mine = [ref for ref in refs if ref.split == split]
        rows = min(_MOST_ROWS, max(_FEWEST_ROWS, math.ceil(len(mine) / _SHARDS_A_SPLIT)))
        for at in range(0, len(mine), rows):
            chunk = tuple(mine[at : at + rows])
            yield _Part(format=config.format, root=root, options=dict(config.options), refs=chunk, split=split, to=uri)


def write_part(part: _Part) -> _Written:
    """Reads one part's samples and writes its shard. Runs in a worker process or on another node."""
    source = open_source(part.format, part.root, part.options)
    refused: list[QuarantineEntry] = []

    def samples() -> Iterator[Sample]:
        for ref in part.refs:
            try:
                yield source.read(ref)
            except BadSampleError as error:
                item = error.item or ref.sample_id
                refused.append(QuarantineEntry(file=error.file, item=item, reason=error.reason, detail=error.detail))

    result = write_shard(samples(), part.to, part.split)
    return _Written(split=part.split, result=result, refused=tuple(refused))


def _write_all(parts: Sequence[_Part], on_progress: Progress | None) -> list[_Written]:
    """All parts' shards, in the order of `parts`, whoever wrote them."""

    def advance(done: int) -> None:
        if on_progress is not None:
            on_progress(sum(len(part.refs) for part in parts[:done]), sum(len(part.refs) for part in parts))

    if os.environ.get("RAY_ADDRESS"):
        from segpipe.train import on_ray  # ray costs seconds to import, and one machine does not need it here

        on_ray.connect()
        return on_ray.fan_out(write_part, parts, on_done=advance)
    workers = min(len(parts), len(os.sched_getaffinity(0)))
    if workers == 1:
        return [write_part(part) for part in parts]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(write_part, part) for part in parts]
        for done, _ in enumerate(as_completed(futures), start=1):
            advance(done)
        return [future.result() for future in futures]


def _refuse_above_limit(config: DatasetConfig, entries: Sequence[QuarantineEntry], found: int) -> None:
    share = len(entries) / found
    if share > config.max_quarantine:
        counts = ", ".join(f"{n} {reason}" for reason, n in Counter(e.reason for e in entries).most_common())
        first = entries[0]
        raise QuarantineLimitError(
            f"{len(entries)} of {found} samples are bad ({share:.1%}; the limit is {config.max_quarantine:.1%}): "
            f"{counts}. First: {first.file}: {first.detail}. Mend them or raise dataset.max_quarantine; nothing was "
            "published",
            entries,
        )


def _manifest(
    config: DatasetConfig, source: Source, written: Sequence[_Written], entries: Sequence[QuarantineEntry], uri: str
) -> Manifest:
    quarantine_path = None
    if entries:
        data = json.dumps(reports.to_plain(list(entries)), indent=1, sort_keys=True).encode()
        quarantine_path = f"quarantine/{storage.sha256_bytes(data)[:20]}.json"
        storage.write_once(storage.join(uri, quarantine_path), data)
    names = sorted({w.split for w in written})
    num_classes = len(source.classes)
    splits = {name: make_split([w.result for w in written if w.split == name], num_classes) for name in names}
    for name, split in splits.items():
        if not split.samples:
            raise InputError(f"split {name!r} of {config.name!r} is empty: every sample of it was refused")
    return Manifest(
        schema_version=SCHEMA_VERSION,
        dataset=config.name,
        source=config.format,
        licence=source.licence,
        classes=source.classes,
        ignore_index=source.ignore_index,
        annotations=source.annotations,
        splits=splits,
        quarantined=dict(sorted(Counter(e.reason for e in entries).items())),
        quarantine_path=quarantine_path,
    )


def _count_warnings(source: Source, written: Sequence[_Written]) -> Iterator[str]:
    """Where a dataset's documentation says how many samples a split has and another number was found."""
    for split, expected in (source.expected or {}).items():
        found = sum(w.result.shard.rows for w in written if w.split == split and w.result.shard)
        if found != expected:
            yield f"split {split!r} has {found} samples, its documentation says {expected}"


def _duplicate_warnings(written: Sequence[_Written]) -> Iterator[str]:
    """Images whose very bytes occur twice: within a split they weigh double, across splits they leak."""
    places: dict[str, list[tuple[str, str]]] = {}
    for part in written:
        for sample_id, image_sha256 in zip(part.result.sample_ids, part.result.image_hashes, strict=True):
            places.setdefault(image_sha256, []).append((part.split, sample_id))
    for same in places.values():
        if len({split for split, _ in same}) > 1:
            yield f"the same image is in several splits: {', '.join(f'{split}/{sid}' for split, sid in sorted(same))}"
