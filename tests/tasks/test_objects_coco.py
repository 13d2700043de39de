"""Truth through Parquet without loss: COCO mini, ingested and scored from its rows, has pycocotools' numbers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.config import DatasetConfig
from segpipe.data.loader import EvalBatches
from segpipe.metrics import coco_average_precision
from segpipe.predictions import Detections
from segpipe.shards import Dataset, open_dataset
from segpipe.stages.ingest import ingest
from segpipe.tasks.instance import InstanceOps
from tests.fixtures.coco_mini import MINI, mini_detections
from tests.fixtures.mini_datasets import WRITERS

PUBLISHED = {
    0: {"ap/coco/segm": 1.0, "ap50/coco/segm": 1.0, "ar1/coco/segm": 0.7080, "ar10/coco/segm": 0.9891},
    3: {"ap/coco/segm": 0.5789, "ap50/coco/segm": 0.8066, "ap75/coco/segm": 0.5897}
    | {"ap/coco/bbox": 0.7259, "ap50/coco/bbox": 0.9439, "ap75/coco/bbox": 0.7489},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return ingested(DatasetConfig(name="mini", format="coco", root=str(MINI)), tmp_path_factory.mktemp("coco-mini"))


def ingested(config: DatasetConfig, to: Path) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0})  # one core: no processes, which take seconds to start
        return open_dataset(ingest(config, to=str(to)).uri)


def predictions(truth: dict[str, Any], detections: list[dict[str, Any]]) -> dict[str, Detections]:
    """The detections by sample id, as a model would give them."""
    place = {category["id"]: k for k, category in enumerate(truth["categories"])}
    found = {}
    for image in truth["images"]:
        mine = [entry for entry in detections if entry["image_id"] == image["id"]]
        mine.sort(key=lambda entry: -entry["score"])
        boxes = np.array([entry["bbox"] for entry in mine], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found[f"val2017/{Path(image['file_name']).stem}"] = Detections(
            size=(image["height"], image["width"]),
            class_ids_N=np.array([place[entry["category_id"]] for entry in mine], dtype=np.int64),
            scores_N=np.array([entry["score"] for entry in mine]),
            boxes_N4=boxes,
            masks=tuple(entry["segmentation"]["counts"] for entry in mine),
        )
    return found


def has_its_published_scores_from_parquet(dataset: Dataset, shift: int) -> None:
    truth, detections = mini_detections(shift)
    found = predictions(truth, detections)
    ops = InstanceOps(dataset.manifest.classes, dataset.manifest.ignore_index)
    meters = [ops.meter() for _ in range(3)]
    for rank, meter in enumerate(meters):
        for batch in EvalBatches(dataset, "val", batch_size=4, rank=rank, world_size=3):
            ops.measure(meter, [found[sample_id] for sample_id in batch.sample_ids], batch)
    for other in meters[1:]:
        meters[0].merge(other)
    ids = dataset.sample_ids("val")
    fields = ops.report_fields(meters[0], ids, dataset.groups("val"))
    metrics = fields["metrics"]
    assert {name: round(metrics[name], 4) for name in PUBLISHED[shift]} == PUBLISHED[shift]
    for measure in ("segm", "bbox"):  # all twelve, as from the JSON
        bare = [{k: v for k, v in entry.items() if measure == "bbox" or k != "bbox"} for entry in detections]
        direct = coco_average_precision(truth, bare, measure)
        classes = direct.pop("per_class")
        expected = {f"{name.lower()}/coco/{measure}": value for name, value in direct.items()}
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-12)
        if measure == "segm":
            per_class = [-1.0 if each["ap"] is None else each["ap"] for each in fields["per_class"].values()]
            assert per_class == pytest.approx(list(classes.values()), abs=1e-12)
    assert sum(fields["truth_counts"]) == sum(not each["iscrowd"] for each in truth["annotations"]) == 619
    assert sum(map(len, fields["detections"])) == len(detections)
    assert (fields["low"], fields["high"]) == ((1.0, 1.0) if shift == 0 else (fields["low"], fields["high"]))
    assert fields["low"] <= fields["value"] <= fields["high"]


if MINI.is_dir():
    test_coco_mini_has_its_published_scores_from_parquet = pytest.mark.parametrize("shift", list(PUBLISHED))(
        has_its_published_scores_from_parquet
    )


@pytest.mark.parametrize("source", ["coco", "nuclei", "cityscapes", "coco_panoptic", "scenes"])
def test_the_truth_of_every_source_of_objects_is_found_where_it_is(source: str, tmp_path: Path) -> None:
    """Truth fed back, of run lengths, of a segment map, with crowds: an AP of 1 in masks and in boxes."""
    options = {}
    if source == "scenes":
        options = {"train": 1, "val": 1, "test": 6, "height": 48, "width": 64}
    else:
        WRITERS[source](tmp_path / "root")
    config = DatasetConfig(
        name="mini", format=source, root=str(tmp_path / "root") * bool(not options), options=options, max_quarantine=1
    )
    dataset = ingested(config, tmp_path / "data")
    ops = InstanceOps(dataset.manifest.classes, dataset.manifest.ignore_index)
    meter, objects = ops.meter(), 0
    for split in dataset.manifest.splits:
        for batch, truths in truths_of(dataset, ops, split):
            ops.measure(meter, truths, batch)
            objects += sum(map(len, truths))
    scores = ops.scores(meter)
    assert objects > 0
    assert {name: value for name, value in scores.items() if name.startswith("ap")} == pytest.approx(
        {name: 1.0 for name in scores if name.startswith("ap")}
    )
    assert {"ap/coco/segm", "ap/coco/bbox"} <= scores.keys()


def truths_of(dataset: Dataset, ops: InstanceOps, split: str) -> Iterator[tuple[Any, list[Detections]]]:
    for batch in EvalBatches(dataset, split, batch_size=2):
        assert batch.samples is not None
        yield batch, [ops.truth(sample) for sample in batch.samples]
