"""A dataset version -> samples: all of a split once and in order, or any rows in any order.

The whole state of a reader is (epoch, step): `epoch_order` is a pure function, and a resumed run reads on in the same
list. Each shard's hash is checked when it is first opened, and each page's checksum whenever it is read. What a pass
needs next is read in threads meanwhile, at most one block of row groups ahead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from segpipe import storage
from segpipe.errors import CorruptError, InputError
from segpipe.shards.ahead import ahead
from segpipe.shards.counting import COUNTED_COLUMNS, class_pixels, counted_sample
from segpipe.shards.layout import Layout, Place, estimate, layout_of
from segpipe.shards.order import BLOCK_BYTES, GROUPS_PER_BLOCK, epoch_order
from segpipe.shards.peek import peek
from segpipe.shards.row_groups import RowGroups
from segpipe.shards.rows import StoredRow
from segpipe.shards.schema import ANNOTATION_COLUMNS, annotation_hash, row_to_sample
from segpipe.shards.versions import find_version
from segpipe.storage import RetryBudget
from segpipe.types import Manifest, Sample, Shard, Split

# A disk needs few to be busy; before a store most of them wait, and `storage/ranges.py` bounds their requests.
LOCAL_THREADS, REMOTE_THREADS = 2, GROUPS_PER_BLOCK


def open_dataset(uri: str, *, version: str | None = None) -> Dataset:
    """Opens a version of the dataset at `uri`: the current one, or the one whose hash begins with `version` (8 digits).

    Raises InputError when there is no such dataset or version, CorruptError when the manifest differs from its hash.
    """
    found, manifest = find_version(uri, version)
    return Dataset(uri, manifest, found)


class Dataset:
    """One immutable version of a dataset. Cheap to make and to pickle: files are opened when first read.

    `uri`, `manifest` and `version` are read-only. May be read from several threads.
    """

    def __init__(self, uri: str, manifest: Manifest, version: str) -> None:
        self.uri, self.manifest, self.version = uri, manifest, version
        self._row_groups = RowGroups(uri)
        self._layouts: dict[str, Layout] = {}
        self._class_pixels: dict[str, tuple[dict[int, int], ...]] = {}
        self._remote = storage.local_path(uri) is None
        self._threads = REMOTE_THREADS if self._remote else LOCAL_THREADS

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.uri, self.manifest, self.version)

    def __repr__(self) -> str:
        return f"Dataset({self.uri!r}, version={self.version[:12]!r})"

    def rows(self, split: str) -> int:
        """Samples of a split. Raises InputError for a split that does not exist, as all methods do."""
        return self._split(split).samples

    def row_groups(self, split: str) -> tuple[int, ...]:
        """Rows of each row group of a split: what `epoch_order` needs."""
        return tuple(rows for shard in self._split(split).shards for rows in shard.row_groups)

    def order(self, split: str, *, seed: int, epoch: int) -> list[int]:
        """The rows of a split in the order of an epoch, each once: `epoch_order` of this version."""
        layout, rows = self._layout(split), self.row_groups(split)
        sizes = [estimate(place) for place in layout.places]
        return epoch_order(rows, seed=seed, epoch=epoch, version=self.version, group_bytes=sizes)

    def samples(self, split: str) -> Generator[Sample]:
        """Every sample of a split exactly once, in the stored order.

        Raises CorruptError when a shard differs from its hash, or when at the end an id came twice or the count is not
        the manifest's.
        """
        seen: set[str] = set()
        for rows in self._ahead(self._row_groups.load, self._layout(split).places):
            for row in rows:
                if row["sample_id"] in seen:
                    raise CorruptError(f"{self.uri}: sample {row['sample_id']!r} comes twice in {split}; ingest again")
                seen.add(row["sample_id"])
                yield row_to_sample(row)
        if len(seen) != self.rows(split):
            raise CorruptError(
                f"{self.uri}: {split} gave {len(seen)} samples, its manifest says {self.rows(split)}; ingest again"
            )

    def read(self, split: str, indices: Sequence[int], *, extras: bool = True) -> Generator[Sample]:
        """The samples at these places of the stored order, in the order asked for.

        Who has no use for depth and flow asks for none by `extras`: they may be larger than all the rest. Row groups
        are kept while they are in use (see `row_groups.py`), so an `order` reads each of them once; those that come
        next are read meanwhile. Raises InputError for an index outside the split, CorruptError as `samples`.
        """
        with closing(self.stored(split, indices, extras=extras)) as rows:
            for row in rows:
                yield row.sample()

    def stored(self, split: str, indices: Sequence[int], *, extras: bool = True) -> Generator[StoredRow]:
        """As `read`, each sample still packed, which costs this thread next to nothing."""
        layout = self._layout(split)
        numbers = [layout.number(self._existing(split, index)) for index in indices]
        left, held = Counter(numbers), set[Place]()

        def hold(shard: Shard, group: int, budget: RetryBudget) -> Any:
            held.add((shard, group))
            return self._row_groups.hold(shard, group, budget, extras=extras)

        first_use, budget = dict.fromkeys(numbers), RetryBudget()
        coming = self._ahead(hold, [layout.places[number] for number in first_use], budget)
        try:
            for index, number in zip(indices, numbers, strict=True):
                place = layout.places[number]
                if number in first_use:
                    del first_use[number]
                    rows = next(coming)
                else:
                    rows = self._row_groups.get(*place, budget, extras=extras)
                left[number] -= 1
                if not left[number]:
                    held.remove(place)
                    self._row_groups.release(*place, extras=extras)
                yield StoredRow(rows, index - layout.starts[number])
        finally:
            coming.close()
            for place in held:
                self._row_groups.release(*place, extras=extras)

    def one(self, split: str, index: int, *, extras: bool = True) -> Sample:
        """The sample at one place of the stored order: for what lies in a row group in use, without a pass's threads.

        Raises as `read`.
        """
        layout = self._layout(split)
        number = layout.number(self._existing(split, index))
        rows = self._row_groups.get(*layout.places[number], extras=extras)
        return StoredRow(rows, index - layout.starts[number]).sample()

    def sample_ids(self, split: str) -> list[str]:
        """Ids in the stored order, without reading images."""
        return [row["sample_id"] for row in self._rows(split, "sample_id")]

    def groups(self, split: str) -> list[str]:
        """What must not be cut by a split (a drive, a clip), one for each sample, in the stored order."""
        return [row["group"] for row in self._rows(split, "group")]

    def frames(self, split: str) -> list[tuple[str | None, int | None]]:
        """(clip id, frame index) of each sample in the stored order, without reading images; None of a still."""
        return [(row["clip_id"], row["frame_index"]) for row in self._rows(split, "clip_id", "frame_index")]

    def labelled(self, split: str) -> list[bool]:
        """Whether each sample has a label map, in the stored order, without reading one."""
        return [row["label_map_width"] is not None for row in self._rows(split, "label_map_width")]

    def sizes(self, split: str) -> list[tuple[int, int]]:
        """(height, width) of each image in the stored order, without reading images.

        Of a remote shard that is not here yet only these columns are fetched, and nothing is hashed: whoever reads the
        images by them compares.
        """
        return [(row["height"], row["width"]) for row in self._rows(split, "height", "width", peeking=True)]

    def outline(self, split: str) -> list[tuple[str, bool]]:
        """(group, whether there is a label map) of each sample in the stored order, for a person to read.

        Fetched as `sizes`, and compared by nobody: what decides anything comes from `groups` and `labelled`.
        """
        rows = self._rows(split, "group", "label_map_width", peeking=True)
        return [(row["group"], row["label_map_width"] is not None) for row in rows]

    def num_keypoints(self, split: str) -> int:
        """How many keypoints an object has at most, marked or not; 0 where none has any. Fetched as `sizes`."""
        rows = self._rows(split, "keypoints", peeking=True)
        return max((len(each["points"]) for row in rows for each in row["keypoints"]), default=0)

    def image_hashes(self, split: str) -> list[str]:
        """SHA-256 of each image file in hex, in the stored order."""
        return [row["image_sha256"].hex() for row in self._rows(split, "image_sha256")]

    def identities(self, split: str) -> Iterator[tuple[str, bytes]]:
        """(sample id, SHA-256 of its image file) of each sample in the stored order, without reading images: as they
        come, for who compares splits that are larger than what memory should hold."""
        for row in self._rows(split, "sample_id", "image_sha256"):
            yield row["sample_id"], row["image_sha256"]

    def annotation_hashes(self, split: str) -> list[str]:
        """SHA-256 over all annotations of each sample in hex, in the stored order, without reading images."""
        return [annotation_hash(row) for row in self._rows(split, *ANNOTATION_COLUMNS)]

    def class_pixels(self, split: str) -> tuple[dict[int, int], ...]:
        """{class id: pixels} of each sample in the stored order, ignored pixels and crowds left out.

        Reads the label maps and segments of the whole split the first time, and keeps what it counted. Without a label
        map the areas of the segments count.
        """
        if split not in self._class_pixels:
            classes, ignored = len(self.manifest.classes), self.manifest.ignore_index
            self._class_pixels[split] = tuple(
                class_pixels(counted_sample(row), num_classes=classes, ignore_index=ignored)
                for row in self._rows(split, *COUNTED_COLUMNS)
            )
        return self._class_pixels[split]

    def verify(self, split: str) -> None:
        """Hashes every shard of a split again. Raises CorruptError naming the first that differs."""
        for shard in self._split(split).shards:
            self._row_groups.verify(shard)

    def _split(self, split: str) -> Split:
        if split not in self.manifest.splits:
            known = ", ".join(sorted(self.manifest.splits)) or "none"
            raise InputError(f"{self.uri}: no split {split!r} in version {self.version[:12]}; it has: {known}")
        return self.manifest.splits[split]

    def _existing(self, split: str, index: int) -> int:
        """The row, where the split has it."""
        rows = self.rows(split)
        if not 0 <= index < rows:
            raise InputError(f"{self.uri}: row {index} of {split} does not exist; it has rows 0 to {rows - 1}")
        return index

    def _layout(self, split: str) -> Layout:
        if split not in self._layouts:
            shards = self._split(split).shards
            if self._remote and sum(shard.bytes for shard in shards) > storage.cache_limit():
                self._row_groups.read_in_parts(shards)
            self._layouts[split] = layout_of(self._split(split))
        return self._layouts[split]

    def _rows(self, split: str, *names: str, peeking: bool = False) -> Iterator[dict[str, Any]]:
        """These columns of each row in the stored order; a few shards are read ahead, since maps may be gigabytes."""
        shards = dict.fromkeys(shard for shard, _ in self._layout(split).places)

        def read(shard: Shard, names: Sequence[str], budget: RetryBudget) -> list[dict[str, Any]]:
            peeked = peek(storage.join(self.uri, shard.path), shard, names, budget) if peeking else None
            return self._row_groups.columns(shard, names, budget) if peeked is None else peeked

        for rows in self._ahead(read, [(shard, names) for shard in shards]):
            yield from rows

    def _ahead(
        self, read: Any, places: Sequence[tuple[Shard, Any]], budget: RetryBudget | None = None
    ) -> Generator[Any]:
        """`read(shard, what, budget)` of each place in order, later ones in threads meanwhile; one budget for all."""
        budget = budget or RetryBudget()
        results = ahead(
            lambda place: read(*place, budget),
            places,
            threads=self._threads,
            most=GROUPS_PER_BLOCK,
            most_bytes=BLOCK_BYTES,
            weigh=estimate,
        )
        try:
            yield from results
        finally:
            budget.close()
            results.close()
