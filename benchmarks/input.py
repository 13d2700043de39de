"""How fast images reach the device: segpipe's reader and loader beside the usual way, on the same images and crops.

    SEGPIPE_DATA=... python benchmarks/input.py [--rounds 5] [--workers 0 2] [--json]

Every contender makes batches of 8 random crops of 360x480 (scale 0.5 to 2, mirrored, colours changed) of CamVid's
training images. `files + v2` is the reference: a torch DataLoader over the files with torchvision's v2 transforms, as
its documentation shows them, to normalised float32. `files + v2, uint8` stops before that, as segpipe does, which
normalises on the device. `decode only` is the floor: libjpeg-turbo and nothing else.

The clock is process CPU seconds, of workers too, since other work on the machine falsifies the wall clock; contenders
run in turn, each round in a fresh process, and medians are compared. Compare numbers of one session only.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CROP, SCALE, FLIP, COLOUR, BATCH = (360, 480), (0.5, 2.0), 0.5, 0.4, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GOALS = {"files + v2": 4.0, "files + v2, uint8": 2.2, "decode only": 0.65}


def pairs(root: Path) -> list[tuple[Path, Path]]:
    """(image, mask) of CamVid's training list, in the SegNet layout."""
    lines = (root / "train.txt").read_text().split("\n")
    return [tuple(root / "/".join(path.split("/")[-2:]) for path in line.split()) for line in lines if line.strip()]  # type: ignore[misc]


def files_v2(root: Path, uri: str, workers: int, *, uint8: bool = False) -> Generator[int]:
    """A DataLoader over the files. Yields the number of images of each batch."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    steps: list[Any] = [
        v2.ScaleJitter(CROP, scale_range=SCALE, antialias=True),
        v2.RandomCrop(CROP, pad_if_needed=True, fill={tv_tensors.Image: 124, tv_tensors.Mask: 255}),
        v2.RandomHorizontalFlip(FLIP),
        v2.ColorJitter(COLOUR, COLOUR, COLOUR),
    ]
    if not uint8:
        steps += [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose(steps)

    class Files(Dataset[tuple[Any, Any]]):
        def __init__(self) -> None:
            self.pairs = pairs(root)

        def __len__(self) -> int:
            return len(self.pairs)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image, mask = self.pairs[index]
            pixels = v2.functional.pil_to_tensor(Image.open(image).convert("RGB"))
            labels = v2.functional.pil_to_tensor(Image.open(mask))
            found: tuple[Any, Any] = transform(tv_tensors.Image(pixels), tv_tensors.Mask(labels))
            return found

    torch.set_num_threads(1)
    loader = DataLoader(
        Files(),
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        multiprocessing_context="fork" if workers else None,
        persistent_workers=workers > 0,
    )
    while True:
        for images, _ in loader:
            yield len(images)


def files_v2_uint8(root: Path, uri: str, workers: int) -> Generator[int]:
    return files_v2(root, uri, workers, uint8=True)


def segpipe(root: Path, uri: str, workers: int) -> Generator[int]:
    """Our own: Parquet, threads, crop first, uint8. `workers` are threads; with none, one works ahead."""
    import torch

    from segpipe.config import TrainConfig
    from segpipe.data.loader import TrainBatches
    from segpipe.shards import open_dataset
    from segpipe.tasks import TASKS
    from segpipe.types import Task

    torch.set_num_threads(1)
    augment = {"crop": list(CROP), "scale": list(SCALE), "flip": FLIP, "colour": COLOUR}
    document = {"epochs": 1, "batch_size": BATCH, "augment": augment, "loader_threads": max(1, workers)}
    config = TrainConfig.model_validate_json(json.dumps(document))
    dataset = open_dataset(uri)
    ops = TASKS[Task.SEMANTIC](dataset.manifest.classes, dataset.manifest.ignore_index)
    batches = TrainBatches(dataset, config, ops.collate, rank=0, world_size=1)
    for epoch in itertools.count():
        for batch in batches.epoch(epoch):
            yield len(batch.sample_ids)


def decode_only(root: Path, uri: str, workers: int) -> Generator[int]:
    """libjpeg-turbo by Pillow, and nothing else."""
    import io

    from PIL import Image

    files = [image.read_bytes() for image, _ in pairs(root)]
    while True:
        for data in files:
            Image.open(io.BytesIO(data)).load()
            yield 1


CONTENDERS: dict[str, Callable[[Path, str, int], Generator[int]]] = {
    "files + v2": files_v2,
    "files + v2, uint8": files_v2_uint8,
    "segpipe": segpipe,
    "decode only": decode_only,
}


def cpu_seconds() -> float:
    """Of this process, its threads, and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(name: str, root: Path, uri: str, workers: int, images: int) -> float:
    """CPU seconds of one contender for `images`, start and end of its workers included."""
    batches, seen, started = CONTENDERS[name](root, uri, workers), 0, cpu_seconds()
    while seen < images:
        seen += next(batches)
    batches.close()  # ends worker processes, whose time counts only then
    gc.collect()
    return cpu_seconds() - started


def run(name: str, root: Path, uri: str, workers: int, images: int) -> float:
    """`measure` in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--images", str(images), "--one", name, str(root), uri, str(workers)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=4, metavar=("NAME", "ROOT", "URI", "WORKERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, root, uri, workers = options.one
        print(measure(name, Path(root), uri, int(workers), options.images))
        return
    root = Path(os.environ.get("SEGPIPE_DATA", "data")) / "camvid"
    if not (root / "train.txt").exists():
        parser.error(f"{root}/train.txt is not there: set SEGPIPE_DATA to the folder that holds camvid/")
    with tempfile.TemporaryDirectory() as home:
        sys.path.insert(0, str(ROOT))
        from segpipe.config import DatasetConfig
        from segpipe.stages.ingest import ingest

        uri = ingest(DatasetConfig(name="camvid", format="camvid", root=str(root)), to=f"{home}/camvid").uri
        rates: dict[tuple[str, int], list[float]] = {}
        for _, workers, name in itertools.product(range(options.rounds), options.workers, CONTENDERS):
            # The difference of two runs: starting, the first batches and what was prepared in vain are in both.
            short, long = (run(name, root, uri, workers, count * options.images) for count in (1, 3))
            rates.setdefault((name, workers), []).append(2 * options.images / (long - short))
    report = [
        {
            "contender": name,
            "workers": workers,
            "images_per_cpu_second": round(statistics.median(found), 1),
            "low": round(min(found), 1),
            "high": round(max(found), 1),
            "segpipe_is": round(statistics.median(rates["segpipe", workers]) / statistics.median(found), 2),
            "goal": GOALS.get(name),
        }
        for (name, workers), found in rates.items()
    ]
    if options.json:
        print(json.dumps(report))
        return
    print(f"{options.rounds} rounds of {options.images} images, {os.cpu_count()} cores, process CPU seconds")
    for row in report:
        goal = f"goal {row['goal']}" if row["goal"] else ""
        print(
            f"  {row['workers']} workers  {row['contender']:18} {row['images_per_cpu_second']:8.1f} images/s "
            f"({row['low']:.1f}-{row['high']:.1f})   segpipe is {row['segpipe_is']:5.2f} times as fast   {goal}"
        )


if __name__ == "__main__":
    main()
