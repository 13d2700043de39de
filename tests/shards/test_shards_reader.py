"""Reading: exactly once in order, any order with few loads, and no flipped bit gets through."""

import pickle
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segpipe import shards, storage
from segpipe.errors import CorruptError, InputError, SegpipeError
from segpipe.shards import Dataset
from segpipe.shards.counting import class_pixels
from segpipe.shards.row_groups import RowGroups
from segpipe.types import Manifest, Sample, Shard
from tests.fixtures.publish_worker import make_and_publish
from tests.fixtures.samples import full_sample, manifest_of, semantic_sample

SAMPLES = [semantic_sample(n) for n in range(32)]


def test_samples_come_once_and_in_order(root: str) -> None:
    make_and_publish(root)
    dataset = shards.open_dataset(root)
    assert list(dataset.samples("train")) == SAMPLES
    assert dataset.rows("train") == 32
    assert dataset.row_groups("train") == (8, 8, 4, 8, 4)
    assert dataset.sample_ids("train") == [sample.sample_id for sample in SAMPLES]
    assert dataset.groups("train") == [sample.group for sample in SAMPLES]
    assert dataset.image_hashes("train") == [storage.sha256_bytes(sample.image) for sample in SAMPLES]
    named = [(sample_id, found.hex()) for sample_id, found in dataset.identities("train")]
    assert named == list(zip(dataset.sample_ids("train"), dataset.image_hashes("train"), strict=True))
    dataset.verify("train")


def test_rows_come_in_the_order_asked_for(root: str) -> None:
    make_and_publish(root)
    dataset = shards.open_dataset(root)
    wanted = [31, 0, 19, 20, 20, 5, 31]
    assert list(dataset.read("train", wanted)) == [SAMPLES[index] for index in wanted]
    assert list(dataset.read("train", [])) == []
    for index in (-1, 32):
        with pytest.raises(InputError, match=rf"row {index} of train does not exist; it has rows 0 to 31"):
            list(dataset.read("train", [index]))


def test_one_row_needs_no_threads(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_and_publish(root)
    dataset = shards.open_dataset(root)
    monkeypatch.setattr("segpipe.shards.ahead.ThreadPoolExecutor", lambda *_, **__: pytest.fail("a pool for one row"))
    for row in (31, 0, 19, 20):
        assert dataset.one("train", row) == SAMPLES[row]
    assert dataset._row_groups.loads == 4
    assert dataset.one("train", 1) == SAMPLES[1]
    assert dataset._row_groups.loads == 4, "row group 0 is kept"
    for row in (-1, 32):
        with pytest.raises(InputError, match=rf"row {row} of train does not exist; it has rows 0 to 31"):
            dataset.one("train", row)


def test_counting_pixels_reads_label_maps_and_segments_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [full_sample(1), replace(full_sample(2), label_map=None), semantic_sample(3)]
    result = shards.write_shard(samples, str(tmp_path), "train")
    shards.publish(str(tmp_path), manifest_of([result], num_classes=300))
    read, real = set[str](), RowGroups.columns

    def columns(
        self: RowGroups, shard: Shard, names: Sequence[str], budget: storage.RetryBudget
    ) -> list[dict[str, Any]]:
        read.update(names)
        return real(self, shard, names, budget)

    monkeypatch.setattr(RowGroups, "columns", columns)
    counted = shards.open_dataset(str(tmp_path)).class_pixels("train")
    whole = [class_pixels(sample, num_classes=300, ignore_index=65535) for sample in samples[:2]]
    assert list(counted[:2]) == whole
    assert read == {"sample_id", "group", "height", "width", "label_map", "label_map_width", "segments"}


def test_a_row_group_that_pyarrow_cannot_hold_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_and_publish(str(tmp_path))

    def cannot(error: Exception) -> Callable[..., None]:
        def read(*_: object, **__: object) -> None:
            raise error

        return read

    told: list[tuple[Exception, str]] = [
        (pa.ArrowNotImplementedError("Nested data conversions"), r"of up to 8 rows .*Nested.* less than 2 GiB .*again"),
        (pa.ArrowMemoryError("malloc of size 3"), r"of up to 8 rows is too large .*malloc of size 3.* more memory"),
    ]
    for error, message in told:
        monkeypatch.setattr("pyarrow.parquet.ParquetFile.read_row_group", cannot(error))
        with pytest.raises(SegpipeError, match=message) as raised:
            list(shards.open_dataset(str(tmp_path)).read("train", [0]))
        assert "disk" not in str(raised.value)


def test_extras_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    samples = [replace(full_sample(number), label_map=None) for number in range(9)]
    shards.publish(str(tmp_path), manifest_of([shards.write_shard(samples, str(tmp_path), "train")]))
    dataset = shards.open_dataset(str(tmp_path))
    assert list(dataset.read("train", [0, 8])) == [samples[0], samples[8]]
    bare = [replace(sample, extras={}) for sample in samples]
    assert list(dataset.read("train", [8, 0], extras=False)) == [bare[8], bare[0]]
    assert list(dataset.samples("train")) == samples


def test_what_is_not_there_is_named(root: str) -> None:
    with pytest.raises(InputError, match=rf"{root}: no dataset here .* one with `segpipe ingest"):
        shards.open_dataset(root)
    make_and_publish(root)
    dataset = shards.open_dataset(root)
    for call in (dataset.rows, dataset.row_groups, dataset.sample_ids, dataset.verify):
        with pytest.raises(InputError, match=r"no split 'test' .* it has: train"):
            call("test")
    with pytest.raises(InputError, match="no split 'test'"):
        next(dataset.samples("test"))


def test_a_dataset_can_be_pickled_and_shared_by_threads(root: str) -> None:
    make_and_publish(root)
    dataset = shards.open_dataset(root)
    list(dataset.read("train", [3]))
    copied = pickle.loads(pickle.dumps(dataset))
    assert (copied.uri, copied.manifest, copied.version) == (dataset.uri, dataset.manifest, dataset.version)

    def read(seed: int) -> bool:
        order = random.Random(seed).sample(range(32), 32)
        return list(copied.read("train", order)) == [SAMPLES[index] for index in order]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(12)))


