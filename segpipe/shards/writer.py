"""Samples -> one immutable shard, and the shards of a split -> its part of a manifest.

The bytes of a shard depend on its samples (and the versions of pyarrow and zstd) alone: no clock, host, path or thread.
Shards are named by content, so a rerun finds everything there and changes nothing.
"""

from __future__ import annotations

import bisect
import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segpipe import storage
from segpipe.errors import InputError
from segpipe.shards.counting import count_ids
from segpipe.shards.grouping import GROUP_BYTES, GROUP_ROWS, grouped
from segpipe.shards.manifest import shard_path
from segpipe.shards.schema import SCHEMA, map_width, sample_to_row
from segpipe.types import IGNORE_8BIT, IGNORE_16BIT, Sample, Shard, Split

EMPTY_BYTES = 8192  # schema, footer and the pages' heads: what a shard takes beside its images and maps, at the least
SIZE_BOUNDS = (32**2, 96**2)  # COCO's: an object is small below the first, large from the second on
ByClass = tuple[tuple[int, int], ...]  # (class id, number), sorted: pairs, since the keys of JSON are texts
# Only label maps of these widths exist: the ignored id is the largest that fits.
_IGNORED = {1: IGNORE_8BIT, 2: IGNORE_16BIT}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardResult:
    """What one `write_shard` wrote, with its statistics by class id; `shard` is None when there were no samples.

    Of each class id that occurs, `class_pixels` counts the pixels of that class, `image_pixels` the labelled pixels of
    the images that hold it, and `images_of_class` and `objects_of_class` are as in `SplitFingerprint`, with
    `objects_by_size`, `crowds` and `sizes`. `sample_ids`, `groups` and `image_hashes` (SHA-256 of the image file, hex)
    are in row order.
    """

    shard: Shard | None
    class_pixels: ByClass
    image_pixels: ByClass
    ignored_pixels: int
    images_of_class: ByClass
    objects_of_class: ByClass
    objects_by_size: tuple[int, int, int]
    crowds: int
    sizes: Mapping[str, int]
    sample_ids: tuple[str, ...]
    groups: tuple[str, ...]
    image_hashes: tuple[str, ...]


def write_shard(
    samples: Iterable[Sample],
    to_uri: str,
    split: str,
    *,
    group_bytes: int = GROUP_BYTES,
    group_rows: int = GROUP_ROWS,
) -> ShardResult:
    """Writes the samples, in their order, as one shard of the dataset at `to_uri`. Holds one row group in memory.

    A row group takes at most `group_bytes` and `group_rows`. The frames of a clip, which must follow each other, are
    never cut: a clip that is larger is a row group of its own, up to 1 GiB. Raises what `samples` raises, InputError (a
    sample that is not consistent, or twice there; a clip in pieces or above that; unwritable destination),
    StorageFullError, UnreachableError. Then nothing is left behind.
    """
    folder = storage.join(to_uri, "shards")
    shard_path(split, "")  # an unusable name must fail before the work
    tally = _Tally()
    with storage.scratch(near=folder) as scratch:
        file = scratch / "shard.parquet"
        groups = grouped((tally.row(sample) for sample in samples), group_bytes, group_rows)
        row_groups = _write_rows(groups, file, folder, tally)
        if not row_groups:
            return tally.result(None)
        sha256 = storage.sha256_file(str(file))
        shard = Shard(
            path=shard_path(split, sha256),
            rows=sum(row_groups),
            bytes=storage.size(str(file)),
            sha256=sha256,
            row_groups=tuple(row_groups),
        )
        storage.failpoint("shard.written")
        storage.commit_file(file, storage.join(to_uri, shard.path))
    storage.failpoint("shard.committed")
    return tally.result(shard)


def make_split(results: Sequence[ShardResult], num_classes: int) -> Split:
    """One split of a manifest from the results of its shards, in their order.

    Raises InputError when a label map holds a class id of `num_classes` or more: the source mapped it wrongly.
    """
    class_pixels: Counter[int] = Counter()
    image_pixels: Counter[int] = Counter()
    for result in results:
        class_pixels.update(dict(result.class_pixels))
        image_pixels.update(dict(result.image_pixels))
    if class_pixels and max(class_pixels) >= num_classes:
        wrong = max(class_pixels)
        raise InputError(
            f"label maps hold class id {wrong} in {class_pixels[wrong]} pixels; expected ids below {num_classes} or "
            "the ignored id: the source must map its raw ids to class ids"
        )
    shards = tuple(result.shard for result in results if result.shard is not None)
    return Split(
        samples=sum(shard.rows for shard in shards),
        shards=shards,
        class_pixels=tuple(class_pixels[k] for k in range(num_classes)),
        image_pixels=tuple(image_pixels[k] for k in range(num_classes)),
        ignored_pixels=sum(result.ignored_pixels for result in results),
    )


