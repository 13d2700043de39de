"""What became of a listing, beside its dataset: a small file, so that the same listing again costs no image.

Part of `ingest.py`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from segpipe import reports, storage
from segpipe.config import DatasetConfig
from segpipe.errors import CorruptError, InputError
from segpipe.shards import open_dataset, publish
from segpipe.sources import Source
from segpipe.stages import fingerprint, layout
from segpipe.types import QuarantineEntry, SampleRef
from segpipe.version import code_version

_log = logging.getLogger(__name__)
Status = Literal["published", "already_published"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What became of one listing.

    Its warnings are without the notes of the index, which each ingest makes anew: what they are about is not listed.
    """

    version: str
    splits: Mapping[str, int]
    warnings: tuple[str, ...]
    quarantined: tuple[QuarantineEntry, ...]


def stamps_of(root: str, refs: Sequence[SampleRef]) -> dict[str, str]:
    """The fingerprint of each file that the samples are made of."""
    files = sorted({file for ref in refs for file in ref.files})
    return {file: storage.fingerprint(storage.join(root, file)) for file in files}


def uri_of(
    dataset_uri: str,
    config: DatasetConfig,
    source: Source,
    stamps: Mapping[str, str],
    refs: Sequence[SampleRef],
    refused: Sequence[QuarantineEntry],
) -> str:
    """Where the receipt lies, named by "these files under this config by this code".

    The listing counts with each file's size and time of change. The source's repr stands for what it read besides
    samples, such as a classes file.
    """
    digest = hashlib.sha256()
    # One by one: the polygons of a large dataset are gigabytes of text.
    for part in (config.model_dump(mode="json"), *refs, *refused, *([file, stamp] for file, stamp in stamps.items())):
        digest.update(json.dumps(reports.to_plain(part), sort_keys=True).encode() + b"\n")
    key = layout.key(code_version(), repr(source), digest.hexdigest())
    return storage.join(dataset_uri, "receipts", f"{key}.json")


def find(uri: str, receipt: str) -> tuple[Receipt, Status] | None:
    """What a receipt of the dataset at `uri` says, its version current again if another one came in between.

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
    return told, status


def _forget(receipt: str, why: str) -> None:
    """Removes a receipt: under another version of pyarrow the same listing may come to another one, which it denies."""
    _log.warning("ingesting again, %s", why)
    storage.delete(receipt)
