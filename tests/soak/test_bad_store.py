"""Row A4: S3 with 503s, resets, short bodies, lost replies and stalls: no wrong version, none published twice."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from segpipe.errors import UnreachableError
from segpipe.shards import open_dataset, write_shard
from segpipe.shards import publish as publish_version
from segpipe.stages.ingest import IngestResult, ingest
from segpipe.storage import object_store
from tests.fixtures import check_dataset
from tests.fixtures.flaky_store import FlakyStore, flaky_store
from tests.fixtures.ingest_worker import streets, write_streets
from tests.fixtures.object_store import BUCKET, use_endpoint
from tests.fixtures.samples import manifest_of, semantic_sample
from tests.fixtures.slow_store import SlowStore, slow_store
from tests.fixtures.trials import Trials

__all__ = ["slow_store"]

WHOLE = 300
FAULTS = {
    "GET": ("503", "500", "reset", "short", "stall"),
    "HEAD": ("503", "500", "reset", "stall"),
    "PUT": ("503", "500", "reset", "stall", "503-after", "500-after", "reset-after", "stall-after"),
    "POST": ("503", "500", "reset"),
    "DELETE": ("503", "500-after", "reset"),
}
READ_EPOCHS, NUM_SHARDS = 60, 40
PATIENCE = 1.5  # seconds of one read's budget
SHARE = 0.1  # of the requests have a fault
MOST_STALLS = 1


class Night:
    """What the proxy does to each request: faults by chance; from request `down_from` on nothing answers."""

    def __init__(self, chance: random.Random, down_from: int | None) -> None:
        self.chance, self.down_from = chance, down_from
        self.requests, self.stalls, self.met = 0, 0, list[str]()

    def __call__(self, method: str) -> str:
        self.requests += 1
        if self.down_from is not None and self.requests >= self.down_from:
            return "503"
        fault = self.chance.choice(FAULTS[method]) if self.chance.random() < SHARE else ""
        if "stall" in fault:
            self.stalls += 1
            fault = fault if self.stalls <= MOST_STALLS else ""
        self.met += [f"{method} {fault}"] if fault else []
        return fault


@pytest.fixture
def flaky(s3_server: str, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyStore]:
    with flaky_store(s3_server) as proxy:
        use_endpoint(monkeypatch, proxy.endpoint)
        monkeypatch.setattr(object_store, "FIRST_PAUSE_SECONDS", 0.005)
        monkeypatch.setattr(object_store, "STALL_SECONDS", 0.3)
        # botocore's own one retry pauses up to a second, a thousand times over.
        monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.005)
        yield proxy
    object_store._open_filesystem.cache_clear()  # whoever gets this port next has patience again


@pytest.mark.usefixtures("one_core")
def test_bad_nights_of_a_store_publish_once_or_not_at_all(
    trials: Trials, flaky: FlakyStore, s3_server: str, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third run is a race of two publishers; every fifth loses the store for good, and the next run mends it."""
    source = write_streets(tmp_path / "root", splits={"train": 2, "val": 1})
    expected = ingest(streets(source), to=str(tmp_path / "expected")).version
    client = boto3.client("s3", endpoint_url=s3_server)

    def trial(number: int) -> None:
        chance = random.Random(number)
        to, rivals, lost = f"{s3_root}/{number}", 2 if number % 3 == 2 else 1, number % 5 == 4
        flaky.plan = night = Night(chance, chance.randint(1, 60) if lost else None)
        monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.3 if lost else 30.0)
        with ThreadPoolExecutor(rivals) as pool:
            results = list(pool.map(lambda _: publish(source, to), range(rivals)))
        allowed = ([], [expected]) if lost else ([expected],)
        check_dataset.judge(fetched(client, to, tmp_path / f"{number}-first"), allowed=allowed)
        assert lost or None not in results, (night.met, results)
        assert {result.version for result in results if result} <= {expected}
        assert sum(result.status == "published" for result in results if result) <= 1
        monkeypatch.setattr(object_store, "RETRY_SECONDS", 30.0)
        flaky.plan = Night(chance, None)
        again = ingest(streets(source), to=to)
        assert again.version == expected, night.met
        assert [sample.sample_id for sample in open_dataset(to).samples("train")] == ["train_000", "train_001"]
        check_dataset.judge(fetched(client, to, tmp_path / f"{number}-again"), allowed=([expected],))

    trials.run("A4", WHOLE, trial, quick=5)  # of each kind: alone, a race, a store that is lost


class Outage:
    """What happens to the reads of an epoch: `stalls` per object, and from read `down_at` on nothing for a while."""

    def __init__(self, chance: random.Random, *, stalls: int, down: float) -> None:
        self.chance, self.stalls, self.down = chance, stalls, down
        self.down_at, self.reads, self.ends = chance.randint(1, NUM_SHARDS // 2), 0, 0.0
        self.met: Counter[bytes] = Counter()

    def __call__(self, data: bytes) -> bytes:
        self.reads += 1
        if self.reads == self.down_at:
            self.ends = time.monotonic() + self.down
        if time.monotonic() < self.ends:
            raise ConnectionError("503 SlowDown, told to")
        if self.met[data] < self.stalls:
            self.met[data] += 1
            time.sleep(self.chance.uniform(0.8, 1) * PATIENCE / 3)
            raise TimeoutError("told to")
        return data


def test_an_epoch_outlasts_what_one_read_outlasts(
    trials: Trials, slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty-two reads in flight, eight at a time: every object stalls once for up to a third of a read's budget, the
    store is away for most of one, or both for less. Seconds are a twentieth of the real ones."""
    monkeypatch.setattr(object_store, "RETRY_SECONDS", PATIENCE)
    monkeypatch.setattr(object_store, "LONGEST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(object_store, "FIRST_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr("segpipe.storage.budget.EPOCH_RETRY_SECONDS", 10 * PATIENCE)
    folder = str(slow_store.folder)
    samples = [semantic_sample(number) for number in range(2 * NUM_SHARDS)]
    results = [write_shard(samples[at : at + 2], folder, "train") for at in range(0, len(samples), 2)]
    publish_version(folder, manifest_of(results))

    def trial(number: int) -> None:
        chance = random.Random(number)
        stalls, down = ((1, 0.0), (0, 0.7), (1, 0.2))[number % 3]
        slow_store.faults = []
        dataset = open_dataset(slow_store.uri)
        order = dataset.order("train", seed=number, epoch=0)
        slow_store.faults = [Outage(chance, stalls=stalls, down=down * PATIENCE)] * 100_000
        monkeypatch.setenv("SEGPIPE_CACHE", str(slow_store.folder.parent / f"cache-{number}"))
        assert list(dataset.read("train", order)) == [samples[row] for row in order]

    trials.run("A4", READ_EPOCHS, trial, quick=3)


def publish(source: Path, to: str) -> IngestResult | None:
    try:
        return ingest(streets(source), to=to)
    except UnreachableError:
        return None


def fetched(client: Any, uri: str, folder: Path) -> Path:
    """What lies below an s3:// URI, copied by another program than ours, past the proxy."""
    prefix = uri.removeprefix(f"s3://{BUCKET}/") + "/"
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for entry in page.get("Contents", ()):
            path = folder / entry["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read())
    return folder
