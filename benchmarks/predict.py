"""How fast images become predictions: `segpipe predict`'s stages beside the bare model, in the same session.

    python benchmarks/predict.py [--images 32] [--size 360x480] [--arch unet] [--rounds 3] [--threads 1] [--json]

`bare` is the network alone, in the memory layout in which it is placed everywhere: tensors that are normalised already,
in batches of the same size, and the arg max of its logits. `contiguous` is the same in the other layout. `files` is the
stage that decodes JPEG files, predicts and writes PNG masks and their records; `dataset` reads them and writes a
dataset version (labels and uncertainty). Both load the model within their time. What counts is the share of the faster
of the two bare speeds, at least 0.9; the medians of rounds that alternate. Where others keep the cores busy, the CPU
time of the process tells more than the clock: what decoding, writing and loading cost beside the network. Weights are
random: time does not depend on them, but for masks without structure, which compress badly. Compare numbers of one
session only.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from segpipe import checkpoint, models
from segpipe.data.batch import normalise
from segpipe.stages.predict import predict
from segpipe.stages.predict_dataset import predict_dataset
from segpipe.types import IMAGENET_MEAN, IMAGENET_STD, ClassInfo, Inference, LabelCoding, ModelBundle, Task

CLASSES = tuple(ClassInfo(name=f"class {k}", colour=(20 * k, 255 - 20 * k, 90)) for k in range(11))
GOAL = 0.9


def photographs(folder: Path, number: int, height: int, width: int) -> None:
    """JPEG files of coloured fields with noise."""
    for at in range(number):
        random = np.random.default_rng(at)
        fields = (
            random.integers(0, 256, (6, 8, 3)).repeat(-(-height // 6), 0).repeat(-(-width // 8), 1)[:height, :width]
        )
        noisy = (fields + random.integers(-12, 13, fields.shape)).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=90)
        (folder / f"{at:04d}.jpg").write_bytes(stream.getvalue())


def bundle_at(run: Path, arch: str) -> str:
    """A bundle of random weights."""
    torch.manual_seed(0)
    network = models.create(arch, len(CLASSES))
    bundle = ModelBundle(
        arch=arch,
        options={},
        task=Task.SEMANTIC,
        classes=CLASSES,
        ignore_index=255,
        coding=LabelCoding(values=()),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_scale=1.0,
        inference=Inference(scales=(1.0,), mirror=False),
        dataset="none",
        dataset_version="0" * 64,
        config_digest="",
        code_version="",
        weights_sha256="",
    )
    checkpoint.save_model(str(run), network.state_dict(), bundle)
    return checkpoint.model_uri(str(run))


def bare(network: nn.Module, layout: torch.memory_format, number: int, size: tuple[int, int], batch_size: int) -> float:
    """Images a second of the network alone, given them in that layout."""
    images = torch.randint(0, 256, (batch_size, *size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    inputs = normalise(images).contiguous(memory_format=layout)
    with torch.inference_mode():
        started = time.perf_counter()
        for _ in range(number // batch_size):
            network(inputs).logits_NKHW.argmax(1)
        return number // batch_size * batch_size / (time.perf_counter() - started)


def main() -> None:
    """Measures and prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="loading the model counts: of 32, a tenth of the time")
    parser.add_argument("--size", default="360x480")
    parser.add_argument("--arch", default="unet")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the network; decoding and writing have their own")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    height, width = map(int, asked.size.split("x"))
    speeds: dict[str, list[float]] = {"bare": [], "contiguous": [], "files": [], "dataset": []}
    cpu: dict[str, list[float]] = {name: [] for name in speeds}
    spent = time.process_time()

    def note(name: str, speed: float | None) -> None:
        nonlocal spent
        speeds[name].append(speed or 0.0)
        cpu[name].append((time.process_time() - spent) / asked.images)
        spent = time.process_time()

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "photos").mkdir()
        photographs(place / "photos", asked.images, height, width)
        model_uri = bundle_at(place / "run", asked.arch)
        source = str(place / "photos")
        layouts = {"bare": torch.channels_last, "contiguous": torch.contiguous_format}
        networks = {name: checkpoint.load_model(model_uri)[0] for name in layouts}
        networks["contiguous"].to(memory_format=torch.contiguous_format)
        # Warm: what is imported once is no cost of an image.
        for name, layout in layouts.items():
            bare(networks[name], layout, asked.batch_size, (height, width), asked.batch_size)
        predict(model_uri, str(place / "photos" / "0000.jpg"), to=str(place / "warm"))
        predict_dataset(
            model_uri, str(place / "photos" / "0000.jpg"), name="warm", to=str(place / "warmed"), runtime="local"
        )
        for number in range(asked.rounds):
            spent = time.process_time()
            for name, layout in layouts.items():
                note(name, bare(networks[name], layout, asked.images, (height, width), asked.batch_size))
            files = predict(model_uri, source, to=str(place / f"files{number}"), batch_size=asked.batch_size)
            note("files", files.images_per_second)
            rows = predict_dataset(
                model_uri,
                source,
                name="said",
                to=str(place / f"said{number}"),
                batch_size=asked.batch_size,
                runtime="local",
            )
            note("dataset", rows.images_per_second)
    middle = {name: statistics.median(found) for name, found in speeds.items()}
    result: dict[str, Any] = {
        "arch": asked.arch,
        "size": asked.size,
        "images": asked.images,
        "threads": asked.threads,
        "images_per_second": middle,
        "share_of_bare": shares(speeds),
        "share_of_bare_by_cpu_time": shares({name: [1 / each for each in found] for name, found in cpu.items()}),
        "cpu_seconds_per_image": {name: statistics.median(found) for name, found in cpu.items()},
        "goal": GOAL,
    }
    if asked.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{asked.arch}, {asked.size}, {asked.images} images, {asked.threads} thread(s), median of {asked.rounds}")
    for name, speed in middle.items():
        share, by_cpu = result["share_of_bare"][name], result["share_of_bare_by_cpu_time"][name]
        print(f"  {name:10} {speed:7.2f} images/s   {share:.2f} of bare (goal {GOAL})   by CPU time {by_cpu:.2f}")


def shares(speeds: dict[str, list[float]]) -> dict[str, float]:
    """Of the faster bare speed of the same round, the median: what else a machine does changes with time."""
    best = [max(both) for both in zip(speeds["bare"], speeds["contiguous"], strict=True)]
    return {
        name: statistics.median(one / other for one, other in zip(found, best, strict=True))
        for name, found in speeds.items()
    }


if __name__ == "__main__":
    main()
