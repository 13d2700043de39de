"""What ingest costs, stage by stage, beside the floor: reading every file and appending it to one.

    SEGPIPE_DATA=... python benchmarks/ingest.py [--peers PYTHON] [--rounds 5] [--json]

Works on CamVid's 701 pairs, from a warm page cache, in one process. The clock is process CPU seconds, since other work
falsifies the wall clock; each round is a fresh process and medians are told. `ingest` is the whole stage as a night
runs it: it decodes every file once, looks at it and recodes its mask, on all cores in life. The stages below it are its
parts, each timed alone over all files, so that one sees what a check costs. The goals are for what cannot be left out,
`reading, headers, writing`, which is what other writers do, and the headers, which they do not read: at least 0.7 of
the floor's speed (1.43 floors), and 1.5 times that of MosaicML's MDSWriter, which --peers (see `input.py`) adds. The
hashes of images and shard are a stage of their own. `pyarrow alone` is the limit for anybody who writes Parquet: the
same bytes read and given to its writer in ready columns, without a header, a check or a hash.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers

ROOT = Path(__file__).parents[1]
LISTS = ("train", "val", "test")


def pairs(root: Path) -> list[tuple[Path, Path]]:
    """(image, mask) of all three lists, in the SegNet layout."""
    return [pair for name in LISTS for pair in peers.pairs(root, name)]


def floor(root: Path, to: Path) -> None:
    with (to / "everything").open("wb") as file:
        for path in itertools.chain.from_iterable(pairs(root)):
            file.write(path.read_bytes())


def ingest(root: Path, to: Path) -> None:
    os.sched_setaffinity(0, {next(iter(os.sched_getaffinity(0)))})  # one core: one process, nothing spawned
    from segpipe.config import DatasetConfig
    from segpipe.stages.ingest import ingest as stage

    stage(DatasetConfig(name="camvid", format="camvid", root=str(root)), to=str(to / "camvid"))


class NoHash:
    """In place of SHA-256: as many names, all different, and no work."""

    numbers = itertools.count()

    def __init__(self, data: bytes = b"") -> None:
        self.name = next(self.numbers).to_bytes(32, "big")

    def update(self, data: bytes) -> None:
        pass

    def digest(self) -> bytes:
        return self.name

    def hexdigest(self) -> str:
        return self.name.hex()


def needed(root: Path, to: Path) -> None:
    """What cannot be left out: both files read, their headers, and the shards' own writer with the files as shipped."""
    real, hashlib.sha256 = hashlib.sha256, NoHash  # type: ignore[assignment, misc]
    try:
        hashed(root, to)
    finally:
        hashlib.sha256 = real  # type: ignore[misc]


def hashed(root: Path, to: Path) -> None:
    from segpipe import masks
    from segpipe.shards import write_shard
    from segpipe.types import Sample

    def samples() -> Iterator[Sample]:
        for image, mask in pairs(root):
            data, labels = image.read_bytes(), mask.read_bytes()
            header = masks.check_header(data, file=image.name)
            assert masks.read_image_header(labels, file=mask.name)[:2] == header[:2]
            name = image.stem
            size = {"height": header.height, "width": header.width}
            yield Sample(sample_id=name, group=name, image=data, extras={"mask": labels}, **size)

    write_shard(samples(), str(to), "all")


def pyarrow_alone(root: Path, to: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from segpipe.shards.grouping import GROUP_BYTES

    schema = pa.schema([("image", pa.binary()), ("mask", pa.binary())])
    columns: tuple[list[bytes], list[bytes]] = ([], [])
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    with pq.ParquetWriter(to / "all.parquet", schema, **options) as writer:
        filled = 0
        for pair in pairs(root):
            for path, column in zip(pair, columns, strict=True):
                column.append(path.read_bytes())
                filled += len(column[-1])
            if filled > GROUP_BYTES:
                writer.write_table(
                    pa.Table.from_arrays([pa.array(each, pa.binary()) for each in columns], schema=schema)
                )
                columns, filled = ([], []), 0
        writer.write_table(pa.Table.from_arrays([pa.array(each, pa.binary()) for each in columns], schema=schema))


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


FLOOR, LIMIT = "floor: read and append", "limit: read, pyarrow alone"
NEEDED, MOSAIC = "reading, headers, writing", "mosaicml's writer"
CONTENDERS: dict[str, Callable[[Path, Path], None]] = {
    FLOOR: floor,
    LIMIT: pyarrow_alone,
    NEEDED: needed,
    f"{NEEDED}, sha256": hashed,
    "ingest, all of it": ingest,
    "  reading images": each_image(lambda data, name: None),
    "  reading + headers": each_image(headers),
    "  reading + full decode and look": each_image(decode),
    "  reading + sha256": each_image(lambda data, name: hashlib.sha256(data).digest()),
    "  masks: read, decode, map, zstd": recode_masks,
}


def measure(name: str, root: Path) -> float:
    """CPU seconds of one contender in this process, with everything imported and every file read before."""
    import pyarrow.parquet  # noqa: F401

    import segpipe.stages.ingest  # noqa: F401

    for path in itertools.chain.from_iterable(pairs(root)):
        path.read_bytes()
    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as to:
        CONTENDERS[name](root, Path(warm))  # once in vain: what is loaded when first used is not writing
        started = peers.cpu_seconds()
        CONTENDERS[name](root, Path(to))
        return peers.cpu_seconds() - started


def writers() -> list[str]:
    return [f"{name}'s writer" for name in peers.WRITERS]


def run(name: str, peer_python: str | None, root: Path) -> float:
    """CPU seconds of one contender, in a fresh process."""
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, __file__, "--one", name, str(root)]
        if name not in CONTENDERS:
            assert peer_python is not None
            peer = name.removesuffix("'s writer")
            command = [peer_python, str(Path(peers.__file__)), "prepare", peer, str(root), f"{store}/{peer}", *LISTS]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="PYTHON", help="an environment with benchmarks/peers.txt")
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
    names = [*CONTENDERS, *(writers() if options.peers else [])]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _, name in itertools.product(range(options.rounds), names):
        found[name].append(run(name, options.peers, root))
    reference = statistics.median(found[FLOOR])
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
    ours = statistics.median(found[NEEDED])
    goals = {"floor": (reference / ours, 0.7)}
    if MOSAIC in found:
        goals["MDSWriter"] = (statistics.median(found[MOSAIC]) / ours, 1.5)
    if options.json:
        print(
            json.dumps(
                {"stages": report, "goals": {name: {"is": is_, "goal": goal} for name, (is_, goal) in goals.items()}}
            )
        )
        return
    files = pairs(root)
    size = sum(path.stat().st_size for path in itertools.chain.from_iterable(files)) / 2**20
    print(f"{len(files)} pairs, {size:.0f} MiB, {options.rounds} rounds, process CPU seconds")
    for row in report:
        spread = f"({row['low']:.3f}-{row['high']:.3f})"
        print(f"  {row['stage']:34} {row['cpu_seconds']:7.3f} s {spread:>17}   {row['floors']:6.1f} floors")
    for name, (is_, goal) in goals.items():
        print(f"{NEEDED}: {is_:.2f} times the speed of the {name}; goal {goal}, {'met' if is_ >= goal else 'missed'}")


if __name__ == "__main__":
    main()
