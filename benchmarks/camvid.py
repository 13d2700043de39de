"""One table of every network for pixels on CamVid, 11 classes, 360x480, SegNet's split (367, 101, 233).

    SEGPIPE_DATA=... python benchmarks/camvid.py run --to FOLDER [--archs unet,segnet] [--seeds 0,1,2]
        [--weights FOLDER] [--epochs N | --seconds S] [--scale 0.5] [--crop 160x208] [--batch 4] [--part 0/2] [--whole]
    python benchmarks/camvid.py table --to FOLDER
    python benchmarks/camvid.py page --to FOLDER

`run` trains and scores, an architecture after the other (every semantic one that answers with logits for each pixel,
so not mask2former), with `train.loop.fit` and the evaluation loop, and leaves a JSON file for each beside its run: what
is there is not done again, so that a run may be cut off, or dealt out (`--part`); a folder holds outcomes of one
setting. It needs no Ray, Prefect or MLflow, and uses a GPU where there is one. `table` prints the files as one table of
Markdown, the published numbers with their protocols below it; `page` draws FOLDER/page.png, what each says of the same
three images.

All are trained alike: random weights, AdamW, poly schedule, flips, scales 0.75 to 1.5, square-rooted ENet weights, the
last epoch's average of weights; the split of the test is looked at once. `--weights` names a folder of weight files,
each called as a backbone or an architecture (resnet50.pth): what has one there is trained from it as well, as a row of
its own. `--epochs` gives all of them the same number of images; `--seconds` the same CPU time, at least one epoch,
which is what a bounded run on a CPU can be: such a table says what learns quickly, and nothing of what architectures
come to in the end. `--whole` takes the papers' members; else backbones are small ones (`SMALL`), and converted
classifiers narrow (`SMALL_CLASSIFIER`).

Images enter at `--scale` and are scored at 360x480. GFLOPs (two for a product and its sum) are of a whole image of
360x480; images per second of one core (or the GPU) are of an image as it enters, with scores resized to that size and
not to 360x480.

Outcomes of one code make one row, with the mean and the deviation of their seeds; those of another are another row, and
which code made which row is said below the table.

Boundary IoU is of each class over the split, at a fiftieth of the diagonal (arXiv:2103.16562), averaged over classes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import camvid_table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
HEIGHT, WIDTH, NUM_CLASSES = 360, 480, 11
WEIGHT_FILES = (".safetensors", ".pth", ".pt")
# What a backbone of a paper, by the beginning of its name, is exchanged for in a bounded run; and how wide its
# convolutionalised classifier then is.
SMALL = {"resnet": "resnet18", "vgg16_bn": "vgg16_bn_slim", "vgg16": "vgg16_slim", "xception": "xception_tiny"}
SMALL_CLASSIFIER = 512


def options_of(name: str, *, whole: bool) -> dict[str, Any]:
    """The paper's, or those of a smaller member."""
    from segpipe import models

    usual = models.spec(name).options
    if whole:
        return {}
    backbone = str(usual.get("backbone", ""))
    found: dict[str, Any] = {}
    for beginning, small in SMALL.items():
        if backbone.startswith(beginning):
            found.setdefault("backbone", small)
    if usual.get("fc_channels"):
        found["fc_channels"] = SMALL_CLASSIFIER
    return found


def weights_of(name: str, given: dict[str, Any], folder: str | None) -> str | None:
    """The file of the folder that an architecture with these options starts from, if there is one."""
    from segpipe import models

    wanted = (name, str(models.complete(name, given).get("backbone", "")))
    files = [Path(folder) / f"{called}{suffix}" for called in wanted for suffix in WEIGHT_FILES] if folder else []
    return next((str(file.resolve()) for file in files if file.is_file()), None)


