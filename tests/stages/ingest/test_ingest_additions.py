"""Ingest of a dataset with additions: what joins, what must agree, what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segpipe.config import DatasetConfig
from segpipe.errors import InputError
from segpipe.shards import open_dataset
from segpipe.stages.ingest import IngestResult, ingest
from segpipe.types import Annotation
from tests.fixtures.mini_datasets import coco_document
from tests.fixtures.mini_label_studio import tasks, write_export, write_label_studio
from tests.fixtures.pictures import photograph, png
from tests.fixtures.small_files import HEIGHT, WIDTH, stripes, write

pytestmark = [pytest.mark.xdist_group("ingest"), pytest.mark.usefixtures("one_core")]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Three photographs of roads and cars, one a split, and answers of Label Studio beside them."""
    for number, split in enumerate(("train", "val", "test")):
        write(tmp_path / "own", f"images/{split}/{number}.jpg", photograph(HEIGHT, WIDTH, number=40 + number))
        write(tmp_path / "own", f"masks/{split}/{number}.png", png(stripes([0, 1])))
    write(tmp_path / "own", "classes.txt", "road\ncar\n")
    write_label_studio(tmp_path / "more")
    addition = {"format": "label_studio", "root": str(tmp_path / "more"), "options": {"licence": "CC0"}}
    return {"name": "toy", "format": "folder", "root": str(tmp_path / "own"), "additions": [addition]}


def run(config: dict[str, Any], tmp_path: Path) -> IngestResult:
    return ingest(DatasetConfig(**config), to=str(tmp_path / "data"))


def test_additions_join_train_and_nothing_else(config: dict[str, Any], tmp_path: Path) -> None:
    result = run(config, tmp_path)
    assert result.splits == {"train": 4, "val": 1, "test": 1}
    assert not any("no sample is in" in warning for warning in result.warnings), "a hash deals no addition"
    dataset = open_dataset(result.uri)
    assert dataset.sample_ids("train") == ["train/0", "b", "day 1/a", "day 1/c"]
    assert dataset.manifest.annotations == (Annotation.LABEL_MAP,)
    assert dataset.manifest.licence == "not stated; CC0"
    assert any(rule.startswith("label_studio too: regions") for rule in dataset.manifest.coding.rules)
    assert all(sample.segments == () for sample in dataset.samples("train"))
    assert run(config, tmp_path).status == "already_published"


def test_another_split_and_a_change_of_the_answers(config: dict[str, Any], tmp_path: Path) -> None:
    first = run(config, tmp_path)
    config["additions"][0]["split"] = "val"
    assert run(config, tmp_path).splits == {"train": 1, "val": 4, "test": 1}
    config["additions"][0]["split"] = "train"
    export = next((tmp_path / "more").glob("project-*.json"))
    export.write_text(json.dumps(json.loads(export.read_text())[:1]))
    second = run(config, tmp_path)
    assert (second.splits["train"], second.version != first.version) == (2, True)


def test_an_id_that_is_there_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    write_label_studio(tmp_path / "again")
    write_export(tmp_path / "more", tasks()[:2])
    config["additions"].append({**config["additions"][0], "root": str(tmp_path / "again")})
    config["max_quarantine"] = 0.5
    result = run(config, tmp_path)
    assert result.splits["train"] == 4
    assert [(each.item, each.reason) for each in result.quarantined] == [
        (item, "duplicate_id") for item in ("b", "day 1/a")
    ]


def test_an_addition_of_which_nothing_is_new_is_no_number_of_a_quarantine(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["additions"].append(config["additions"][0])
    config["max_quarantine"] = 0.5
    with pytest.raises(InputError, match=r"dataset\.additions\.1: .*3 duplicate_id; first .*/a\.jpg: .* another name"):
        run(config, tmp_path)


def test_classes_must_be_the_same(config: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "own", "classes.txt", "car\nroad\n")
    with pytest.raises(InputError, match=r"additions\.0: .*classes \['road', 'car'\], the dataset \['car', 'road'\]"):
        run(config, tmp_path)


def test_what_an_addition_lacks_is_told(tmp_path: Path) -> None:
    """Objects of COCO, and label maps beside them: what both say of each sample are the objects."""
    write_label_studio(tmp_path / "own")
    for split in ("train", "val", "test"):
        write(tmp_path / "own", f"images/{split}.jpg", photograph(HEIGHT, WIDTH, number=ord(split[0])))
    document = coco_document([(7, "seven.jpg")], first=70)
    document["categories"] = [{"id": 1, "name": "road"}, {"id": 3, "name": "car"}]
    document["annotations"] = [each for each in document["annotations"] if each["category_id"] in (1, 3)]
    write(tmp_path / "more", "objects.json", json.dumps(document))
    write(tmp_path / "more", "seven.jpg", photograph(HEIGHT, WIDTH, number=7))
    addition = {
        "format": "coco",
        "root": str(tmp_path / "more"),
        "options": {"annotations": "objects.json", "images": ""},
    }
    config = {
        "name": "toy",
        "format": "label_studio",
        "root": str(tmp_path / "own"),
        "options": {"shares": "1,0,0"},
        "additions": [addition],
    }
    result = run(config, tmp_path)
    dataset = open_dataset(result.uri)
    assert dataset.manifest.annotations == (Annotation.SEGMENTS,)
    assert all(sample.label_map is None for sample in dataset.samples("train"))
    assert any("the version has no label_map" in each for each in result.warnings)


def test_nothing_in_common_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    document = coco_document([(7, "seven.jpg")], first=70)
    document |= {"categories": [{"id": 1, "name": "road"}, {"id": 3, "name": "car"}], "annotations": []}
    write(tmp_path / "objects", "objects.json", json.dumps(document))
    write(tmp_path / "objects", "seven.jpg", photograph(HEIGHT, WIDTH, number=7))
    options = {"annotations": "objects.json", "images": ""}
    config["additions"] = [{"format": "coco", "root": str(tmp_path / "objects"), "options": options}]
    with pytest.raises(InputError, match="fills segments, and the dataset label_map"):
        run(config, tmp_path)


def test_an_addition_that_cannot_be_opened_is_named(config: dict[str, Any], tmp_path: Path) -> None:
    config["additions"].append({"format": "labelme", "root": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match=r"dataset\.additions\.1: .*there is no such folder"):
        run(config, tmp_path)
