"""How fast Mask R-CNN trains: segpipe's loop beside torchvision's reference loop, on the same COCO images.

    SEGPIPE_DATA=... python benchmarks/detection.py [--folder coco_mini] [--backbone resnet50] [--short 800]
        [--batch 2] [--steps 30] [--rounds 3] [--workers 4] [--json]

Both train the same network (torchvision's parts, 81 outputs, random weights, SGD) on a GPU where there is one. The
reference is what torchvision's detection guide shows: CocoDetection wrapped for v2 transforms, a DataLoader with worker
processes, `maskrcnn_resnet50_fpn`, which resizes and pads inside; with `amp`, under autocast to bfloat16 as its
reference script does. segpipe is `train.loop.fit` itself, from Parquet; a crop is as large as most of the reference's
images are once resized: short side x 4/3 of it. What is told is images per second of wall time, once a third of the
steps has gone by; contenders take turns, each round in a fresh process. Medians; compare numbers of one session only.
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
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "flows" / "recipes" / "coco.yaml"
PRECISIONS = {"float32": "torchvision", "bfloat16": "torchvision, amp"}
CONTENDERS = tuple(itertools.chain.from_iterable((f"segpipe, {own}", peer) for own, peer in PRECISIONS.items()))
GOAL = 1.3
USUAL_SHORT_SIDE = 480  # of COCO's photographs


class EnoughError(Exception):
    """The steps that were wanted are measured."""


def stopwatch(options: argparse.Namespace) -> Callable[[int], None]:
    """To be told of steps that are done; prints images per second once enough are, and raises EnoughError."""
    skipped = max(2, options.steps // 3)
    times: dict[int, float] = {}

    def tick(step: int) -> None:
        if step >= skipped:
            times[step] = time.perf_counter()
        first = min(times, default=step)
        if step >= first + options.steps:
            print((step - first) * options.batch / (times[step] - times[first]))
            raise EnoughError

    return tick


def run_segpipe(options: argparse.Namespace, uri: str, precision: str) -> None:
    from segpipe.config import Recipe
    from segpipe.shards import open_dataset
    from segpipe.stages.identity import resolve
    from segpipe.train.loop import fit
    from segpipe.train.runtime import LocalRuntime
    from segpipe.train.session import TrainJob

    crop = [options.short, round(options.short * 4 / 3 / 32) * 32]
    settings = {
        "dataset.root": str(options.root),
        "architectures": f"[{{arch: mask_rcnn, options: {{backbone: {options.backbone}}}}}]",
        "train.epochs": 4,
        "train.batch_size": options.batch,
        "train.input_scale": options.short / USUAL_SHORT_SIDE,
        "train.augment": f"{{crop: {crop}, scale: [1, 1], colour: 0}}",
        "train.learning_rate": 0.0001,
        "train.precision": precision,
        "train.loader_threads": options.workers,
    }
    recipe = Recipe.load(str(RECIPE), tuple(f"{key}={value}" for key, value in settings.items()))
    job = TrainJob(
        run=resolve(recipe.run_config(0)),
        data=uri,
        version=open_dataset(uri).version,
        run_uri=f"{uri}-run-{precision}-{time.time_ns()}",
        code_version="",
    )
    tick = stopwatch(options)
    fit(job, LocalRuntime(on_progress=lambda progress: tick(progress.step)))


def run_torchvision(options: argparse.Namespace, precision: str) -> None:
    import faster_coco_eval
    import torch

    faster_coco_eval.init_as_pycocotools()  # which torchvision asks for; the same functions, and no slower
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.transforms import v2

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = [v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True), v2.SanitizeBoundingBoxes()]
    found = CocoDetection(
        str(options.root / "train2017"),
        str(options.root / "annotations" / "instances_train2017.json"),
        transforms=v2.Compose(steps),
    )
    labelled = [index for index, image_id in enumerate(found.ids) if found.coco.getAnnIds(imgIds=image_id)]
    wrapped = wrap_dataset_for_transforms_v2(found, target_keys=("boxes", "labels", "masks"))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(wrapped, labelled),
        batch_size=options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        collate_fn=lambda rows: tuple(zip(*rows, strict=True)),
    )
    backbone = resnet_fpn_backbone(backbone_name=options.backbone, weights=None, trainable_layers=5)
    longest = options.short * 1333 // 800
    model = MaskRCNN(backbone, num_classes=91, min_size=options.short, max_size=longest).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0001, momentum=0.9, weight_decay=1e-4)
    tick = stopwatch(options)

    epochs = (loader for _ in itertools.count())
    for step, (images, targets) in enumerate(itertools.chain.from_iterable(epochs), start=1):
        images = [image.to(device) for image in images]
        targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())  # the reference logs the loss of every step, for which it waits; so does segpipe
        tick(step)


def run(name: str, options: argparse.Namespace, uri: str) -> float:
    """Images per second of one contender, in a fresh process."""
    command = [sys.executable, __file__, "--one", name, "--uri", uri]
    for key in ("folder", "backbone", "short", "batch", "steps", "workers"):
        command += [f"--{key}", str(getattr(options, key))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="coco_mini", help="below SEGPIPE_DATA, in COCO 2017's layout")
    parser.add_argument("--backbone", default="resnet50", choices=("resnet18", "resnet34", "resnet50", "resnet101"))
    parser.add_argument("--short", type=int, default=800, help="pixels of an image's short side inside the network")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4, help="loader threads of segpipe, processes of the reference")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--uri", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.root = Path(os.environ.get("SEGPIPE_DATA", "data")).resolve() / options.folder
    if options.one:
        precision = "bfloat16" if options.one.endswith(("bfloat16", "amp")) else "float32"
        try:
            if options.one.startswith("segpipe"):
                run_segpipe(options, options.uri, precision)
            else:
                run_torchvision(options, precision)
        except EnoughError:
            return
    if not (options.root / "annotations" / "instances_train2017.json").exists():
        parser.error(f"{options.root} holds no annotations/instances_train2017.json: set SEGPIPE_DATA or --folder")
    sys.path.insert(0, str(ROOT))
    from segpipe.config import DatasetConfig
    from segpipe.stages.ingest import ingest

    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "coco")
        ingest(DatasetConfig(name="coco", format="coco", root=str(options.root)), to=uri)
        for _, name in itertools.product(range(options.rounds), CONTENDERS):
            rates[name].append(run(name, options, uri))
            print(f"{name}: {rates[name][-1]:.2f} images/s", file=sys.stderr, flush=True)
    median = {name: statistics.median(found) for name, found in rates.items()}
    ratio = {own: median[f"segpipe, {own}"] / median[peer] for own, peer in PRECISIONS.items()}
    if options.json:
        print(json.dumps({"images_per_second": rates, "ratio": ratio, "goal": GOAL}))
        return
    print(
        f"{options.backbone}, short side {options.short}, batches of {options.batch}, {options.rounds} rounds: images/s"
    )
    for name, found in rates.items():
        print(f"  {name:20} {median[name]:8.2f} ({min(found):.2f}-{max(found):.2f})")
    for precision, times in ratio.items():
        print(f"  {precision}: segpipe is {times:.2f} times as fast as torchvision's loop; goal {GOAL} on a GPU")


if __name__ == "__main__":
    main()
