"""Readers in two processes, one cache that is too small for what they read: right bytes, an end, no thrashing."""

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

from segpipe import shards, storage
from segpipe.shards import open_dataset
from segpipe.storage import ranges
from segpipe.types import Sample
from tests.fixtures.publish_worker import finish_child, start_child
from tests.fixtures.samples import manifest_of, semantic_sample

NUM_SHARDS, ROWS, GROUP_ROWS, EPOCHS = 8, 12, 3, 2
KIB = 1024
AT_ONCE = 8  # shards that one reader fetches together, at the most


def samples_from(first: int) -> list[Sample]:
    return [semantic_sample(n, image_bytes=8 * KIB) for n in range(first, first + ROWS)]


def read_epochs(uri: str, seed: int) -> dict[str, Any]:
    """In a child process: what came in each epoch, how many bytes came from the store for it, and the fullest cache."""
    fetched, fullest, done = [0] * EPOCHS, [0], threading.Event()
    digests, epoch, read_range = [], 0, ranges.read_range

    def counted(*place: Any, **options: Any) -> bytes:
        data = read_range(*place, **options)
        fetched[epoch] += len(data)
        return data

    def watch() -> None:
        while not done.wait(0.02):
            fullest[0] = max(fullest[0], storage.cached_bytes())

    ranges.read_range, ranges.READ_BUFFER_BYTES = counted, 4 * KIB
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for epoch in range(EPOCHS):
            dataset = open_dataset(uri)  # as a worker that starts anew
            order = dataset.order("train", seed=seed, epoch=epoch)
            found = hashlib.sha256()
            for row, sample in sorted(zip(order, dataset.read("train", order), strict=True), key=lambda item: item[0]):
                found.update(f"{row} {sample.sample_id}".encode() + sample.image + (sample.label_map or b""))
            digests.append(found.hexdigest())
    finally:
        done.set()
        watcher.join()
    return {"digests": digests, "fetched": fetched, "fullest": fullest[0]}


def test_readers_of_one_small_cache_get_on(s3_root: str, tmp_path: Path) -> None:
    """Each fetches each shard once to be hashed and each row group once, whatever the other drives out meanwhile."""
    firsts = range(0, NUM_SHARDS * ROWS, ROWS)
    results = [shards.write_shard(samples_from(first), s3_root, "train", group_rows=GROUP_ROWS) for first in firsts]
    shards.publish(s3_root, manifest_of(results))
    sizes = [result.shard.bytes for result in results if result.shard]
    expected = hashlib.sha256()
    for row, sample in enumerate(sample for first in firsts for sample in samples_from(first)):
        expected.update(f"{row} {sample.sample_id}".encode() + sample.image + (sample.label_map or b""))
    limit = int(0.4 * sum(sizes))
    surroundings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    surroundings |= {"SEGPIPE_CACHE": str(tmp_path / "cache"), "SEGPIPE_CACHE_GIB": repr(limit / 2**30)}
    children = [start_child(read_epochs, s3_root, seed, environment=surroundings) for seed in range(2)]
    for status, answer in map(finish_child, children):
        assert status == 0
        assert answer["digests"] == [expected.hexdigest()] * EPOCHS
        assert max(answer["fetched"]) <= 2.5 * sum(sizes), "a shard for every row group would be four times all"
        # What is just landing, in each process, comes on top.
        assert answer["fullest"] <= limit + len(children) * AT_ONCE * max(sizes)
    left = [path.stat().st_size for path in (tmp_path / "cache").iterdir() if path.is_file()]
    assert sum(left) <= limit
    assert all(storage.sha256_file(str(path)) == path.name for path in (tmp_path / "cache").iterdir() if path.is_file())