def test_an_epoch_in_its_order_loads_each_row_group_once(tmp_path: Path) -> None:
    result = shards.write_shard((semantic_sample(n) for n in range(8 * 80 - 3)), str(tmp_path), "train", group_rows=8)
    shards.publish(str(tmp_path), manifest_of([result]))
    dataset = shards.open_dataset(str(tmp_path))
    groups = dataset.row_groups("train")
    order = shards.epoch_order(groups, seed=1, epoch=2, version=dataset.version)
    for first in range(0, len(order), 4):  # as batches
        assert len(list(dataset.read("train", order[first : first + 4]))) == len(order[first : first + 4])
    assert dataset._row_groups.loads == len(groups) == 80


def test_the_least_recently_used_row_group_goes_first(tmp_path: Path) -> None:
    result = shards.write_shard((semantic_sample(n) for n in range(40)), str(tmp_path), "train", group_rows=8)
    assert result.shard is not None
    kept = RowGroups(str(tmp_path), max_groups=2)
    for group, loads in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4), (2, 5), (2, 5), (1, 5), (0, 6)):
        assert kept.get(result.shard, group)[0]["sample_id"] == f"drive/{8 * group:05d}"
        assert kept.loads == loads
    tight = RowGroups(str(tmp_path), max_bytes=1, least_groups=1)
    for group, loads in ((0, 1), (0, 1), (1, 2), (0, 3)):
        tight.get(result.shard, group)
        assert tight.loads == loads


def open_and_read(root: str) -> list[Sample]:
    return list(shards.open_dataset(root).samples("train"))