def _write_rows(groups: Iterable[list[dict[str, Any]]], file: Path, uri: str, tally: _Tally) -> list[int]:
    """Writes the Parquet file; gives the rows of each row group."""
    row_groups = []

    def needed() -> int:
        return tally.payload + EMPTY_BYTES

    with storage.writing(uri, needed):
        writer = pq.ParquetWriter(
            file, SCHEMA, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True
        )
    try:
        for rows in groups:
            table = pa.Table.from_pylist(rows, schema=SCHEMA)
            with storage.writing(uri, needed):
                writer.write_table(table, row_group_size=len(rows))
            row_groups.append(len(rows))
            # One group in memory, not two; and the next one's pages are this one's, which the system need not clear.
            del rows, table
            storage.failpoint("shard.group")
        with storage.writing(uri, needed):
            writer.close()
    except BaseException:
        # The first error tells the story; an unclosed writer would try again, and warn, when it is collected.
        with contextlib.suppress(OSError):
            writer.close()
        raise
    return row_groups


@dataclass(kw_only=True)
class _Tally:
    """The statistics of a shard while its samples go by."""

    class_pixels: Counter[int] = field(default_factory=Counter)
    image_pixels: Counter[int] = field(default_factory=Counter)
    ignored_pixels: int = 0
    images_of_class: Counter[int] = field(default_factory=Counter)
    objects_of_class: Counter[int] = field(default_factory=Counter)
    objects_by_size: list[int] = field(default_factory=lambda: [0, 0, 0])
    crowds: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    image_hashes: dict[str, str] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    payload: int = 0

    def row(self, sample: Sample) -> dict[str, Any]:
        row = sample_to_row(sample)
        if sample.sample_id in self.image_hashes:
            raise InputError(f"sample {sample.sample_id!r} comes twice; its source must give each id once")
        self.image_hashes[sample.sample_id] = row["image_sha256"].hex()
        self.groups.append(sample.group)
        self.payload += len(row["image"]) + len(row["label_map"] or b"") + len(row["segment_map"] or b"")
        self.payload += sum(len(data) for data in sample.extras.values())
        self.sizes[f"{sample.width}x{sample.height}"] += 1
        seen = self._count(sample, sample.label_map) if sample.label_map is not None else set()
        self.images_of_class.update(seen | {segment.class_id for segment in sample.segments})
        for segment in sample.segments:
            self.crowds += segment.is_crowd
            if not segment.is_crowd:
                self.objects_of_class[segment.class_id] += 1
                self.objects_by_size[bisect.bisect_right(SIZE_BOUNDS, segment.area)] += 1
        return row

    def result(self, shard: Shard | None) -> ShardResult:
        return ShardResult(
            shard=shard,
            class_pixels=_by_class(self.class_pixels),
            image_pixels=_by_class(self.image_pixels),
            ignored_pixels=self.ignored_pixels,
            images_of_class=_by_class(self.images_of_class),
            objects_of_class=_by_class(self.objects_of_class),
            objects_by_size=(self.objects_by_size[0], self.objects_by_size[1], self.objects_by_size[2]),
            crowds=self.crowds,
            sizes=dict(self.sizes),
            sample_ids=tuple(self.image_hashes),
            groups=tuple(self.groups),
            image_hashes=tuple(self.image_hashes.values()),
        )

    def _count(self, sample: Sample, label_map: bytes) -> set[int]:
        """Counts the pixels of a label map; gives the classes that it holds."""
        width = map_width(sample, "label_map", label_map)
        if width not in _IGNORED:
            raise InputError(f"sample {sample.sample_id!r}: label_map has {width} bytes an id; class ids take 1 or 2")
        pixels = sample.height * sample.width
        counts = count_ids(label_map, pixels)
        ignored = counts.pop(_IGNORED[width], 0)
        self.ignored_pixels += ignored
        self.class_pixels.update(counts)
        self.image_pixels.update(dict.fromkeys(counts, pixels - ignored))
        return set(counts)


def _by_class(counts: Mapping[int, int]) -> ByClass:
    return tuple(sorted(counts.items()))
