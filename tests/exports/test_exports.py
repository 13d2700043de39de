"""Exports: what is written and ingested again holds the same images, labels, objects and splits."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from segpipe import masks
from segpipe.config import DatasetConfig
from segpipe.errors import ConflictError, InputError
from segpipe.exports import EXPORTS
from segpipe.exports.naming import stem_of
from segpipe.shards import open_dataset, publish
from segpipe.stages.export import Exported, export
from segpipe.stages.ingest import ingest
from segpipe.types import Annotation, Sample
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.mini_datasets import WRITERS

pytestmark = [pytest.mark.usefixtures("one_core"), pytest.mark.xdist_group("ingest")]


def ingested(source: str, root: Path, to: Path, **options: str | int | float | bool) -> str:
    config = DatasetConfig(name="toy", format=source, root=str(root), options=options)
    return ingest(config, to=str(to)).uri


def back(result: Exported, to: Path) -> str:
    """Ingests an export by the command that it names."""
    words = shlex.split(result.command)
    assert words[4:6] == ["--name", f"{result.dataset}_{result.format}"]
    options = dict(word.split("=", 1) for word in words[6:] if word != "--option")
    return ingested(words[2], Path(words[3]), to, **options)


def by_id(uri: str) -> dict[str, tuple[str, Sample]]:
    dataset = open_dataset(uri)
    return {
        sample.sample_id.rpartition("/")[2]: (split, sample)
        for split in dataset.manifest.splits
        for sample in dataset.samples(split)
    }


@pytest.mark.parametrize("into", ["folder", "voc"])
def test_label_maps_come_back(into: str, tmp_path: Path) -> None:
    WRITERS["camvid"](tmp_path / "root")
    uri = ingested("camvid", tmp_path / "root", tmp_path / "one")
    again = back(export(uri, into, str(tmp_path / "files")), tmp_path / "two")
    first, second = by_id(uri), by_id(again)
    assert first.keys() == second.keys()
    for sample_id, (split, sample) in first.items():
        other_split, other = second[sample_id]
        assert (split, sample.image, sample.label_map) == (other_split, other.image, other.label_map)
    names = [[info.name for info in open_dataset(each).manifest.classes] for each in (uri, again)]
    assert names[0] == names[1]


@pytest.mark.parametrize("source", ["coco", "nuclei", "cityscapes"])
def test_objects_come_back_as_coco(source: str, tmp_path: Path) -> None:
    WRITERS[source](tmp_path / "root")
    uri = ingested(source, tmp_path / "root", tmp_path / "one")
    again = back(export(uri, "coco", str(tmp_path / "files")), tmp_path / "two")
    first, second = by_id(uri), by_id(again)
    assert first.keys() == second.keys()
    assert open_dataset(uri).manifest.classes == open_dataset(again).manifest.classes
    for sample_id, (split, sample) in first.items():
        other_split, other = second[sample_id]
        assert (split, sample.image) == (other_split, other.image)
        facts = [[(s.class_id, s.area, s.is_crowd) for s in each.segments] for each in (sample, other)]
        assert facts[0] == facts[1]
        assert sample.keypoints == other.keypoints
        if source != "cityscapes":  # its objects lie in a map, and come back as run lengths
            assert sample.segments == other.segments


@pytest.mark.parametrize("source", ["coco", "nuclei", "cityscapes"])
def test_objects_come_back_as_yolo_to_the_pixel(source: str, tmp_path: Path) -> None:
    WRITERS[source](tmp_path / "root")
    uri = ingested(source, tmp_path / "root", tmp_path / "one")
    result = export(uri, "yolo", str(tmp_path / "files"))
    again = back(result, tmp_path / "two")
    first, second = by_id(uri), by_id(again)
    assert first.keys() == second.keys()
    names = [[info.name for info in open_dataset(each).manifest.classes] for each in (uri, again)]
    assert names[0] == names[1]
    objects = crowds = 0
    for sample_id, (split, sample) in first.items():
        other_split, other = second[sample_id]
        assert (split, sample.image) == (other_split, other.image)
        kept = [segment for segment in sample.segments if not segment.is_crowd]
        assert [s.class_id for s in kept] == [s.class_id for s in other.segments]
        for segment, came in zip(kept, other.segments, strict=True):
            assert (masks.mask_of(segment, sample) == masks.mask_of(came, other)).all(), sample_id
        objects, crowds = objects + len(kept), crowds + len(sample.segments) - len(kept)
    assert objects > 0
    counted = [f"{crowds} crowd regions"] if crowds else []
    assert [text for text in result.left_out if "crowd" in text] == counted


def test_names_that_yaml_would_read_otherwise_come_back(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path / "root")
    strange = ['no: "1"', "Bäume\t#\n"]
    for document in (tmp_path / "root" / "annotations").glob("*.json"):
        told = json.loads(document.read_text())
        for category, name in zip(told["categories"], strange, strict=False):
            category["name"] = name
        document.write_text(json.dumps(told))
    uri = ingested("coco", tmp_path / "root", tmp_path / "one")
    again = back(export(uri, "yolo", str(tmp_path / "files")), tmp_path / "two")
    assert [info.name for info in open_dataset(again).manifest.classes][:2] == strange


def test_a_split_that_yolo_does_not_know_is_refused_before_the_first_file(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path / "root")
    uri = ingested("coco", tmp_path / "root", tmp_path / "one")
    manifest = open_dataset(uri).manifest
    publish(
        uri, replace(manifest, splits={**manifest.splits, "dev": replace(manifest.splits["val"], shards=(), samples=0)})
    )
    with pytest.raises(InputError, match=r"split 'dev': YOLO's data\.yaml knows train, val, test only"):
        export(uri, "yolo", str(tmp_path / "files"))
    assert list((tmp_path / "files").iterdir()) == []


def test_a_place_that_holds_other_files_is_refused_before_the_first_file(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", lists=True)
    uri = ingested("folder", root, tmp_path / "one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ConflictError, match=r"holds 1 files already, thesis\.tex among them, .*nothing was written"):
        export(uri, "folder", str(tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    export(uri, "folder", str(tmp_path / "files"))
    before = sorted((tmp_path / "files").rglob("*"))
    with pytest.raises(ConflictError, match=r"another export lies there .*'folder'"):
        export(uri, "voc", str(tmp_path / "files"))
    assert sorted((tmp_path / "files").rglob("*")) == before


def test_the_same_export_again_changes_nothing_and_another_is_refused(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", lists=True)
    uri = ingested("folder", root, tmp_path / "one")
    first = export(uri, "folder", str(tmp_path / "files"))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "files").rglob("*")}
    seen: list[tuple[int, int]] = []
    assert export(uri, "folder", str(tmp_path / "files"), on_progress=lambda *at: seen.append(at)) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "files").rglob("*")} == files
    assert seen[-1] == (20, 20)
    (tmp_path / "files" / "masks" / "img_003.png").write_bytes(b"other")
    with pytest.raises(ConflictError, match=r"img_003\.png"):
        export(uri, "folder", str(tmp_path / "files"))


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path / "coco")
    objects = ingested("coco", tmp_path / "coco", tmp_path / "one")
    with pytest.raises(InputError, match="folder needs label_map, the dataset has segments, keypoints; it fits: coco"):
        export(objects, "folder", str(tmp_path / "files"))
    with pytest.raises(InputError, match="unknown export format 'foldr'; did you mean 'folder'"):
        export(objects, "foldr", str(tmp_path / "files"))
    WRITERS["isbi2012"](tmp_path / "isbi")
    slices = ingested("isbi2012", tmp_path / "isbi", tmp_path / "two")
    with pytest.raises(InputError, match="is a PNG, and VOC holds JPEG"):
        export(slices, "voc", str(tmp_path / "files"))


def test_ids_that_differ_in_a_slash_alone_stay_two_files_in_voc_and_come_back(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", count=2, lists=False)
    for tree in ("images", "masks"):
        (root / tree / "a").mkdir()
        for path, name in zip(sorted((root / tree).glob("img*")), ("a/b", "a__b"), strict=True):
            path.rename(root / tree / f"{name}{path.suffix}")
    uri = ingested("folder", root, tmp_path / "one", shares="1,0,0")
    result = export(uri, "voc", str(tmp_path / "voc"))
    assert {path.stem for path in (tmp_path / "voc" / "JPEGImages").iterdir()} == {"a=b", "a__b"}
    images = [{each.image for _, each in by_id(there).values()} for there in (uri, back(result, tmp_path / "two"))]
    assert len(images[0]) == 2
    assert images[0] == images[1]


def test_names_from_data_never_leave_the_folder() -> None:
    assert stem_of("train/0001TP_006690") == "train/0001TP_006690"
    for hostile in ("../../etc/passwd", "/etc/passwd", "a//b", ".hidden", "a\nb", "ä", "x" * 300, "-rf"):
        assert len(stem_of(hostile)) == 32


def test_every_file_of_the_room_is_in_the_table() -> None:
    room = Path(__file__).parents[2] / "segpipe" / "exports"
    assert {path.stem for path in room.glob("*.py")} - {"__init__", "spec", "naming"} == set(EXPORTS)
    assert all(replace(each, name=name) == each for name, each in EXPORTS.items())
    assert all(each.needs in Annotation for each in EXPORTS.values())


def test_keypoints_of_one_split_alone_come_back(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path / "root")
    document = tmp_path / "root" / "annotations" / "instances_val2017.json"
    told = json.loads(document.read_text())
    for entry in told["annotations"]:
        entry.pop("keypoints", None)
    document.write_text(json.dumps(told))
    uri = ingested("coco", tmp_path / "root", tmp_path / "one")
    again = back(export(uri, "coco", str(tmp_path / "my files")), tmp_path / "two")
    assert sum(len(sample.keypoints) for _, sample in by_id(again).values()) == 1


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    WRITERS["labelme"](tmp_path / "root")
    uri = ingested("labelme", tmp_path / "root", tmp_path / "one")
    assert export(uri, "voc", str(tmp_path / "voc")).left_out == ("segments",)
    assert export(uri, "coco", str(tmp_path / "coco")).left_out == ("label_map",)
    assert (tmp_path / "voc" / "SegmentationObject" / "photo_0.png").exists()