@pytest.mark.parametrize("folder", ["shards", "manifests", "log"])
@pytest.mark.parametrize("seed", range(67))
def test_a_flipped_bit_is_found_before_a_sample_comes_out(published: Path, folder: str, seed: int) -> None:
    """Row A6 of the goal sheet: shards, manifest and log."""
    generator = random.Random(f"{folder} {seed}")
    file = generator.choice(sorted((published / folder).iterdir()))
    original = file.read_bytes()
    place, bit = generator.randrange(len(original)), generator.randrange(8)
    flipped = original[:place] + bytes([original[place] ^ 1 << bit]) + original[place + 1 :]
    file.write_bytes(flipped)
    came_out: list[Sample] = []
    try:
        with pytest.raises(CorruptError, match=r"\.json|\.parquet"):
            came_out.extend(shards.open_dataset(str(published)).samples("train"))
    finally:
        file.write_bytes(original)
    assert came_out in ([], SAMPLES[:20]), "nothing of a damaged shard; the whole ones before it may come"
    assert open_and_read(str(published)) == SAMPLES


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that tests damage and mend again."""
    folder = tmp_path_factory.mktemp("published")
    make_and_publish(str(folder))
    return folder


READS: list[Callable[[Dataset], object]] = [
    lambda dataset: list(dataset.read("train", [0])),
    lambda dataset: dataset.sample_ids("train"),
    lambda dataset: dataset.verify("train"),
    lambda dataset: list(dataset.samples("train")),
]


@pytest.mark.parametrize("read", READS)
def test_every_way_to_read_checks_the_hash(root: str, tmp_path: Path, read: Callable[[Dataset], object]) -> None:
    make_and_publish(root)
    dataset = shards.open_dataset(root)
    uri = storage.join(root, dataset.manifest.splits["train"].shards[0].path)
    data = storage.read_bytes(uri)
    storage.delete(uri)
    with pytest.raises(CorruptError, match=r"parquet: this shard of the version is missing"):
        read(dataset)
    storage.write_once(uri, data[:-1] + b"x")
    with pytest.raises(CorruptError, match=r"parquet: sha256 [0-9a-f]{12}, the manifest says"):
        read(dataset)
    storage.delete(uri)
    storage.write_once(uri, data)
    read(dataset)


def test_a_bit_that_flips_after_the_hash_was_checked_is_found(tmp_path: Path) -> None:
    make_and_publish(str(tmp_path))
    dataset = shards.open_dataset(str(tmp_path))
    file = tmp_path / dataset.manifest.splits["train"].shards[0].path
    list(dataset.read("train", [0]))
    place = file.read_bytes().index(SAMPLES[15].image)
    with open(file, "r+b") as damaged:
        damaged.seek(place)
        damaged.write(bytes([SAMPLES[15].image[0] ^ 1]))
    with pytest.raises(CorruptError, match="cannot be read any more"):
        list(dataset.read("train", [15]))


def forge(root: Path, change: Callable[[Manifest], Manifest]) -> Dataset:
    """A dataset whose manifest says other things than its shards, behind the back of `publish`."""
    manifest = change(shards.open_dataset(str(root)).manifest)
    data = storage.canonical_json(shards.manifest_to_json(manifest))
    version = storage.sha256_bytes(data)
    storage.write_once(str(root / "manifests" / f"{version}.json"), data)
    return shards.open_dataset(str(root), version=version)


def test_rows_that_do_not_add_up_are_corrupt(tmp_path: Path) -> None:
    """Exactly once is proven by an error, whichever way the count goes wrong."""
    make_and_publish(str(tmp_path))
    split = shards.open_dataset(str(tmp_path)).manifest.splits["train"]
    first = split.shards[0]

    def with_split(**changes: object) -> Dataset:
        return forge(tmp_path, lambda manifest: replace(manifest, splits={"train": replace(split, **changes)}))

    for groups in ((8, 8, 3), (8, 8, 5), (10, 10)):
        shard = replace(first, rows=sum(groups), row_groups=groups)
        dataset = with_split(samples=sum(groups) + 12, shards=(shard, split.shards[1]))
        with pytest.raises(CorruptError, match=r"20 rows in 3 row groups .*the manifest says"):
            list(dataset.samples("train"))
    with pytest.raises(CorruptError, match="samples is 31, expected the 32 rows"):
        with_split(samples=31)
    dataset = Dataset(
        str(tmp_path),
        replace(dataset.manifest, splits={"train": replace(split, samples=31)}),
        dataset.version,
    )
    with pytest.raises(CorruptError, match="train gave 32 samples, its manifest says 31"):
        list(dataset.samples("train"))


def test_a_sample_in_two_shards_is_corrupt(tmp_path: Path) -> None:
    results = [
        shards.write_shard([semantic_sample(n) for n in part], str(tmp_path), "train") for part in ((1, 2), (2, 3))
    ]
    shards.publish(str(tmp_path), manifest_of(results))
    with pytest.raises(CorruptError, match="sample 'drive/00002' comes twice in train"):
        open_and_read(str(tmp_path))


def test_a_parquet_file_of_another_kind_is_corrupt(tmp_path: Path) -> None:
    make_and_publish(str(tmp_path))
    data = b"PAR1 not really PAR1"
    sha256 = storage.sha256_bytes(data)
    path = f"shards/train-{sha256[:20]}.parquet"
    storage.write_once(str(tmp_path / path), data)
    split = shards.open_dataset(str(tmp_path)).manifest.splits["train"]
    shard = replace(split.shards[0], path=path, sha256=sha256, bytes=len(data))
    dataset = forge(tmp_path, lambda m: replace(m, splits={"train": replace(split, shards=(shard, split.shards[1]))}))
    with pytest.raises(CorruptError, match="cannot be read any more"):
        list(dataset.samples("train"))
