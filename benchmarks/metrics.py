"""What counting costs in evaluation: confusion matrices from logits, the pairs of segments of panoptic quality, COCO's
average precision of masks, and DAVIS' J and F; and how long the gate takes to be sure.

    SEGPIPE_DATA=... python benchmarks/metrics.py [--rounds 9] [--json]

The confusion matrix is timed from float32 logits to counts beside `argmax(1)` and NumPy's bincount over 64-bit keys,
the common way, at 12 and 150 classes on 360x480, for logits of noise and for logits as a network gives them (made at
an eighth of the size). Pairs are timed beside panopticapi's way, np.unique over 64-bit keys, on made maps and, where
SEGPIPE_DATA holds coco_panoptic_sample/, on COCO's; the prediction is the truth, moved by a few pixels. Average
precision is timed from parsed JSON to the twelve numbers beside faster-coco-eval as its users call it, which checks
nothing: 200 images of 480x640 with 8 objects and 40 detections each, in 80 classes. J and F of an object in frames of
480x854 are timed beside OpenCV's dilation of both contours by a disk, as DAVIS' own evaluator does it. The paired
bootstrap, 10,000 resamples of 5,000 images in 19 classes, is timed beside NumPy's multinomial weights with a matrix
product, and beside a loop that gathers each resample, of which a twentieth is run and the time multiplied. All ways are
asserted to count the same before the clock starts, those that draw to find about the same interval. The clock is
process CPU time of one thread, medians over rounds in which the ways take turns; only ratios of one run mean anything.
Goals: 4 times the speed for confusion matrices, 1.5 times for pairs, the same for average precision, 4 times for J and
F, 3 times for the bootstrap, within a second.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from segpipe.masks import encode_rle
from segpipe.metrics import (
    ConfusionMeter,
    DetectionMeter,
    coco_average_precision,
    dataset_miou,
    davis_scores,
    first_maximum,
    paired_bootstrap,
)
from segpipe.metrics.segments import count_pairs

Ids = npt.NDArray[Any]
HEIGHT, WIDTH = 360, 480
CONFUSION_GOAL, PAIRS_GOAL, PRECISION_GOAL, CONTOUR_GOAL, BOOTSTRAP_GOAL = 4.0, 1.5, 1.0, 4.0, 3.0
SCORED, SCORED_CLASSES, RESAMPLES = 5_000, 19, 10_000  # Cityscapes' classes, ten times its validation split
PART = 20  # of the slow way, which gathers 45 GB otherwise
IMAGES, OBJECTS, FOUND, CLASSES = 200, 8, 40, 80
FRAMES = 10
OFFSET = 256**3


def logits(num_classes: int, kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(num_classes)
    if kind == "noise":
        return torch.randn(1, num_classes, HEIGHT, WIDTH, generator=generator)
    coarse = torch.randn(1, num_classes, HEIGHT // 60, WIDTH // 60, generator=generator)
    fine = torch.randn(1, num_classes, HEIGHT // 8, WIDTH // 8, generator=generator)
    fine = 3 * functional.interpolate(coarse, size=fine.shape[-2:], mode="bilinear") + fine
    return functional.interpolate(fine, size=(HEIGHT, WIDTH), mode="bilinear")


def labels_for(scores: Tensor) -> Tensor:
    """What the logits say, moved, with a strip that is ignored."""
    labels = scores.argmax(1).to(torch.uint8).roll((3, 5), (1, 2))
    labels[:, :12] = 255
    return labels


def common_confusion(scores: Tensor, labels: Tensor, num_classes: int) -> Ids:
    truth, predicted = labels.numpy().ravel(), scores.argmax(1).numpy().ravel()
    kept = truth != 255
    keys = truth[kept].astype(np.int64) * num_classes + predicted[kept]
    return np.bincount(keys, minlength=num_classes**2).reshape(num_classes, num_classes)


def max_confusion(scores: Tensor, labels: Tensor, num_classes: int) -> Ids:
    meter = ConfusionMeter(num_classes)
    meter.update(scores.max(1).indices.to(torch.uint8), labels, ["image"])
    return meter.confusion


def our_confusion(scores: Tensor, labels: Tensor, num_classes: int) -> Ids:
    """As evaluation does it: with all of the meter's checks and its row for the image."""
    meter = ConfusionMeter(num_classes)
    meter.update(first_maximum(scores), labels, ["image"])
    return meter.confusion


