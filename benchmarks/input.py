"""How fast images reach the device: segpipe's reader and loader beside others, on the same images and crops.

    SEGPIPE_DATA=... python benchmarks/input.py [--peers PYTHON] [--rounds 5] [--workers 0 2] [--colour 0] [--json]

Every contender makes batches of 8 random crops of 360x480 (scale 0.5 to 2, mirrored) of CamVid's training images.
`files, v2` is the reference: a torch DataLoader over the files with torchvision's v2 transforms to normalised float32;
`files, v2, uint8` stops before that, as segpipe does, which normalises on the device: `segpipe, float32` does that too,
on the CPU. `decode only` is the floor: libjpeg-turbo and nothing else. With --colour, brightness, contrast and
saturation change too, which segpipe leaves to the device as well. The stores of other libraries (`peers.py`) all use
v2 to uint8. --peers is the Python of an environment with `peers.txt` in it (`make .cache/peers/installed`); without it,
only what needs nothing else is measured.

The clock is process CPU seconds, of workers too, since other work on the machine falsifies the wall clock. Contenders
run in turn, each round in a fresh process, from when a loader has made a third of the images on. Medians; compare
numbers of one session only, and of a machine that does nothing else: two busy cores slow each other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers

ROOT = Path(__file__).parents[1]
OURS = ("segpipe", "segpipe, float32")
# How many times as fast as these `segpipe` wants to be, up to uint8 crops; only the first does the device's part too.
GOALS = {"files, v2": 4.0, "files, v2, uint8": 2.2, "decode only": 0.65}


def segpipe(uri: str, workers: int, colour: float, *, float32: bool) -> Iterator[Any]:
    """Our own: Parquet, threads, crop first, uint8. `workers` are threads; with none, one works ahead."""
    import torch

    from segpipe.config import TrainConfig
    from segpipe.data.batch import training_inputs
    from segpipe.data.loader import TrainBatches
    from segpipe.shards import open_dataset

    augment = {"crop": list(peers.CROP), "scale": list(peers.SCALE), "flip": peers.FLIP, "colour": colour}
    document = {"epochs": 1, "batch_size": peers.BATCH, "augment": augment, "loader_threads": max(1, workers)}
    config = TrainConfig.model_validate_json(json.dumps(document))
    dataset = open_dataset(uri)
    batches = TrainBatches(dataset, config, rank=0, world_size=1)
    for epoch in itertools.count():
        for batch in batches.epoch(epoch):
            yield training_inputs(batch, torch.device("cpu")) if float32 else batch


def run(name: str, options: argparse.Namespace, store: Path, workers: int, images: int) -> float:
    """CPU seconds of one contender for `images`, in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if name in OURS:
        command = [sys.executable, __file__, "--one", name, str(store / "segpipe"), str(workers), str(images)]
        command += ["--colour", str(options.colour)]
    else:
        reader = [str(Path(peers.__file__)), "read", name, str(options.camvid), str(store / name)]
        command = [options.peers or sys.executable, *reader, str(workers), str(images), str(options.colour)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def prepare(options: argparse.Namespace, store: Path) -> list[str]:
    """Writes every contender's store; the names of the contenders."""
    from segpipe.config import DatasetConfig
    from segpipe.stages.ingest import ingest

    ingest(DatasetConfig(name="camvid", format="camvid", root=str(options.camvid)), to=str(store / "segpipe"))
    if not options.peers:
        return [*OURS, "files, v2", "files, v2, uint8", "decode only"]
    for name in peers.WRITERS:
        command = [options.peers, str(Path(peers.__file__)), "prepare", name, str(options.camvid), str(store / name)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return [*OURS, *peers.READERS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="PYTHON", help="an environment with benchmarks/peers.txt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--colour", type=float, default=0.0, help="strength of the colour changes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=4, metavar=("NAME", "URI", "WORKERS", "IMAGES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, uri, workers, images = options.one
        source = segpipe(uri, int(workers), options.colour, float32=name.endswith("float32"))
        print(peers.measure(source, int(images)))
        return
    options.camvid = Path(os.environ.get("SEGPIPE_DATA", "data")) / "camvid"
    if not (options.camvid / "train.txt").exists():
        parser.error(f"{options.camvid}/train.txt is not there: set SEGPIPE_DATA to the folder that holds camvid/")
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, str(ROOT))
        contenders = prepare(options, Path(folder))
        for _, workers, name in itertools.product(range(options.rounds), options.workers, contenders):
            if name == "decode only" and workers:
                continue
            seconds = run(name, options, Path(folder), workers, options.images)
            rates.setdefault((name, workers), []).append(options.images // peers.BATCH * peers.BATCH / seconds)
    report = [
        {
            "contender": name,
            "workers": workers,
            "images_per_cpu_second": round(statistics.median(found), 1),
            "low": round(min(found), 1),
            "high": round(max(found), 1),
            "segpipe_is": round(statistics.median(rates["segpipe", workers]) / statistics.median(found), 2),
            "segpipe_float32_is": round(statistics.median(rates[OURS[1], workers]) / statistics.median(found), 2),
            "goal": GOALS.get(name),
        }
        for (name, workers), found in rates.items()
    ]
    if options.json:
        print(json.dumps(report))
        return
    print(f"{options.rounds} rounds, colour {options.colour}, {os.cpu_count()} cores, images per CPU second (low-high)")
    print("  workers  contender               images/s                  segpipe is   as float32")
    for row in report:
        goal = f"   goal {row['goal']}" if row["goal"] else ""
        spread = f"({row['low']:.0f}-{row['high']:.0f})"
        print(
            f"  {row['workers']:7}  {row['contender']:18} {row['images_per_cpu_second']:10.1f} {spread:15} "
            f"{row['segpipe_is']:8.2f}x {row['segpipe_float32_is']:10.2f}x{goal}"
        )


if __name__ == "__main__":
    main()
