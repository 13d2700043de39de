"""Writing a shard and publishing a version: deterministic bytes, whole or absent, one winner."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from segpipe import shards, storage
from segpipe.errors import BadSampleError, InputError
from segpipe.types import Sample
from tests.fixtures import check_dataset
from tests.fixtures.publish_worker import (
    limited_publish,
    make_and_publish,
    run_child,
)
from tests.fixtures.samples import full_sample, manifest_of, semantic_sample

NUM_FAILPOINTS = 24  # passed by one `make_and_publish`; `test_the_failpoints_are_counted` says when it changes


def test_a_shard_is_described_by_its_result(root: str) -> None:
    samples = [semantic_sample(n) for n in range(20)]
    result = shards.write_shard(iter(samples), root, "train", group_rows=8)
    assert result.shard is not None
    data = storage.read_bytes(storage.join(root, result.shard.path))
    assert result.shard.path == f"shards/train-{storage.sha256_bytes(data)[:20]}.parquet"
    assert (result.shard.sha256, result.shard.bytes) == (storage.sha256_bytes(data), len(data))
    assert (result.shard.rows, result.shard.row_groups) == (20, (8, 8, 4))
    assert result.sample_ids == tuple(sample.sample_id for sample in samples)
    assert result.image_hashes == tuple(storage.sha256_bytes(sample.image) for sample in samples)
    assert storage.list_tree(root) == [result.shard.path]


def rows_of_groups(tmp_path: Path, samples: list[Sample], **limits: int) -> tuple[int, ...]:
    result = shards.write_shard(samples, str(tmp_path), "train", **limits)
    assert result.sample_ids == tuple(sample.sample_id for sample in samples)
    assert result.shard is not None
    return result.shard.row_groups


def clip(name: str, first: int, length: int) -> list[Sample]:
    return [replace(semantic_sample(first + n), clip_id=name, frame_index=n) for n in range(length)]


def test_row_groups_are_cut_by_bytes_and_at_most_so_many_rows(tmp_path: Path) -> None:
    large = [semantic_sample(n, image_bytes=3 << 20) for n in range(5)]
    assert rows_of_groups(tmp_path, large) == (2, 2, 1), "8 MiB hold two of 3 MiB"
    assert rows_of_groups(tmp_path, large, group_bytes=1) == (1, 1, 1, 1, 1)
    assert rows_of_groups(tmp_path, [semantic_sample(n, image_bytes=10) for n in range(600)]) == (256, 256, 88)


def test_extras_count_as_all_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth and flow may be most of a sample, and groups of more than 2 GiB of a column cannot be read back."""
    depth = [replace(semantic_sample(n), extras={"depth": bytes([n]) * (3 << 20)}) for n in range(5)]
    assert rows_of_groups(tmp_path, depth) == (2, 2, 1)
    assert rows_of_groups(tmp_path, [replace(sample, clip_id="a", frame_index=0) for sample in depth]) == (5,)
    monkeypatch.setattr("segpipe.shards.grouping.CLIP_BYTES", 7 << 20)
    with pytest.raises(InputError, match="clip 'a': more than 7 MiB in 3 frames"):
        shards.write_shard([replace(sample, clip_id="a") for sample in depth], str(tmp_path), "train")


def test_a_clip_is_never_cut(tmp_path: Path) -> None:
    stills = [semantic_sample(n) for n in range(100, 105)]
    samples = [*clip("a", 0, 3), *stills[:4], *clip("b", 10, 2), *clip("c", 20, 11), *clip("d", 40, 5), stills[4]]
    assert rows_of_groups(tmp_path, samples, group_rows=5) == (5, 4, 11, 5, 1)
    assert rows_of_groups(tmp_path, samples, group_bytes=1) == (3, 1, 1, 1, 1, 2, 11, 5, 1)
    assert rows_of_groups(tmp_path, samples) == (26,)


def test_a_clip_in_pieces_or_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="clip 'a': other samples stand between its frames"):
        shards.write_shard([*clip("a", 0, 2), semantic_sample(9), *clip("a", 2, 1)], str(tmp_path), "train")
    monkeypatch.setattr("segpipe.shards.grouping.CLIP_BYTES", 1000)
    with pytest.raises(InputError, match=r"clip 'a': more than 0 MiB in \d frames, .* cut it into shorter clips"):
        shards.write_shard(clip("a", 0, 90), str(tmp_path), "train")
    assert storage.list_tree(str(tmp_path)) == []


def test_statistics_count_every_labelled_pixel(tmp_path: Path) -> None:
    def sample(name: str, label_map: bytes | None) -> Sample:
        return Sample(sample_id=name, image=b"i", height=2, width=3, group=name, label_map=label_map)

    result = shards.write_shard(
        [sample("a", bytes([0, 0, 1, 255, 255, 255])), sample("b", bytes([1, 1, 1, 1, 1, 255])), sample("c", None)],
        str(tmp_path),
        "train",
    )
    assert result.class_pixels == ((0, 2), (1, 6))
    assert result.image_pixels == ((0, 3), (1, 8))
    assert result.ignored_pixels == 4
    wide = shards.write_shard([full_sample(290)], str(tmp_path), "train")
    assert dict(wide.class_pixels) == {(290 + place) % 300: 1 for place in range(14)}
    assert wide.ignored_pixels == 1, "65535 is what 16-bit maps ignore"


