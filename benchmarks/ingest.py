"""What ingest costs, stage by stage, beside the floor: reading every file and appending it to one.

    SEGPIPE_DATA=... python benchmarks/ingest.py [--rounds 5] [--json]

Works on CamVid's 701 pairs, from a warm page cache, in one process. The clock is process CPU seconds, since other work
falsifies the wall clock; each round is a fresh process and medians are told. `ingest` is the whole stage as a night
runs it; the stages below it are its parts, each timed alone over all files, so that one sees what a check costs. The
goal is for what cannot be left out, `reading, headers, writing`: at least 0.7 of the floor's speed, 1.43 floors.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LISTS = ("train", "val", "test")


def pairs(root: Path) -> Iterator[tuple[Path, Path]]:
    """(image, mask) of all three lists, in the SegNet layout."""
    for name in LISTS:
        for line in (root / f"{name}.txt").read_text().splitlines():
            image, mask = (root / "/".join(path.split("/")[-2:]) for path in line.split())
            yield image, mask


def floor(root: Path, to: Path) -> None:
    with (to / "everything").open("wb") as file:
        for path in itertools.chain.from_iterable(pairs(root)):
            file.write(path.read_bytes())


def ingest(root: Path, to: Path) -> None:
    os.sched_setaffinity(0, {next(iter(os.sched_getaffinity(0)))})  # one core: one process, nothing spawned
    from segpipe.config import DatasetConfig
    from segpipe.stages.ingest import ingest as stage

    stage(DatasetConfig(name="camvid", format="camvid", root=str(root)), to=str(to / "camvid"))


def needed(root: Path, to: Path) -> None:
    """What cannot be left out: reading both files, their headers, writing."""
    from segpipe import masks

    with (to / "everything").open("wb") as file:
        for path in itertools.chain.from_iterable(pairs(root)):
            data = path.read_bytes()
            masks.read_image_header(data, file=path.name)
            file.write(data)


def each_image(use: Callable[[bytes, str], object]) -> Callable[[Path, Path], None]:
    def stage(root: Path, to: Path) -> None:
        for image, _ in pairs(root):
            use(image.read_bytes(), image.name)

    return stage


def headers(data: bytes, name: str) -> None:
    from segpipe import masks

    masks.check_header(data, file=name)


def decode(data: bytes, name: str) -> None:
    from segpipe import masks

    masks.check_image(data, file=name)


def recode_masks(root: Path, to: Path) -> None:
    import pyarrow as pa

    from segpipe import masks
    from segpipe.shards.schema import ZSTD_LEVEL
    from segpipe.sources.camvid import segnet

    table = dict(segnet.CODING.values)
    codec = pa.Codec("zstd", compression_level=ZSTD_LEVEL)
    for _, path in pairs(root):
        raw = masks.read_label_image(path.read_bytes(), file=path.name)
        codec.compress(masks.map_labels(raw, table, file=path.name).tobytes(), asbytes=True)


CONTENDERS: dict[str, Callable[[Path, Path], None]] = {
    "floor: read and append": floor,
    "reading, headers, writing": needed,
    "ingest, all of it": ingest,
    "  reading images": each_image(lambda data, name: None),
    "  reading + headers": each_image(headers),
    "  reading + full decode and look": each_image(decode),
    "  reading + sha256": each_image(lambda data, name: hashlib.sha256(data).digest()),
    "  masks: read, decode, map, zstd": recode_masks,
}


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(name: str, root: Path) -> float:
    """CPU seconds of one contender in this process, with everything imported and every file read before."""
    import pyarrow.parquet  # noqa: F401

    import segpipe.stages.ingest  # noqa: F401

    for path in itertools.chain.from_iterable(pairs(root)):
        path.read_bytes()
    with tempfile.TemporaryDirectory() as to:
        started = cpu_seconds()
        CONTENDERS[name](root, Path(to))
        return cpu_seconds() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "ROOT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure(options.one[0], Path(options.one[1])))
        return
    root = Path(os.environ.get("SEGPIPE_DATA", "data")) / "camvid"
    if not (root / "train.txt").exists():
        parser.error(f"{root}/train.txt is not there: set SEGPIPE_DATA to the folder that holds camvid/")
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _, name in itertools.product(range(options.rounds), CONTENDERS):
        command = [sys.executable, __file__, "--one", name, str(root)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True
        )
        found[name].append(float(done.stdout))
    reference = statistics.median(found["floor: read and append"])
    report: list[dict[str, Any]] = [
        {
            "stage": name,
            "cpu_seconds": round(statistics.median(times), 3),
            "low": round(min(times), 3),
            "high": round(max(times), 3),
            "floors": round(statistics.median(times) / reference, 2),
        }
        for name, times in found.items()
    ]
    if options.json:
        print(json.dumps(report))
        return
    files = list(pairs(root))
    size = sum(path.stat().st_size for path in itertools.chain.from_iterable(files)) / 2**20
    print(f"{len(files)} pairs, {size:.0f} MiB, {options.rounds} rounds, process CPU seconds")
    for row in report:
        spread = f"({row['low']:.3f}-{row['high']:.3f})"
        print(f"  {row['stage']:34} {row['cpu_seconds']:7.3f} s {spread:>17}   {row['floors']:6.1f} floors")


if __name__ == "__main__":
    main()
