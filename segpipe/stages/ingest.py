"""Stage 1: source files -> a published dataset version. Between `sources/` and `shards/`.

The cut into shards depends on the source's sorted listing alone, each shard is named by its content, and the manifest
comes last, so a version is absent or complete, and the same files give the same version on any machine with any number
of workers. `listings.py` says what there is, `parts.py` writes the shards in parallel, `receipts.py` knows what was
ingested before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from segpipe import reports, storage
from segpipe.config import DatasetConfig
from segpipe.errors import InputError
from segpipe.shards import SCHEMA_VERSION, make_split, manifest_version, publish
from segpipe.sources import info_of
from segpipe.stages import at_work, fingerprint, layout, listings, names, quarantine, receipts
from segpipe.stages.cautions import cautions
from segpipe.stages.cut import cut
from segpipe.stages.listings import Contract, ListedSource
from segpipe.stages.parts import Part, Progress, Written, write_all
from segpipe.stages.receipts import Receipt, Status
from segpipe.types import Manifest, QuarantineEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestResult:
    """A dataset version and what was noticed on the way to it."""

    name: str
    uri: str
    version: str
    status: Status
    splits: dict[str, int]
    quarantined: tuple[QuarantineEntry, ...]
    warnings: tuple[str, ...]
    seconds: float


def ingest(config: DatasetConfig, *, to: str | None = None, on_progress: Progress | None = None) -> IngestResult:
    """Publishes the source's present content as a version of the dataset at `to` (default: in the home).

    Does nothing when this very listing was ingested before. Bad samples are quarantined, their neighbours published.
    Raises QuarantineLimitError above `config.max_quarantine`, InputError for an empty source or split.
    """
    started = time.perf_counter()
    uri, sources = layout.absolute(to or layout.dataset_uri(config.name)), listings.listed(config)
    contract = listings.agreed(sources)
    notes = tuple(note for each in sources for note in each.notes)
    stamps = [listings.stamps_of(each) for each in sources]
    receipt = receipts.uri_of(uri, config, sources, stamps)
    # From the first shard that may be found there already to the manifest that names it.
    with at_work.ingesting(uri):
        for folder in ("shards", "quarantine", "receipts", "fingerprints"):
            storage.sweep(storage.join(uri, folder))
        if (known := receipts.find(uri, receipt)) is None:
            parts = [part for found in zip(sources, stamps, strict=True) for part in _parts(*found, contract, uri)]
            known = _publish(config, uri, contract, sources, notes, write_all(parts, on_progress))
            storage.write_json_once(receipt, reports.to_plain(known[0]))
    outcome, status = known
    return IngestResult(
        name=config.name,
        uri=uri,
        version=outcome.version,
        status=status,
        splits=dict(outcome.splits),
        quarantined=outcome.quarantined,
        warnings=notes + outcome.warnings,
        seconds=time.perf_counter() - started,
    )


def _publish(
    config: DatasetConfig,
    uri: str,
    contract: Contract,
    sources: Sequence[ListedSource],
    notes: tuple[str, ...],
    written: Sequence[Written],
) -> tuple[Receipt, Status]:
    """What the parts came to, published with its fingerprint and quarantine list. Raises as `ingest`."""
    refs = [ref for each in sources for ref in each.refs]
    refused = [entry for each in sources for entry in each.refused]
    found = map(names.legible, (*refused, *(e for w in written for e in w.refused)))
    entries = sorted(found, key=lambda e: (e.file, e.item, e.reason))
    quarantine_path = quarantine.keep(entries, uri)
    quarantine.refuse_above_limit(config, entries, len(refs) + len(refused), f"{uri}/{quarantine_path}", notes)
    manifest = _manifest(config, contract, written, entries, quarantine_path)
    seen = fingerprint.make(manifest_version(manifest), written, len(contract.classes))
    # What a documentation counts is its own dataset, without additions.
    expected = None if config.additions else sources[0].source.expected
    warnings = cautions(expected, contract.classes, refs, written, seen, info_of(config.format).options)
    fingerprint.keep(replace(seen, warnings=notes + warnings), uri)
    version, status = publish(uri, manifest)
    splits = {name: split.samples for name, split in manifest.splits.items()}
    return Receipt(version=version, splits=splits, warnings=warnings, quarantined=tuple(entries)), status


def _parts(listing: ListedSource, stamps: Mapping[str, str], contract: Contract, uri: str) -> list[Part]:
    sizes = {file: storage.size_in(stamp) for file, stamp in stamps.items()}
    return [
        Part(
            format=listing.format,
            root=listing.root,
            options=dict(listing.options),
            refs=chunk,
            split=chunk[0].split,
            to=uri,
            keeps=contract.annotations,
        )
        for chunk in cut(listing.refs, sizes)
    ]


def _manifest(
    config: DatasetConfig,
    contract: Contract,
    written: Sequence[Written],
    entries: Sequence[QuarantineEntry],
    quarantine_path: str | None,
) -> Manifest:
    split_names = sorted({w.split for w in written})
    num_classes = len(contract.classes)
    splits = {name: make_split([w.result for w in written if w.split == name], num_classes) for name in split_names}
    for name, split in splits.items():
        if not split.samples:
            raise InputError(
                f"split {name!r} of {config.name!r} is empty: every sample of it was refused; {quarantine_path} "
                "in the dataset's folder lists them: mend them, or leave that split out of the source"
            )
    return Manifest(
        schema_version=SCHEMA_VERSION,
        dataset=config.name,
        source=config.format,
        licence=contract.licence,
        classes=contract.classes,
        ignore_index=contract.ignore_index,
        coding=contract.coding,
        annotations=contract.annotations,
        splits=splits,
        quarantined=dict(sorted(Counter(e.reason for e in entries).items())),
        quarantine_path=quarantine_path,
    )
