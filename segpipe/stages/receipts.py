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
from segpipe.stages import fingerprint, layout
from segpipe.stages.listings import ListedSource
from segpipe.types import QuarantineEntry
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


def uri_of(
    dataset_uri: str, config: DatasetConfig, listings: Sequence[ListedSource], stamps: Sequence[Mapping[str, str]]
) -> str:
    """Where the receipt lies, named by "these files under this config by this code".

    A listing counts with each file's size and time of change: its `stamps` (`listings.stamps_of`). The source's repr
    stands for what it read besides samples, such as a classes file.
    """
    digest = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode())
    for each, stamp_of in zip(listings, stamps, strict=True):
        # One by one: the polygons of a large dataset are gigabytes of text.
        for part in (*each.refs, *each.refused, *([file, stamp] for file, stamp in stamp_of.items())):
            digest.update(json.dumps(reports.to_plain(part), sort_keys=True).encode() + b"\n")
    key = layout.key(code_version(), *(repr(each.source) for each in listings), digest.hexdigest())
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
