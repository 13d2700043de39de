"""Reading from a store that is slow or fails: what comes next is asked for meanwhile, and every byte is the same.

Overlap is counted by the store (`tests/fixtures/slow_store.py`), never timed.
"""

import functools
import http.server
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segpipe import shards, storage
from segpipe.errors import CorruptError, UnreachableError
from segpipe.shards import Dataset, open_dataset, peek
from segpipe.storage import object_store, ranges
from segpipe.types import Sample
from tests.fixtures.samples import manifest_of, semantic_sample
from tests.fixtures.slow_store import SlowStore, busy, flipped, readers, short, slow_store

__all__ = ["slow_store"]
NUM_SHARDS, ROWS = 12, 6
SAMPLES = [semantic_sample(n) for n in range(NUM_SHARDS * ROWS)]


@pytest.fixture
def published(slow_store: SlowStore) -> SlowStore:
    """Twelve shards of three row groups of two samples each, in the store."""
    folder = str(slow_store.folder)
    results = [
        shards.write_shard(SAMPLES[at : at + ROWS], folder, "train", group_rows=2)
        for at in range(0, len(SAMPLES), ROWS)
    ]
    shards.publish(folder, manifest_of(results))
    return slow_store


def opened(store: SlowStore) -> Dataset:
    dataset = open_dataset(store.uri)
    store.reads.clear()
    store.most_in_flight = 0
    return dataset


READS: dict[str, Callable[[Dataset], list[Any]]] = {
    "epoch": lambda d: list(d.read("train", d.order("train", seed=0, epoch=0))),
    "samples": lambda d: list(d.samples("train")),
    "columns": lambda d: [*d.sample_ids("train"), *d.class_pixels("train"), *d.annotation_hashes("train")],
}


