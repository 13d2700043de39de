"""Stage 1: source files -> a published dataset version. Between `sources/` and `shards/`.

The cut into shards depends on the source's sorted listing alone, each shard is named by its content, and the manifest
comes last, so a version is absent or complete, and the same files give the same version on any machine with any number
of workers. `parts.py` writes the shards in parallel, `receipts.py` knows what was ingested before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from segpipe import reports, storage
from segpipe.config import DatasetConfig, expand_root
from segpipe.errors import InputError
from segpipe.shards import SCHEMA_VERSION, make_split, manifest_version, publish
from segpipe.sources import Source, info_of, open_source
from segpipe.stages import at_work, fingerprint, layout, names, quarantine, receipts
from segpipe.stages.cautions import cautions
from segpipe.stages.cut import cut
from segpipe.stages.parts import Part, Progress, Written, write_all
from segpipe.stages.receipts import Receipt, Status
from segpipe.types import Annotation, ClassInfo, LabelCoding, Manifest, QuarantineEntry, SampleRef


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What a source says of its labels, taken once: some read it from files, which may change while ingest works."""

    licence: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    coding: LabelCoding
    annotations: tuple[Annotation, ...]


def ingest(config: DatasetConfig, *, to: str | None = None, on_progress: Progress | None = None) -> IngestResult:
    """Publishes the source's present content as a version of the dataset at `to` (default: in the home).

    Does nothing when this very listing was ingested before. Bad samples are quarantined, their neighbours published.
    Raises QuarantineLimitError above `config.max_quarantine`, InputError for an empty source or split.
    """
    started = time.perf_counter()
    root, uri = expand_root(config.root), layout.absolute(to or layout.dataset_uri(config.name))
    source = open_source(config.format, root, config.options)
    contract = _contract(source)
    found = source.index()
    refs, refused = names.checked(found.refs, found.refused)
    notes = tuple(map(names.escaped, found.notes))
    if not refs:
        raise InputError(nothing_usable(root or config.format, refused, notes))
    if _contract(source) != contract:
        raise InputError(
            f"{root}: its classes changed while they were read: run the same again, with nobody at work there"
        )
    stamps = receipts.stamps_of(root, refs)
    receipt = receipts.uri_of(uri, config, source, stamps, refs, refused)
    # From the first shard that may be found there already to the manifest that names it.
    with at_work.ingesting(uri):
        for folder in ("shards", "quarantine", "receipts", "fingerprints"):
            storage.sweep(storage.join(uri, folder))
        if (known := receipts.find(uri, receipt)) is None:
            written = write_all(_parts(config, contract, root, refs, stamps, uri), on_progress)
            known = _publish(config, uri, contract, source.expected, refs, refused, notes, written)
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
    expected: Mapping[str, int] | None,
    refs: Sequence[SampleRef],
    refused: Sequence[QuarantineEntry],
    notes: tuple[str, ...],
    written: Sequence[Written],
) -> tuple[Receipt, Status]:
    """What the parts came to, published with its fingerprint and quarantine list. Raises as `ingest`."""
    found = map(names.legible, (*refused, *(e for w in written for e in w.refused)))
    entries = sorted(found, key=lambda e: (e.file, e.item, e.reason))
    quarantine_path = quarantine.keep(entries, uri)
    quarantine.refuse_above_limit(config, entries, len(refs) + len(refused), f"{uri}/{quarantine_path}", notes)
    manifest = _manifest(config, contract, written, entries, quarantine_path)
    seen = fingerprint.make(manifest_version(manifest), written, len(contract.classes))
    warnings = cautions(expected, contract.classes, refs, written, seen, info_of(config.format).options)
    fingerprint.keep(replace(seen, warnings=notes + warnings), uri)
    version, status = publish(uri, manifest)
    splits = {name: split.samples for name, split in manifest.splits.items()}
    return Receipt(version=version, splits=splits, warnings=warnings, quarantined=tuple(entries)), status


def nothing_usable(where: str, refused: Sequence[QuarantineEntry], notes: Sequence[str]) -> str:
    """What to say of a source in which no sample is left: how many for each reason, the first of the commonest, and the
    notes of its index."""
    first = ""
    if refused:
        reasons = Counter(entry.reason for entry in refused).most_common()
        example = next(entry for entry in refused if entry.reason == reasons[0][0])
        first = f": {', '.join(f'{n} {reason}' for reason, n in reasons)}; first {example.file}: {example.detail}"
    told = "".join(f"\n{note}" for note in notes)
    return (
        f"{where}: no usable sample ({len(refused)} refused{first}); give the folder that holds the samples, or mend "
        f"the source's options{told}"
    )


def _parts(
    config: DatasetConfig, contract: Contract, root: str, refs: Sequence[SampleRef], stamps: Mapping[str, str], uri: str
) -> list[Part]:
    sizes = {file: storage.size_in(stamp) for file, stamp in stamps.items()}
    return [
        Part(format=config.format, root=root, options=dict(config.options), refs=chunk, split=chunk[0].split, to=uri)
        for chunk in cut(refs, sizes)
    ]


def _contract(source: Source) -> Contract:
    """What the source says of its labels, checked. Raises InputError on two classes of one name."""
    contract = Contract(
        licence=source.licence,
        classes=source.classes,
        ignore_index=source.ignore_index,
        coding=source.coding,
        annotations=source.annotations,
    )
    times = Counter(info.name for info in contract.classes)
    if twice := sorted(name for name, count in times.items() if count > 1):
        raise InputError(
            f"source {source.name!r}: two classes are called {twice[0]!r}; expected each name once: rename one"
        )
    return contract


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
