"""The few-shot folds: novel classes are never seen in training, every class is novel once, the lists are counted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from segpipe import storage
from segpipe.sources import open_source
from segpipe.sources.coco_20i import Coco20i
from segpipe.sources.pascal_5i import EXPECTED, NUM_FOLDS, Pascal5i, novel_classes
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.small_files import write
from tests.sources.facts import DATA
from tests.sources.test_public_datasets import ids_of

# As the lists have it.
REAL = {"2011_000003": {15}, "2011_000006": {9, 15, 18}, "2011_000025": {6, 7}}
LISTS = DATA / "fewshot_splits" / "pascal"


@pytest.mark.parametrize("fold", range(NUM_FOLDS))
@pytest.mark.parametrize("name", ["pascal_5i", "coco_20i"])
def test_no_split_shows_a_class_of_the_other(name: str, fold: int, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    source = open_source(name, str(tmp_path), {"fold": fold})
    assert isinstance(source, Pascal5i | Coco20i)
    for ref in source.index()[0]:
        sample = source.read(ref)
        shown = set(np.unique(ids_of(sample.label_map, sample)).tolist()) - {0, 255}
        assert shown
        assert {class_id in source.novel for class_id in shown} == {ref.split == "val"}
    told = source.coding.rules[0]
    assert all(source.classes[class_id].name in told for class_id in source.novel)


def test_every_class_is_novel_in_one_fold(tmp_path: Path) -> None:
    assert sorted(k for fold in range(NUM_FOLDS) for k in novel_classes(fold)) == list(range(1, 21))
    WRITERS["coco_20i"](tmp_path)
    sources = [open_source("coco_20i", str(tmp_path), {"fold": fold}) for fold in range(NUM_FOLDS)]
    assert [source.novel for source in sources if isinstance(source, Coco20i)] == [(1, 5), (2, 6), (3, 7), (4, 8)]


def test_the_lists_have_the_documented_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the published ones, the images are not here: an index does not open them, so that their names will do."""
    WRITERS["pascal_5i"](tmp_path)
    expected = [{"train": 2, "val": count} for count in (1, 0, 1, 0)]
    if LISTS.exists():
        expected = [dict(counts) for counts in EXPECTED]
        lists = {path.relative_to(LISTS).as_posix(): path.read_bytes() for path in LISTS.glob("*/*.txt")}
        for name, data in lists.items():
            write(tmp_path, f"splits/pascal/{name}", data)
        stems = {line.split("__")[0] for data in lists.values() for line in data.decode().split()}
        names = [stem + suffix for stem in stems for suffix in (".jpg", ".png")]
        monkeypatch.setattr(storage, "list_tree", lambda uri: names)
    for fold in range(NUM_FOLDS):
        refs, refused, _ = open_source("pascal_5i", str(tmp_path), {"fold": fold}).index()
        assert refused == []
        assert {split: sum(ref.split == split for ref in refs) for split in ("train", "val")} == expected[fold]


def test_a_smaller_object_lies_over_a_larger_one(tmp_path: Path) -> None:
    WRITERS["coco_20i"](tmp_path)
    source = open_source("coco_20i", str(tmp_path), {"fold": 3})
    (sample,) = [source.read(ref) for ref in source.index()[0] if ref.sample_id.endswith("train2014_000000000009")]
    labels = ids_of(sample.label_map, sample)
    assert (labels[5, 5], labels[15, 15], labels[0, 0], labels[0, 20]) == (1, 2, 255, 0)


@pytest.mark.parametrize("fold", range(NUM_FOLDS))
def test_the_folds_of_coco_are_what_the_documents_say(fold: int, tmp_path: Path) -> None:
    """Counted in another way: over the annotations as they are written."""
    root, year = DATA / "coco_mini", 2017
    if not root.exists():
        WRITERS["coco_20i"](tmp_path)
        root, year = tmp_path, 2014
    places = {"annotations": f"annotations/instances_{{split}}{year}.json", "images": f"{{split}}{year}"}
    refs, refused, _ = open_source("coco_20i", str(root), {"fold": fold, **places}).index()
    assert refused == []
    for split in ("train", "val"):
        document = json.loads((root / places["annotations"].format(split=split)).read_text())
        order = [category["id"] for category in document["categories"]]
        shown = {kind for place, kind in enumerate(order) if (place % NUM_FOLDS == fold) == (split == "val")}
        objects = [each for each in document["annotations"] if not each["iscrowd"] and each["category_id"] in shown]
        assert sum(ref.split == split for ref in refs) == len({each["image_id"] for each in objects})


def test_the_published_lists_agree_with_published_masks(tmp_path: Path) -> None:
    """Three images of the lists are at hand with VOC's own masks: each shows every class that it is listed for."""
    WRITERS["pascal_5i"](tmp_path)
    expected = {"2007_000032": {15, 6}, "2007_000039": set()}
    if LISTS.exists() and (DATA / "voc_sample").exists():
        for folder, to in (("JPEGImages", "JPEGImages"), ("SegmentationClass", "SegmentationClassAug")):
            shutil.copytree(DATA / "voc_sample" / folder, tmp_path / to, dirs_exist_ok=True)
        for path in LISTS.glob("trn/*.txt"):
            kept = [line for line in path.read_text().split() if line.split("__")[0] in REAL]
            write(tmp_path, f"splits/pascal/trn/{path.name}", "\n".join(kept))
        expected = REAL
    source = open_source("pascal_5i", str(tmp_path), {"fold": 0})
    found = {ref.sample_id: source.read(ref) for ref in source.index()[0] if ref.split == "train"}
    for sample_id, classes in expected.items():
        assert classes <= set(np.unique(ids_of(found[sample_id].label_map, found[sample_id])).tolist())
