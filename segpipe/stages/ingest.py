"""Stage 1: source files -> a published dataset version. Between `sources/` and `shards/`.

The cut into shards depends on the source's sorted listing alone, each shard is named by its content, and the manifest
comes last, so a version is absent or complete, and the same files give the same version on any machine with any number
of workers. `parts.py` writes the shards in parallel.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from segpipe import reports, storage
from segpipe.config import DatasetConfig, expand_root
from segpipe.errors import CorruptError, InputError
from segpipe.shards import SCHEMA_VERSION, make_split, manifest_version, open_dataset, publish
from segpipe.sources import Source, info_of, open_source
from segpipe.stages import at_work, fingerprint, layout, names, quarantine
from segpipe.stages.cautions import cautions
from segpipe.stages.cut import cut
from segpipe.stages.parts import Part, Progress, Written, write_all
from segpipe.types import Annotation, ClassInfo, LabelCoding, Manifest, QuarantineEntry, SampleRef
from segpipe.version import code_version

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What became of one listing: a small file, so that the same listing again costs no image.

    Its warnings are without the notes of the index, which each ingest makes anew: what they are about is not listed.
    """

    version: str
    splits: Mapping[str, int]
    warnings: tuple[str, ...]
    quarantined: tuple[QuarantineEntry, ...]


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
    stamps = _stamps(root, refs)
    key = _listing_key(config, source, stamps, refs, refused)
    # From the first shard that may be found there already to the manifest that names it.
    with at_work.ingesting(uri):
        for folder in ("shards", "quarantine", "receipts", "fingerprints"):
            storage.sweep(storage.join(uri, folder))
        receipt = storage.join(uri, "receipts", f"{key}.json")
        if (known := _still_there(config.name, uri, receipt, notes, started)) is not None:
            return known
        written = write_all(_parts(config, contract, root, refs, stamps, uri), on_progress)
        result = _publish(config, uri, contract, source.expected, refs, refused, notes, written)
        outcome = Receipt(
            version=result.version,
            splits=result.splits,
            warnings=result.warnings[len(notes) :],
            quarantined=result.quarantined,
        )
        storage.write_json_once(receipt, reports.to_plain(outcome))
    return replace(result, seconds=time.perf_counter() - started)


def _publish(
    config: DatasetConfig,
    uri: str,
    contract: Contract,
    expected: Mapping[str, int] | None,
    refs: Sequence[SampleRef],
    refused: Sequence[QuarantineEntry],
    notes: tuple[str, ...],
    written: Sequence[Written],
) -> IngestResult:
    """What the parts came to, published with its fingerprint and quarantine list. Raises as `ingest`."""
    found = map(names.legible, (*refused, *(e for w in written for e in w.refused)))
    entries = sorted(found, key=lambda e: (e.file, e.item, e.reason))
    quarantine_path = quarantine.keep(entries, uri)
    quarantine.refuse_above_limit(config, entries, len(refs) + len(refused), f"{uri}/{quarantine_path}", notes)
    manifest = _manifest(config, contract, written, entries, quarantine_path)
    seen = fingerprint.make(manifest_version(manifest), written, len(contract.classes))
    warnings = notes + cautions(expected, contract.classes, refs, written, seen, info_of(config.format).options)
    fingerprint.keep(replace(seen, warnings=warnings), uri)
    version, status = publish(uri, manifest)
    return IngestResult(
        name=config.name,
        uri=uri,
        version=version,
        status=status,
        splits={name: split.samples for name, split in manifest.splits.items()},
        quarantined=tuple(entries),
        warnings=warnings,
        seconds=0.0,
    )


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


def _still_there(name: str, uri: str, receipt: str, notes: tuple[str, ...], started: float) -> IngestResult | None:
    """The result that a receipt speaks of, current again if another version came in between.

    None without receipt; None, and the receipt is gone, when it is damaged or files that it speaks of are not there.
    """
    if not storage.exists(receipt):
        return None
    try:
        told = reports.from_plain(Receipt, storage.read_json(receipt), origin=receipt)
    except CorruptError as error:
        _forget(receipt, f"this listing's receipt is damaged: {error}")
        return None
    try:
        dataset = open_dataset(uri, version=told.version)
        # Checks that every shard is there; a log whose last record is this version already stays as it is.
        _, status = publish(uri, dataset.manifest)
    except InputError as error:
        _forget(receipt, f"the dataset has lost files since: {error}")
        return None
    if not fingerprint.is_whole(uri, dataset.version):
        _forget(receipt, "the version's fingerprint is lost or damaged")
        return None
    return IngestResult(
        name=name,
        uri=uri,
        version=dataset.version,
        status=status,
        splits=dict(told.splits),
        quarantined=told.quarantined,
        warnings=notes + told.warnings,
        seconds=time.perf_counter() - started,
    )


def _forget(receipt: str, why: str) -> None:
    """Removes a receipt: under another version of pyarrow the same listing may come to another one, which it denies."""
    _log.warning("ingesting again, %s", why)
    storage.delete(receipt)


def _listing_key(
    config: DatasetConfig,
    source: Source,
    stamps: Mapping[str, str],
    refs: Sequence[SampleRef],
    refused: Sequence[QuarantineEntry],
) -> str:
    """Names "these files under this config by this code": the listing with each file's size and time of change.

    The source's repr stands for what it read besides samples, such as a classes file.
    """
    digest = hashlib.sha256()
    # One by one: the polygons of a large dataset are gigabytes of text.
    for part in (config.model_dump(mode="json"), *refs, *refused, *([file, stamp] for file, stamp in stamps.items())):
        digest.update(json.dumps(reports.to_plain(part), sort_keys=True).encode() + b"\n")
    return layout.key(code_version(), repr(source), digest.hexdigest())


def _stamps(root: str, refs: Sequence[SampleRef]) -> dict[str, str]:
    """The fingerprint of each file that the samples are made of."""
    files = sorted({file for ref in refs for file in ref.files})
    return {file: storage.fingerprint(storage.join(root, file)) for file in files}


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
            raise InputError(f"split {name!r} of {config.name!r} is empty: every sample of it was refused")
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