def recipe_of(name: str, seed: int, epochs: int, weights: str | None, options: argparse.Namespace) -> Any:
    from segpipe.config import Recipe

    height, width = (int(part) for part in options.crop.split("x"))
    entry: dict[str, Any] = {"arch": name, "options": options_of(name, whole=options.whole)}
    if weights is not None:
        entry["pretrained"] = weights
    return Recipe.parse(
        {
            "name": "camvid_table",
            "dataset": {"name": "camvid", "format": "camvid"},
            "architectures": [entry],
            "train": {
                "seed": seed,
                "epochs": epochs,
                "batch_size": options.batch,
                "input_scale": options.scale,
                "augment": {"crop": [height, width], "scale": [0.75, 1.5], "colour": 0.3},
                "optimizer": "adamw",
                "learning_rate": 0.001,
                "weight_decay": 0.02,
                "schedule": "poly",
                "warmup_steps": 20,
                "clip_norm": 1.0,
                "precision": "bfloat16",
                "ema_decay": 0.98,
                "class_weights": "enet",
                "class_weight_power": 0.5,
                "evaluate_every": epochs,
                "loader_threads": 1,
            },
        },
        origin="benchmarks/camvid.py",
    )


def seconds_of_a_step(job: Any) -> float:
    """Of a training step as `fit` makes it, by a few of them on the first batches."""
    from segpipe.train.loop import train_step
    from segpipe.train.runtime import LocalRuntime
    from segpipe.train.session import Session

    session = Session(job, LocalRuntime())
    taken = []
    for batch in islice(session.batches.epoch(0, start=0), 4):
        started = time.process_time()
        train_step(session, [batch])
        taken.append(time.process_time() - started)
    return statistics.median(taken[1:])


def operations_of(name: str, given: Any) -> float | None:
    """GFLOPs of a pass over a whole image of CamVid; None of what is no network."""
    from segpipe.profiles import account

    multiply_adds = account(name, NUM_CLASSES, given, passes={(HEIGHT, WIDTH): 1}, crops=None).multiply_adds
    return None if multiply_adds is None else 2 * multiply_adds / 1e9


def seconds_of_an_image(model_uri: str, scale: float) -> float:
    """Of a pass over an image as it enters, scored at that size."""
    import torch
    from step import timed

    from segpipe.checkpoint import load_model
    from segpipe.data.batch import entering_size
    from segpipe.profiles.fields import tensors_in

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, _ = load_model(model_uri, device=device)
    images_13HW = torch.rand((1, 3, *entering_size((HEIGHT, WIDTH), scale)), device=device)
    with torch.inference_mode():
        tensors_in(model(images_13HW))  # the first is slower than all others
        return timed(torch, device, lambda: tensors_in(model(images_13HW)), 5)


def boundary_iou(maps: Any, dataset: Any, num_classes: int, ignore_index: int) -> float:
    """Of each class over the split, averaged over the classes that truth or predictions have."""
    import numpy as np

    from segpipe import masks
    from segpipe.metrics.boundary import segment_boundaries

    both, either = np.zeros(num_classes), np.zeros(num_classes)
    for sample in dataset.samples("test"):
        truth, found = masks.read_map(sample.label_map, sample), maps[sample.sample_id].ids_HW
        counted = truth != ignore_index
        true, said = segment_boundaries(truth) & counted, segment_boundaries(found) & counted
        agreed = true & said & (truth == found)
        both += np.bincount(truth[agreed], minlength=num_classes)[:num_classes]
        either += np.bincount(truth[true], minlength=num_classes)[:num_classes]
        either += np.bincount(found[said], minlength=num_classes)[:num_classes]
        either -= np.bincount(truth[agreed], minlength=num_classes)[:num_classes]
    return float((both[either > 0] / either[either > 0]).mean())


