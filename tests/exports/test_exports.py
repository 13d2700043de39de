"""Exports: what is written and ingested again holds the same images, labels, objects and splits."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from segpipe import masks, storage
from segpipe.config import DatasetConfig
from segpipe.errors import ConflictError, InputError
from segpipe.exports import EXPORTS
from segpipe.exports.naming import Stems
from segpipe.shards import open_dataset, publish
from segpipe.stages.export import Exported, export
from segpipe.stages.ingest import ingest
from segpipe.types import Annotation, Sample
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.object_store import root, s3_root, s3_server
from tests.fixtures.pictures import label_blocks, photograph, png

__all__ = ["root", "s3_root", "s3_server"]
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
            stated = [
                replace(s, box=None) if t.box is None else s
                for s, t in zip(other.segments, sample.segments, strict=True)
            ]
            assert sample.segments == tuple(stated)


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
    with pytest.raises(ConflictError, match=r"holds 1 file already, thesis\.tex among them, .*nothing was written"):
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


LEGAL = ("train/0001TP_006690", "my roof (2)", "🏠 Häuser/第一", "a.b", "-rf", "100 %", "x~", "12:30?", "a[1]*#%41")


def test_a_legal_name_stays_and_no_name_leaves_the_folder_or_is_lost() -> None:
    stems = Stems()
    assert [stems.of(name) for name in LEGAL] == list(LEGAL)
    assert stems.renamed == {}
    for hostile, stem in {
        "../../etc/passwd": "%2E./%2E./etc/passwd",
        "/etc/passwd": "%/etc/passwd",
        "a//b": "a/%/b",
        ".hidden": "%2Ehidden",
        "a\nb": "a%0Ab",
        "a\\b": "a%5Cb",
        " roof": "%20roof",
        "\ufeffroof": "%EF%BB%BFroof",
        "half \ud800": "half %ED%A0%80",
    }.items():
        assert stems.of(hostile) == stem == stems.renamed[hostile]
        assert storage.join("folder", f"{stem}.png") == f"folder/{stem}.png"
    for long in ("ä" * 150, "x" * 300, "/".join(["long" * 40] * 6)):
        assert len(max(stems.of(long).encode().split(b"/"), key=len)) <= 200
        assert len(stems.renamed[long].encode()) <= 800


def test_legal_names_lie_as_they_are_on_a_disk_and_in_a_store(root: str) -> None:
    for stem in LEGAL:
        storage.write_once(storage.join(root, "images", f"{stem}.png"), stem.encode())
    assert storage.list_tree(storage.join(root, "images")) == sorted(f"{stem}.png" for stem in LEGAL)
    assert [storage.read_bytes(storage.join(root, "images", f"{stem}.png")).decode() for stem in LEGAL] == list(LEGAL)


def test_names_that_a_disk_or_a_list_takes_for_one_become_two() -> None:
    for first, second in (("IMG_1", "img_1"), ("u\u0308", "\u00fc"), ("x", "x.jpg"), ("a%0Ab", "a\nb")):
        stems = Stems()
        assert stems.of(first) == first
        assert re.fullmatch(r".+-[0-9a-f]{8}", stems.of(second))
    apart = Stems()
    assert apart.of("x", within="images/train") == apart.of("x", within="images/val") == "x"
    assert apart.of("images/train/y", within="images/train") == "y"
    assert (apart.renamed, Stems(reserved=("images",)).of("images/y")) == ({}, "images_/y")


@pytest.mark.parametrize("into", ["folder", "voc", "coco", "yolo"])
def test_samples_of_all_legal_names_come_back_under_them(into: str, tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path / "coco")
    names = ["my roof (2)", "🏠 Häuser", "x", "x.jpg", "IMG_1", "img_1", "tile 第一/a", "tile 第一/b"]
    if into in ("folder", "voc"):
        root = write_folder_mini(tmp_path / "root", count=len(names))
        for tree in ("images", "masks"):
            (root / tree / "tile 第一").mkdir()
            for file, name in zip(sorted((root / tree).glob("img*")), names, strict=True):
                file.rename(root / tree / f"{name}{file.suffix}")
        uri = ingested("folder", root, tmp_path / "one", shares="1,0,0")
    else:
        uri = coco_under_names(tmp_path / "coco", names, tmp_path / "one")
    result = export(uri, into, str(tmp_path / "files"))
    again = open_dataset(back(result, tmp_path / "two"))
    came = {sample.image: sample.sample_id for split in again.manifest.splits for sample in again.samples(split)}
    first = open_dataset(uri)
    sent = {sample.image: sample.sample_id for split in first.manifest.splits for sample in first.samples(split)}
    assert len(sent) == len(came) == len(names)
    assert any("🏠" in stem for stem in came.values())
    for image, sample_id in sent.items():
        assert came[image].removeprefix("images/train/") == result.renamed.get(sample_id, sample_id)
    slashes = 2 if into == "voc" else 0
    assert len(result.renamed) == 2 + slashes, "img_1 beside IMG_1, and x.jpg beside x"


def coco_under_names(root: Path, names: list[str], to: Path) -> str:
    """A dataset of objects whose samples have these ids."""
    document = root / "annotations" / "instances_train2017.json"
    told = json.loads(document.read_text())
    shape = told["annotations"][0] | {"bbox": [2, 2, 4, 4], "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]], "iscrowd": 0}
    told["images"], told["annotations"] = [], []
    for number, name in enumerate(names, start=1):
        file = root / f"{name}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(photograph(24, 30, number=number))
        told["images"].append({"id": number, "file_name": f"{name}.jpg", "height": 24, "width": 30})
        told["annotations"].append({**shape, "id": number, "image_id": number})
    for entry in told["annotations"]:
        entry.pop("keypoints", None)
    (root / "all.json").write_text(json.dumps(told))
    return ingested("coco", root, to, annotations="all.json", images="", shares="1,0,0")


@pytest.mark.parametrize("into", ["folder", "voc", "coco", "yolo"])
def test_a_background_comes_back_as_no_thing(into: str, tmp_path: Path) -> None:
    WRITERS["nuclei"](tmp_path / "root")
    uri = ingested("nuclei", tmp_path / "root", tmp_path / "one")
    again = back(export(uri, into, str(tmp_path / "files")), tmp_path / "two")
    classes = [[(info.name, info.is_thing) for info in open_dataset(each).manifest.classes] for each in (uri, again)]
    assert classes == [[("background", False), ("nucleus", True)]] * 2


def test_voc_holds_png_as_shipped_and_says_so(tmp_path: Path) -> None:
    WRITERS["isbi2012"](tmp_path / "root")
    uri = ingested("isbi2012", tmp_path / "root", tmp_path / "one")
    result = export(uri, "voc", str(tmp_path / "files"))
    first, second = by_id(uri), by_id(back(result, tmp_path / "two"))
    assert {each.image for _, each in first.values()} == {each.image for _, each in second.values()}
    assert {file.suffix for file in (tmp_path / "files" / "JPEGImages").iterdir()} == {".png"}
    assert result.notes[0].startswith(f"{len(first)} images are PNG, as shipped")


def test_a_dataset_with_frames_that_nobody_labelled_is_refused_before_the_first_file(tmp_path: Path) -> None:
    for number, mask in enumerate((True, False, False)):
        for folder, data in (("images", photograph(24, 30, number=number)), ("masks", png(label_blocks(24, 30, 2)))):
            if folder == "images" or mask:
                file = tmp_path / "root" / folder / "clip" / f"{number}.{'jpg' if folder == 'images' else 'png'}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
    uri = ingested("frames", tmp_path / "root", tmp_path / "one", split="train")
    with pytest.raises(InputError, match=r"2 of 3 samples have no label map, train/clip/1 first.*nothing was written"):
        export(uri, "coco", str(tmp_path / "files"))
    assert not (tmp_path / "files").exists()


def test_a_colour_that_two_classes_share_is_left_out(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", count=4)
    uri = ingested("folder", root, tmp_path / "one", shares="1,0,0")
    manifest = open_dataset(uri).manifest
    same = tuple(replace(info, colour=(1, 2, 3 + number // 2)) for number, info in enumerate(manifest.classes))
    publish(uri, replace(manifest, classes=same))
    again = open_dataset(back(export(uri, "folder", str(tmp_path / "files")), tmp_path / "two")).manifest
    assert [info.name for info in again.classes] == ["ground", "plant", "stone"]
    assert again.classes[2].colour == (1, 2, 4)


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