def test_no_samples_make_no_shard(tmp_path: Path) -> None:
    result = shards.write_shard([], str(tmp_path), "val")
    assert result.shard is None
    assert storage.list_tree(str(tmp_path)) == []
    assert shards.make_split([result], 3).samples == 0


def test_bytes_depend_on_the_samples_alone(tmp_path: Path) -> None:
    """Other folder, time, worker threads, time zone and hash seed."""
    parts = [[semantic_sample(n) for n in range(first, first + 20)] for first in (0, 20, 40)]
    alone = [shards.write_shard(part, str(tmp_path / "a"), "train") for part in parts]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda part: shards.write_shard(part, str(tmp_path / "b" / "c"), "train"), parts))
    assert alone == together
    versions = {shards.publish(str(tmp_path / name), manifest_of(alone))[0] for name in ("a", "b/c")}
    assert len(versions) == 1
    elsewhere = {"TZ": "Pacific/Chatham", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"}
    status, (version, _) = run_child(make_and_publish, str(tmp_path / "d"), environment=elsewhere)
    assert status == 0
    assert version == make_and_publish(str(tmp_path / "e"))[0]


def test_nothing_of_the_machine_is_in_the_bytes(tmp_path: Path) -> None:
    make_and_publish(str(tmp_path / "secret-root"))
    for file in (tmp_path / "secret-root").rglob("*.*"):
        content = file.read_bytes()
        assert b"secret-root" not in content
        assert os.uname().nodename.encode() not in content


def test_a_sample_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'drive/00001' comes twice"):
        shards.write_shard([semantic_sample(1), semantic_sample(1)], str(tmp_path), "train")
    assert storage.list_tree(str(tmp_path)) == []


def test_an_error_of_the_source_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Sample]:
        yield from (semantic_sample(n) for n in range(9))
        raise BadSampleError("truncated", "x.jpg", "ends early")

    with pytest.raises(BadSampleError, match="ends early"):
        shards.write_shard(broken(), str(tmp_path), "train")
    assert check_dataset.leftovers(tmp_path) == storage.list_tree(str(tmp_path)) == []


@pytest.mark.parametrize("split", ["", "../x", "a/b", ".hidden", "x" * 64, "a\nb"])
def test_a_split_that_is_no_file_name_is_refused_before_the_work(tmp_path: Path, split: str) -> None:
    def untouched() -> Iterator[Sample]:
        pytest.fail("the samples were read")
        yield semantic_sample(0)

    with pytest.raises(InputError, match=re.escape(f"split {split!r}: expected")):
        shards.write_shard(untouched(), str(tmp_path), split)


def test_the_failpoints_are_counted(tmp_path: Path) -> None:
    alive, _ = run_child(
        make_and_publish, str(tmp_path / "a"), environment={"SEGPIPE_FAILPOINT": f"*:{NUM_FAILPOINTS + 1}"}
    )
    killed, _ = run_child(
        make_and_publish, str(tmp_path / "b"), environment={"SEGPIPE_FAILPOINT": f"*:{NUM_FAILPOINTS}"}
    )
    assert (alive, killed) == (0, 137)


@pytest.mark.parametrize("earlier", [0, 1])
@pytest.mark.parametrize("visit", range(1, NUM_FAILPOINTS + 1))
def test_a_kill_at_any_step_leaves_whole_versions_and_a_rerun_ends_alike(
    tmp_path: Path, visit: int, earlier: int, undisturbed: str
) -> None:
    """Row A1 of the goal sheet: on an empty dataset, and on one that has a version already."""
    before = [make_and_publish(str(tmp_path), 500)[0] for _ in range(earlier)]
    environment = {"SEGPIPE_FAILPOINT": f"*:{visit}"}
    assert run_child(make_and_publish, str(tmp_path), environment=environment) == (137, None)
    assert check_dataset.versions(tmp_path) in (before, [*before, undisturbed])
    assert make_and_publish(str(tmp_path))[0] == undisturbed
    assert check_dataset.versions(tmp_path) == [*before, undisturbed]
    assert check_dataset.leftovers(tmp_path) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The version that a run without a kill gives."""
    return make_and_publish(str(tmp_path_factory.mktemp("undisturbed")))[0]


@pytest.mark.parametrize("file_bytes", [0, 1, 50, 500, 4096, 10_000, 33_000, 60_000, 80_000])
def test_a_full_disk_says_what_it_needs_and_spares_earlier_versions(
    tmp_path: Path, file_bytes: int, undisturbed: str
) -> None:
    """Row A3 of the goal sheet, where no file may grow beyond a size."""
    version, _ = make_and_publish(str(tmp_path))
    status, (kind, message) = run_child(limited_publish, str(tmp_path), file_bytes)
    assert (status, kind) == (0, "StorageFullError"), message
    assert re.search(r"no room .*: [0-9,]+ bytes are needed, [0-9,]+ are free in ", message)
    assert check_dataset.versions(tmp_path) == [version] == [undisturbed]
    assert check_dataset.leftovers(tmp_path) == []


def test_an_unwritable_destination_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    for uri in (f"{tmp_path}/file/dataset", "/proc/segpipe"):
        with pytest.raises(InputError, match=f"{uri}/shards: cannot be written"):
            shards.write_shard([semantic_sample(0)], uri, "train")