def measured(
    name: str, seed: int, weights: str | None, options: argparse.Namespace, data: str, version: str
) -> dict[str, Any]:
    """Trains and scores one architecture once."""
    import numpy as np
    import torch

    from segpipe import models
    from segpipe.evaluate import Share, assemble, evaluate_share
    from segpipe.shards import open_dataset
    from segpipe.stages.identity import resolve
    from segpipe.train import counting
    from segpipe.train.loop import fit
    from segpipe.train.runtime import LocalRuntime
    from segpipe.train.session import TrainJob
    from segpipe.version import code_version

    dataset = open_dataset(data, version=version)
    steps = dataset.manifest.splits["train"].samples // options.batch

    def job_of(epochs: int) -> TrainJob:
        run = resolve(recipe_of(name, seed, epochs, weights, options).run_config(0))
        uri = f"{options.to}/runs/{name}-{seed}-{run.digest[:12]}"
        return TrainJob(run=run, data=data, version=version, run_uri=uri, code_version=code_version())

    counts = models.spec(name).learns_by == "counting"
    epochs = 1 if counts else options.epochs
    if epochs is None:
        epochs = max(1, round(options.seconds / (seconds_of_a_step(job_of(1)) * steps)))
    job = job_of(epochs)
    result = (counting.fit if counts else fit)(job, LocalRuntime())
    share = Share(
        checkpoint=result.model_uri,
        data=data,
        version=version,
        split="test",
        batch_size=4,
        rank=0,
        world_size=1,
        keep=tuple(dataset.sample_ids("test")),
    )
    counted = evaluate_share(share)
    report = assemble([counted], share=share, experiment="camvid_table", label=name)
    maps = {sample_id: counted.predictions[sample_id].ids_HW for sample_id in camvid_table.shown_samples(dataset)}
    np.savez_compressed(outcome_file(name, seed, weights, options).with_suffix(".npz"), **maps)
    edges = boundary_iou(counted.predictions, dataset, len(dataset.manifest.classes), dataset.manifest.ignore_index)
    return {
        "name": name,
        "seed": seed,
        "options": dict(job.run.options),
        "epochs": epochs,
        "pretrained": weights is not None,
        "train_seconds": result.train_seconds,
        "parameters": result.parameters,
        "gflops": operations_of(name, job.run.options),
        "images_per_second": 1 / seconds_of_an_image(result.model_uri, options.scale),
        "metrics": {**report.metrics, "boundary_iou": edges},
        "low": report.low,
        "high": report.high,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "one CPU core",
        "day": time.strftime("%Y-%m-%d"),
        "code": code_version(),
        "setting": setting_of(options),
    }


def setting_of(options: argparse.Namespace) -> dict[str, Any]:
    bound = {"epochs": options.epochs} if options.epochs else {"seconds": options.seconds}
    return {**bound, **{key: getattr(options, key) for key in ("scale", "crop", "batch", "whole")}}


def outcome_file(name: str, seed: int, weights: str | None, options: argparse.Namespace) -> Path:
    return Path(options.to) / f"{name}-{seed}{'-pretrained' * (weights is not None)}.json"


def run(options: argparse.Namespace) -> None:
    import torch

    from segpipe import models
    from segpipe.config import DatasetConfig
    from segpipe.models.spec import DenseOutput
    from segpipe.stages.ingest import ingest
    from segpipe.types import Task

    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    for file in sorted(Path(options.to).glob("*.json")):
        setting = json.loads(file.read_text())["setting"]
        if setting != setting_of(options):
            sys.exit(f"{file}: was made with {setting}, not {setting_of(options)}; take another folder")
    root = str(Path(os.environ.get("SEGPIPE_DATA", "data")).resolve() / "camvid")
    found = ingest(DatasetConfig(name="camvid", format="camvid", root=root), to=f"{options.to}/data")
    names = [name for name in models.names(Task.SEMANTIC) if models.spec(name).output is DenseOutput]
    names = options.archs.split(",") if options.archs else names
    part, parts = (int(number) for number in options.part.split("/"))
    for seed in map(int, options.seeds.split(",")):
        for name in names[part::parts]:
            supplied = weights_of(name, options_of(name, whole=options.whole), options.weights)
            for weights in (None, supplied) if supplied else (None,):
                file = outcome_file(name, seed, weights, options)
                if file.exists():
                    continue
                shown = f"{name}, seed {seed}" + f", from {weights}" * (weights is not None)
                print(shown, file=sys.stderr, flush=True)
                outcome = measured(name, seed, weights, options, found.uri, found.version)
                file.write_text(json.dumps(outcome))
                print(f"{shown}: mIoU {outcome['metrics']['miou']:.4f}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table", "page"))
    parser.add_argument("--to", required=True, help="folder of datasets, runs and outcomes")
    parser.add_argument("--archs", help="names with commas between them; default: all with logits for each pixel")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seconds", type=float, default=90.0, help="CPU time of training, without --epochs")
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--crop", default="160x208", help="HEIGHTxWIDTH of training crops, after --scale")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--part", default="0/1", help="I/N: every Nth architecture from the Ith on")
    parser.add_argument("--weights", help="folder of weight files, called as backbones or architectures")
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    options.to = str(Path(options.to).resolve())
    if options.command == "run":
        run(options)
    else:
        {"table": camvid_table.table, "page": camvid_table.page}[options.command](options.to)


if __name__ == "__main__":
    main()
