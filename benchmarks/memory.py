"""How much memory an epoch takes over a dataset several times larger than what the reader may keep.

    python benchmarks/memory.py [--rows 100000] [--image-bytes 20000] [--remote] [--cache-gib 0.5] [--json]

Writes a dataset of made-up images (noise, so nothing shrinks), then reads one shuffled epoch of training batches in a
fresh process: Parquet, decoding, cropping, collating, as training does. Prints the resident memory at ten points of the
epoch, and its peak. The reader may keep 576 MiB of row groups, of which half are read ahead; 100,000 rows of 20 kB are
three times that. The last nine points must lie within 10 % of their median, and the peak below a limit, or it fails.
With `--remote` the files are behind an S3 server on this machine (needs moto); their copies fill a cache of 512 MiB,
which must not grow beyond it at any of the points, but by what is just landing. It prints how much came from the store:
each shard whole, to be hashed, and each row group whose copy is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
POINTS, BATCH, CROP = 10, 64, (48, 48)
SPREAD = 0.10
PEAK_MIB = 1792  # 750 before the first row (torch), 576 of row groups, 128 in flight from a store, batches, the order
LANDING_MIB = 8 * 64  # shards that are fetched together
SHARD_ROWS = 3200  # 64 MB, as ingest cuts


def images(count: int, size: int) -> list[tuple[bytes, int]]:
    """PNGs of noise of about `size` bytes with their side in pixels."""
    import numpy as np
    from PIL import Image

    side = max(8, round((size / 3) ** 0.5))
    made = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
        made.append((stream.getvalue(), side))
    return made


def write(uri: str, rows: int, image_bytes: int) -> int:
    """Publishes the dataset; gives the bytes of its shards."""
    from segpipe.shards import SCHEMA_VERSION, make_split, publish, write_shard
    from segpipe.types import Annotation, ClassInfo, LabelCoding, Manifest, Sample

    pool = images(64, image_bytes)

    def samples(first: int) -> Iterator[Sample]:
        for number in range(first, min(rows, first + SHARD_ROWS)):
            image, side = pool[number % len(pool)]
            name, label_map = f"{number:09d}", bytes([number % 3]) * (side * side)
            yield Sample(sample_id=name, image=image, height=side, width=side, group=name, label_map=label_map)

    results = [write_shard(samples(first), uri, "train") for first in range(0, rows, SHARD_ROWS)]
    classes = tuple(ClassInfo(name=name, colour=(k, k, k)) for k, name in enumerate("abc"))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        dataset="noise",
        source="made up",
        licence="CC0-1.0",
        classes=classes,
        ignore_index=255,
        coding=LabelCoding(values=tuple((k, k) for k in range(3))),
        annotations=(Annotation.LABEL_MAP,),
        splits={"train": make_split(results, len(classes))},
        quarantined={},
        quarantine_path=None,
    )
    publish(uri, manifest)
    return sum(shard.bytes for shard in manifest.splits["train"].shards)


def resident_mib() -> float:
    """What this process holds in memory now, files that it has mapped included."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def read(uri: str) -> dict[str, Any]:
    """One epoch; what it took."""
    import torch

    from segpipe.config import TrainConfig
    from segpipe.data.loader import TrainBatches
    from segpipe.shards import open_dataset
    from segpipe.storage import cached_bytes

    torch.set_num_threads(1)
    fetched = counted_reads()
    document = {"epochs": 1, "batch_size": BATCH, "augment": {"crop": list(CROP), "colour": 0}, "loader_threads": 1}
    dataset = open_dataset(uri)
    config = TrainConfig.model_validate_json(json.dumps(document))
    batches = TrainBatches(dataset, config, rank=0, world_size=1)
    start, before, seen = resident_mib(), time.perf_counter(), 0
    at = {batches.micro_batches * point // POINTS for point in range(1, POINTS + 1)}
    points, cached = [], []
    for number, batch in enumerate(batches.epoch(0), start=1):
        seen += len(batch.sample_ids)
        if number in at:
            points.append(round(resident_mib()))
            cached.append(round(cached_bytes() / 2**20))
            print(f"  {number:6} of {batches.micro_batches} batches: {points[-1]} MiB", file=sys.stderr, flush=True)
    return {
        "rows": seen,
        "before_mib": round(start),
        "points_mib": points,
        "cached_mib": cached,
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "row_group_loads": dataset._row_groups.loads,
        "row_groups": len(dataset.row_groups("train")),
        "fetched_mib": round(sum(fetched) / 2**20),
        "seconds": round(time.perf_counter() - before, 1),
    }


def counted_reads() -> list[int]:
    """The bytes of each range that is read from a store from now on; what is asked for again counts once."""
    from segpipe.storage import ranges

    fetched, read_range = list[int](), ranges.read_range

    def counted(*place: Any, **options: Any) -> bytes:
        data = read_range(*place, **options)
        fetched.append(len(data))
        return data

    ranges.read_range = counted
    return fetched


@contextlib.contextmanager
def s3(cache_gib: float = 0.5) -> Iterator[dict[str, str]]:
    """An S3 server on this machine in a process of its own; the environment that leads to it."""
    code = (
        "import time\nfrom moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\nserver.start()\n"
        "import urllib.request as r\nurl = 'http://%s:%s' % server.get_host_and_port()\n"
        "r.urlopen(r.Request(url + '/bench', method='PUT'))\nprint(url, flush=True)\ntime.sleep(1e6)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            endpoint = server.stdout.readline().strip()
            keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
            yield {"AWS_ENDPOINT_URL": endpoint, "SEGPIPE_CACHE_GIB": repr(cache_gib), **keys}
        finally:
            server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--image-bytes", type=int, default=20_000)
    parser.add_argument("--remote", action="store_true")
    parser.add_argument("--cache-gib", type=float, default=0.5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--read", metavar="URI", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.read:
        print(json.dumps(read(options.read)))
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        uri, surroundings = f"{folder}/noise", {"SEGPIPE_CACHE": f"{folder}/cache"}
        if options.remote:
            surroundings |= stack.enter_context(s3(options.cache_gib))
            os.environ.update(surroundings)
            uri = "s3://bench/noise"
        started = time.perf_counter()
        size = write(uri, options.rows, options.image_bytes)
        wrote = time.perf_counter() - started
        command = [sys.executable, __file__, "--read", uri]
        environment = {**os.environ, **surroundings, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        report = json.loads(done.stdout.splitlines()[-1])
    middle = statistics.median(report["points_mib"])
    spread = max(abs(point / middle - 1) for point in itertools.islice(report["points_mib"], 1, None))
    report |= {"dataset_mib": round(size / 2**20), "write_seconds": round(wrote, 1), "spread": round(spread, 3)}
    flat = spread <= SPREAD and report["peak_mib"] <= PEAK_MIB
    flat = flat and max(report["cached_mib"]) <= options.cache_gib * 1024 + LANDING_MIB
    report["flat"] = flat
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"  {name:16} {value}")
    sys.exit(not flat)


if __name__ == "__main__":
    main()