@pytest.mark.parametrize("read", READS)
def test_with_a_cache_without_and_from_the_disk_the_same_comes(
    published: SlowStore, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = READS[read](open_dataset(str(published.folder)))
    cold = opened(published)
    assert READS[read](cold) == expected
    assert len(published.reads) == NUM_SHARDS, "each shard once, whole"
    warm = opened(published)
    assert READS[read](warm) == expected
    assert published.reads == [], "another reader, or process, finds the copies"
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", "0")
    assert READS[read](opened(published)) == expected
    assert len(published.reads) > NUM_SHARDS
    # A limit of two shards: each copy makes room for the next.
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", repr(2.5 * cold.manifest.splits["train"].shards[0].bytes / 2**30))
    monkeypatch.setenv("SEGPIPE_CACHE", str(published.folder.parent / "small"))
    assert READS[read](opened(published)) == expected
    assert storage.cached_bytes() <= storage.cache_limit()


def test_an_epoch_that_the_cache_cannot_hold_is_read_in_parts(
    slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each shard whole once, to be hashed, and each row group once: not a shard for every row group, and none again
    where others make room between a copy's landing and what is done with it."""
    monkeypatch.setattr(ranges, "READ_BUFFER_BYTES", 256)
    monkeypatch.setattr("segpipe.shards.order.GROUPS_PER_BLOCK", 4)
    monkeypatch.setattr("segpipe.shards.reader.GROUPS_PER_BLOCK", 4)
    folder, samples = str(slow_store.folder), [semantic_sample(n, image_bytes=20_000) for n in range(72)]
    results = [shards.write_shard(samples[at : at + 12], folder, "train", group_rows=2) for at in range(0, 72, 12)]
    shards.publish(folder, manifest_of(results))
    dataset = opened(slow_store)
    whole = sum(shard.bytes for shard in dataset.manifest.splits["train"].shards)
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", repr(0.2 * whole / 2**30))
    sha256_file = storage.sha256_file

    def driven_out(uri: str, **options: Any) -> str:
        Path(uri).unlink()
        return sha256_file(uri, **options)

    monkeypatch.setattr(storage, "sha256_file", driven_out)
    for epoch, most in ((0, 2.1), (1, 1.1)):
        slow_store.reads.clear()
        order = dataset.order("train", seed=0, epoch=epoch)
        dataset._row_groups._groups.clear()
        assert list(dataset.read("train", order)) == [samples[row] for row in order]
        fetched = sum(end - start for _, start, end in slow_store.reads)
        assert fetched <= most * whole, f"epoch {epoch}"
    assert storage.cached_bytes() <= storage.cache_limit()


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("cache", ["1", "0"])
def test_requests_that_can_run_together_do(
    published: SlowStore, read: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request of the first eight ends before all of them are there; more are never in flight."""
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", cache)
    dataset = opened(published)
    published.meet = ranges.REQUESTS_AT_ONCE
    assert len(READS[read](dataset)) >= len(SAMPLES)
    assert published.most_in_flight == ranges.REQUESTS_AT_ONCE == 8
    assert readers() == []


def test_the_next_block_is_fetched_while_the_present_one_is_used(
    published: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.shards.reader.GROUPS_PER_BLOCK", 4)
    dataset = opened(published)
    order = dataset.order("train", seed=0, epoch=0)
    group_of = [order_row // 2 for order_row in order]
    first_use = list(dict.fromkeys(group_of))
    samples = dataset.read("train", order)
    used = set()
    for row in range(len(order)):
        assert next(samples) == SAMPLES[order[row]]
        used.add(group_of[row])
        started = [number for number in first_use[: len(used) + 4] if number not in used]
        wait_until(lambda: {storage.cache_folder() / shard_of(dataset, n) for n in started} <= landed())  # noqa: B023
        later = {storage.cache_folder() / shard_of(dataset, n) for n in first_use[len(used) + 4 :]}
        needed = {storage.cache_folder() / shard_of(dataset, n) for n in first_use[: len(used) + 4]}
        assert not (later - needed) & landed(), "no further ahead than a block"
    samples.close()
    assert dataset._row_groups.loads == len(first_use)


def test_an_outline_costs_no_images(slow_store: SlowStore) -> None:
    """A person who looks at a dataset of a hundred gigabytes does not fetch it."""
    folder, samples = str(slow_store.folder), [semantic_sample(n, image_bytes=60_000) for n in range(24)]
    result = shards.write_shard(samples, folder, "train", group_rows=8)
    shards.publish(folder, manifest_of([result]))
    dataset = opened(slow_store)
    assert dataset.outline("train") == [(sample.group, True) for sample in samples]
    assert result.shard is not None
    assert 0 < sum(end - start for _, start, end in slow_store.reads) < 0.1 * result.shard.bytes


def test_sizes_are_looked_up_without_the_images(slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is not here yet; a small shard, a copy, and what cannot be read in ranges are taken whole."""
    folder, samples = str(slow_store.folder), [semantic_sample(n, image_bytes=60_000) for n in range(72)]
    results = [shards.write_shard(samples[at : at + 24], folder, "train", group_rows=8) for at in range(0, 72, 24)]
    shards.publish(folder, manifest_of(results))
    sizes = [(sample.height, sample.width) for sample in samples]
    whole = sum(result.shard.bytes for result in results if result.shard)

    def fetched() -> int:
        dataset = opened(slow_store)
        assert dataset.sizes("train") == sizes
        return sum(end - start for _, start, end in slow_store.reads)

    assert 0 < fetched() < 0.1 * whole
    assert not storage.cache_folder().exists()
    path = slow_store.folder / str(results[1].shard and results[1].shard.path)
    data = path.read_bytes()
    path.write_bytes(data[:-1000] + bytes(992) + data[-8:])  # the footer
    with pytest.raises(CorruptError, match=rf"{path.name}: sha256"):
        fetched()
    path.write_bytes(data)
    monkeypatch.setattr(peek, "LEAST_BYTES", whole)
    fetched()
    assert storage.cached_bytes() == whole
    monkeypatch.setattr(peek, "LEAST_BYTES", 0)
    assert fetched() == 0


def landed() -> set[Path]:
    return set(storage.cache_folder().iterdir())


def shard_of(dataset: Dataset, group: int) -> str:
    return dataset._layout("train").places[group][0].sha256


def wait_until(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(4000):
        if holds():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come to that in 20 seconds")


@pytest.mark.parametrize("cache", ["1", "0"])
def test_closing_ends_the_threads_and_asks_for_nothing_more(
    published: SlowStore, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", cache)
    monkeypatch.setattr("segpipe.shards.reader.GROUPS_PER_BLOCK", 4)
    dataset = opened(published)
    for read in (dataset.read("train", list(range(len(SAMPLES)))), dataset.samples("train")):
        assert next(read) == SAMPLES[0]
        read.close()
        assert readers() == []
    asked = len(published.reads)
    threading.Event().wait(0.05)
    assert len(published.reads) == asked
    never = dataset.read("train", [0])
    never.close()


def test_a_reader_that_is_closed_does_not_wait_for_retries(
    published: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = opened(published)
    samples = dataset.read("train", list(range(len(SAMPLES))))
    monkeypatch.setattr("segpipe.shards.reader.GROUPS_PER_BLOCK", 1)
    next(samples)
    monkeypatch.setattr(object_store, "FIRST_PAUSE_SECONDS", 25.0)
    monkeypatch.setattr(object_store, "LONGEST_PAUSE_SECONDS", 25.0)
    published.faults = [busy] * 100
    closing = threading.Thread(target=lambda: (next(samples), samples.close()))
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_transient_faults_change_nothing(published: SlowStore) -> None:
    dataset = opened(published)
    published.faults = [*[busy, short, bytes] * 4, flipped, busy]  # two flips could meet one shard, which is too much
    assert READS["epoch"](dataset) == [SAMPLES[row] for row in dataset.order("train", seed=0, epoch=0)]
    assert published.faults == []


@pytest.mark.parametrize("cache", ["1", "0"])
def test_one_bad_object_is_named_with_what_was_tried(
    published: SlowStore, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", cache)
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.2)
    dataset = opened(published)
    published.faults = [busy] * 10_000
    said = r"train-[0-9a-f]{20}\.parquet: slow:// did not answer in \d+ tries over"
    with pytest.raises(UnreachableError, match=said):
        list(dataset.samples("train"))
    assert readers() == []
    published.faults = []
    path = published.folder / dataset.manifest.splits["train"].shards[3].path
    path.write_bytes(flipped(path.read_bytes()))
    came: list[Sample] = []
    with pytest.raises(CorruptError, match=rf"{path.name}: sha256 [0-9a-f]{{12}}, the manifest says"):
        came.extend(dataset.samples("train"))
    assert came == SAMPLES[: 3 * ROWS], "nothing of the damaged shard"
    published.reads.clear()
    with pytest.raises(CorruptError, match=path.name):
        list(dataset.read("train", [3 * ROWS]))
    assert len(published.reads) == 2, "fetched again once"


def test_a_page_that_arrives_damaged_is_read_again_once(published: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cache the row groups come in ranges, after the hash of the whole was found right."""
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", "0")
    dataset = opened(published)
    assert next(dataset.read("train", [0])) == SAMPLES[0]

    def damaged(data: bytes) -> bytes:
        place = data.index(SAMPLES[2].image)
        return data[:place] + flipped(data[place:])

    published.faults = [damaged]
    assert list(dataset.read("train", [2])) == [SAMPLES[2]]
    published.faults = [functools.partial(lambda n, data: data[:60] + flipped(data[60:]), n) for n in range(2)]
    with pytest.raises(CorruptError, match="cannot be read any more"):
        list(dataset.read("train", [4]))


def test_a_copy_that_rots_on_the_disk_is_fetched_anew(published: SlowStore) -> None:
    dataset = opened(published)
    assert list(dataset.samples("train")) == SAMPLES
    copy = storage.cache_folder() / dataset.manifest.splits["train"].shards[0].sha256
    whole = copy.read_bytes()
    copy.write_bytes(flipped(whole))
    fresh = opened(published)
    assert list(fresh.samples("train")) == SAMPLES
    assert copy.read_bytes() == whole
    place = whole.index(SAMPLES[0].image)
    with open(copy, "r+b") as file:  # in place: after the hash was found right
        file.seek(place)
        file.write(flipped(whole[place : place + 1]))
    assert list(fresh.samples("train")) == SAMPLES
    assert len(published.reads) == 2


def test_a_dataset_is_read_from_a_plain_web_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its whole version, since a web server need not list; this one knows no ranges either."""
    result = shards.write_shard(SAMPLES, str(tmp_path / "data"), "train", group_rows=8)
    version, _ = shards.publish(str(tmp_path / "data"), manifest_of([result]))
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        monkeypatch.setattr(object_store, "RETRY_SECONDS", 1.0)
        for cache in ("1", "0"):
            monkeypatch.setenv("SEGPIPE_CACHE_GIB", cache)
            dataset = open_dataset(f"http://127.0.0.1:{server.server_port}/data", version=version)
            assert list(dataset.samples("train")) == SAMPLES
    finally:
        server.shutdown()
        server.server_close()