def common_pairs(truth: Ids, predicted: Ids) -> dict[tuple[int, int], int]:
    values, pixels = np.unique(truth.astype(np.uint64) * OFFSET + predicted.astype(np.uint64), return_counts=True)
    return {(int(v) // OFFSET, int(v) % OFFSET): int(n) for v, n in zip(values, pixels, strict=True)}


def maps(data: Path) -> dict[str, Ids]:
    rng = np.random.default_rng(0)
    names = np.concatenate(([0], rng.choice(OFFSET - 1, 60, replace=False) + 1)).astype(np.uint32)
    blocks = names[np.kron(rng.integers(0, 61, (12, 16)), np.ones((40, 40), dtype=np.int64))]
    small = names[np.kron(rng.integers(0, 61, (60, 80)), np.ones((8, 8), dtype=np.int64))]
    found = {"blocks of 40, 480x640": blocks, "blocks of 8, 480x640": small}
    for path in sorted((data / "coco_panoptic_sample" / "panoptic_examples").glob("*.png")):
        pixels = np.asarray(Image.open(path), dtype=np.uint32) @ np.array([1, 256, OFFSET // 256], dtype=np.uint32)
        found[f"COCO {path.stem}, {pixels.shape[0]}x{pixels.shape[1]}"] = pixels
    return found


def row(what: str, goal: float, rounds: int, ways: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Median CPU milliseconds of each way; the last is ours, the first what it is compared with."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            times[name].append(time.process_time() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    first, *_, last = medians
    ratio = medians[first] / medians[last]
    return {
        "what": what,
        "milliseconds": {name: round(value * 1e3, 3) for name, value in medians.items()},
        "ratio": round(ratio, 2),
        "goal": goal,
        "met": ratio >= goal,
    }


def confusion_row(num_classes: int, kind: str, rounds: int) -> dict[str, Any]:
    scores = logits(num_classes, kind)
    labels = labels_for(scores)
    expected = common_confusion(scores, labels, num_classes)
    for count in (max_confusion, our_confusion):
        assert np.array_equal(count(scores, labels, num_classes), expected), f"{count.__name__} miscounts"
    ways = {
        "argmax + bincount": lambda: common_confusion(scores, labels, num_classes),
        "reading once (limit)": lambda: scores.sum(),
        "max(1).indices": lambda: max_confusion(scores, labels, num_classes),
        "segpipe": lambda: our_confusion(scores, labels, num_classes),
    }
    return row(f"confusion matrix, {num_classes} classes, {kind}", CONFUSION_GOAL, rounds, ways)


def pairs_row(name: str, truth: Ids, rounds: int) -> dict[str, Any]:
    predicted = np.ascontiguousarray(np.roll(truth, (4, 5), (0, 1)))
    assert list(count_pairs(truth, predicted).items()) == list(common_pairs(truth, predicted).items())
    ways = {"np.unique": lambda: common_pairs(truth, predicted), "segpipe": lambda: count_pairs(truth, predicted)}
    return row(f"pairs of segments, {name}", PAIRS_GOAL, rounds, ways)


def disc(centre: Ids, radii: Ids, width: int = 640) -> Ids:
    rows, columns = np.ogrid[:480, :width]
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 <= 1


def ellipse(centre: Ids, radii: Ids) -> dict[str, Any]:
    found = encode_rle(disc(centre, radii))
    return {"size": found["size"], "counts": found["counts"].decode()}


def documents() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A ground truth and detections as a JSON parser gives them: moved truths, and others that are nowhere."""
    rng = np.random.default_rng(0)
    annotations, detections = [], []
    for image in range(1, IMAGES + 1):
        for _ in range(OBJECTS):
            centre, radii = rng.uniform((0, 0), (480, 640)), rng.uniform(6, 90, 2)
            category = int(rng.integers(1, CLASSES + 1))
            truth = {"image_id": image, "category_id": category, "segmentation": ellipse(centre, radii)}
            annotations.append({**truth, "id": len(annotations) + 1, "area": float(np.pi * radii.prod()), "iscrowd": 0})
            for _ in range(FOUND // OBJECTS):
                moved = ellipse(centre + rng.normal(0, 8, 2), radii * rng.uniform(0.8, 1.2, 2))
                score = float(rng.uniform())
                detections.append({"image_id": image, "category_id": category, "segmentation": moved, "score": score})
    images = [{"id": image, "height": 480, "width": 640} for image in range(1, IMAGES + 1)]
    categories = [{"id": category, "name": str(category)} for category in range(1, CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def bare_evaluator(truth: dict[str, Any], detections: list[dict[str, Any]]) -> float:
    """faster-coco-eval as its users call it; it writes into its arguments, which are copied as one level needs it."""
    from faster_coco_eval.core import COCO, COCOeval_faster

    own = {**truth, "annotations": [dict(each) for each in truth["annotations"]]}
    ground = COCO(own)
    evaluation = COCOeval_faster(ground, ground.loadRes([dict(each) for each in detections]), iouType="segm")
    evaluation.evaluate()
    evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return float(evaluation.stats[0])


def by_meter(truth: dict[str, Any], detections: list[dict[str, Any]]) -> float:
    by_image: dict[int, tuple[list[Any], list[Any]]] = {image["id"]: ([], []) for image in truth["images"]}
    for place, entries in enumerate((truth["annotations"], detections)):
        for entry in entries:
            by_image[entry["image_id"]][place].append({k: v for k, v in entry.items() if k != "image_id"})
    meter = DetectionMeter([category["id"] for category in truth["categories"]])
    for image, (truths, found) in by_image.items():
        meter.update(image, (480, 640), truths, found)
    return float(meter.scores()["AP"])


def precision_rows(rounds: int) -> list[dict[str, Any]]:
    truth, detections = documents()
    expected = bare_evaluator(truth, detections)
    assert coco_average_precision(truth, detections)["AP"] == expected == by_meter(truth, detections)
    bare = {"faster-coco-eval": lambda: bare_evaluator(truth, detections)}
    size = f"{IMAGES} images, {len(detections)} masks"
    return [
        row(
            f"average precision, {size}",
            PRECISION_GOAL,
            rounds,
            {**bare, "segpipe": lambda: coco_average_precision(truth, detections)},
        ),
        row(
            f"average precision image by image, {size}",
            PRECISION_GOAL,
            rounds,
            {**bare, "segpipe, meter": lambda: by_meter(truth, detections)},
        ),
    ]


def by_dilation(prediction: Ids, truth: Ids) -> tuple[float, float]:
    """J and F of a frame of 480x854, of which 0.008 of the diagonal is 8 pixels."""
    import cv2

    disk = (np.hypot(*np.mgrid[-8:9, -8:9]) <= 8).astype(np.uint8)
    contours, near = [], []
    for mask in (prediction, truth):
        framed = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        contours.append((mask ^ framed[:-1, 1:]) | (mask ^ framed[1:, :-1]) | (mask ^ framed[1:, 1:]))
        near.append(cv2.dilate(contours[-1].astype(np.uint8), disk) > 0)
    precision = (contours[0] & near[1]).sum() / contours[0].sum()
    recall = (contours[1] & near[0]).sum() / contours[1].sum()
    region = (prediction & truth).sum() / (prediction | truth).sum()
    return float(region), float(2 * precision * recall / (precision + recall))


def video_row(rounds: int) -> dict[str, Any]:
    """An object of a tenth of the frame that moves to the right, found a little askew."""
    radii = np.array((120, 110))
    truths = [disc(np.array((240, 300 + 20 * frame)), radii, 854) for frame in range(FRAMES)]
    predictions = [disc(np.array((236, 311 + 20 * frame)), radii[::-1], 854) for frame in range(FRAMES)]

    def peer() -> Ids:
        return np.mean([by_dilation(*pair) for pair in zip(predictions, truths, strict=True)], axis=0)

    scores = davis_scores(predictions, truths)
    assert np.allclose(peer(), (scores["J_mean"], scores["F_mean"]), rtol=1e-14)
    ways = {"OpenCV's dilation": peer, "segpipe": lambda: davis_scores(predictions, truths)}
    return row(f"J and F of {FRAMES} frames of 480x854", CONTOUR_GOAL, rounds, ways)


def paired_counts() -> tuple[Ids, Ids]:
    """Intersection, truth and predicted pixels (n, K, 3) of two models whose IoU differs by about 0.003."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 100_000, (SCORED, SCORED_CLASSES)) * (rng.random((SCORED, SCORED_CLASSES)) < 0.4)

    def model(quality: float) -> Ids:
        hit = (truth * rng.normal(quality, 0.1, truth.shape).clip(0, 1)).astype(np.int64)
        return np.stack(
            [hit, truth, hit + (truth * rng.normal(0.2, 0.05, truth.shape).clip(0, 1)).astype(np.int64)], -1
        )

    return model(0.8), model(0.803)


def by_multinomial(champion: Ids, challenger: Ids) -> Ids:
    """The bounds of the difference: multinomial weights of all images, and one matrix product a model, in blocks."""
    rng, drawn = np.random.default_rng(0), []
    tables = [counts.reshape(SCORED, -1).astype(np.float64) for counts in (champion, challenger)]
    for _ in range(RESAMPLES // 500):
        weights = rng.multinomial(SCORED, np.full(SCORED, 1 / SCORED), size=500).astype(np.float64)
        old, new = (dataset_miou((weights @ table).reshape(500, SCORED_CLASSES, 3)) for table in tables)
        drawn.append(new - old)
    return np.quantile(np.concatenate(drawn), (0.025, 0.975))


def by_gathering(champion: Ids, challenger: Ids) -> Ids:
    """The same, resample by resample: a part of them."""
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES // PART):
        rows = rng.integers(0, SCORED, SCORED)
        drawn.append(float(dataset_miou(challenger[rows].sum(0)) - dataset_miou(champion[rows].sum(0))))
    return np.quantile(drawn, (0.025, 0.975))


def bootstrap_row(rounds: int) -> dict[str, Any]:
    pair = paired_counts()
    found = paired_bootstrap(*pair, resamples=RESAMPLES)
    for way in (by_multinomial, by_gathering):
        apart = np.abs(way(*pair) - (found["low"], found["high"])).max() / (found["high"] - found["low"])
        assert apart < 0.1, f"{way.__name__} finds another interval"
    made = row(
        f"paired bootstrap, {RESAMPLES} resamples of {SCORED} images x {SCORED_CLASSES} classes",
        BOOTSTRAP_GOAL,
        rounds,
        {
            "multinomial + product": lambda: by_multinomial(*pair),
            "gathering": lambda: by_gathering(*pair),
            "segpipe": lambda: paired_bootstrap(*pair, resamples=RESAMPLES),
        },
    )
    made["milliseconds"]["gathering"] *= PART
    made["met"] = made["met"] and made["milliseconds"]["segpipe"] <= 1000
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as evaluation does
    report = [confusion_row(k, kind, options.rounds) for k in (12, 150) for kind in ("noise", "as a network")]
    found = maps(Path(os.environ.get("SEGPIPE_DATA", "data")))
    report += [pairs_row(name, truth, options.rounds) for name, truth in found.items()]
    report += precision_rows(options.rounds)
    report.append(video_row(options.rounds))
    report.append(bootstrap_row(min(options.rounds, 3)))
    if options.json:
        json.dump(report, sys.stdout)
        return
    for each in report:
        goal = f"goal {each['goal']}x: {'met' if each['met'] else 'missed'}"
        print(f"{each['what']}: {each['ratio']:.2f}x ({goal})")
        for name, milliseconds in each["milliseconds"].items():
            print(f"  {name:22} {milliseconds:9.3f} ms CPU")


if __name__ == "__main__":
    main()
