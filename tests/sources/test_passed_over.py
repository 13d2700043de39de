"""What an index passes over is said, with names and a remedy; what a published layout leaves out is not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segpipe.sources import open_source
from tests.fixtures.mini_datasets import WRITERS


def _copy_of_first(root: Path, pattern: str, name: str) -> None:
    """A further file beside the first one that fits, with the same content."""
    first = sorted(root.glob(pattern))[0]
    shutil.copy(first, first.with_name(name))


def _folder(root: Path) -> None:
    (root / "train.txt").write_text("".join(f"{path.stem}\n" for path in sorted((root / "images").iterdir())[:3]))
    (root / "masks" / "alone.png").write_bytes(sorted((root / "masks").iterdir())[0].read_bytes())


def _voc(root: Path) -> None:
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"), ("SegmentationObject", ".png")):
        _copy_of_first(root, f"{folder}/*", f"2099_000001{suffix}")
    _copy_of_first(root, "JPEGImages/*", "2099_000002.jpg")  # without a mask, like most of VOC


def _camvid(root: Path) -> None:
    _copy_of_first(root, "train/*.jpg", "0001TP_999999.jpg")


def _cityscapes(root: Path) -> None:
    for tree in ("leftImg8bit", "gtFine"):
        for folder in ("holdout", "test"):  # of which the second is published
            shutil.copytree(root / tree / "val", root / tree / folder, dirs_exist_ok=True)


def _labelme(root: Path) -> None:
    _copy_of_first(root, "**/*.jpg", "not_drawn_yet.jpg")


def _coco(root: Path) -> None:
    _copy_of_first(root, "val2017/*.jpg", "000000999999.jpg")
    shutil.copytree(root / "val2017", root / "unlabeled2017")  # as published


def _frames(root: Path) -> None:
    clip = sorted(path for path in (root / "JPEGImages").iterdir())[0].name
    shutil.rmtree(root / "ImageSets", ignore_errors=True)
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "train.txt").write_text(f"{clip}\n")
    first = next(path for path in sorted((root / "JPEGImages" / clip).iterdir()))
    shutil.copy(first, root / "JPEGImages" / f"loose{first.suffix}")


def _nuclei(root: Path) -> None:
    (root / "split_train.txt").write_text(f"{sorted((root / 'stage1_train').iterdir())[0].name}\n")


CASES: dict[str, tuple[Callable[[Path], None], list[tuple[str, str, str]]]] = {
    "folder": (
        _folder,
        [("17 images that no split list names", "images/", "train.txt"), ("1 mask without", "masks/alone", "images/")],
    ),
    "voc": (_voc, [("1 image with a mask", "2099_000001;", "ImageSets/Segmentation/")]),
    "camvid": (_camvid, [("1 frame that no list names", "train/0001TP_999999.jpg;", "list")]),
    "cityscapes": (_cityscapes, [("1 folder of", ": holdout;", "train, val")]),
    "labelme": (_labelme, [("1 photograph without a JSON", "not_drawn_yet.jpg;", "labelme")]),
    "coco": (_coco, [("1 photograph not in", "val2017/000000999999.jpg;", "annotate them")]),
    "frames": (
        _frames,
        [("1 picture in no folder", "loose", "<clip>"), ("1 clip that no list names", "JPEGImages/", "ImageSets/")],
    ),
    "nuclei": (_nuclei, [("1 image that no split_*.txt names", "", "write their ids")]),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_is_passed_over_is_said_with_names_and_remedy(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    change, expected = CASES[name]
    change(tmp_path)
    notes = [note for note in open_source(name, str(tmp_path)).index().notes if note.startswith("passed over")]
    assert len(notes) == len(expected), notes
    for note, parts in zip(notes, expected, strict=True):
        assert all(part in note for part in parts), note
        assert str(tmp_path) not in note, "the same from every root"


def test_a_note_names_three_and_counts_the_rest(tmp_path: Path) -> None:
    WRITERS["labelme"](tmp_path)
    for number in range(5):
        _copy_of_first(tmp_path, "**/*.jpg", f"new_{number}.jpg")
    (note,) = (text for text in open_source("labelme", str(tmp_path)).index().notes if "JSON" in text)
    assert "5 photographs" in note
    assert "new_0.jpg, " in note
    assert "new_2.jpg and 2 more; " in note
    assert "new_3.jpg" not in note


@pytest.mark.parametrize("name", ["oxford_pet", "pascal_5i"])
def test_a_published_list_may_leave_labelled_images_out(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    kinds = (("images/*", "annotations/trimaps/*"), ("JPEGImages/*", "SegmentationClassAug/*"))[name == "pascal_5i"]
    for pattern, suffix in zip(kinds, (".jpg", ".png"), strict=True):
        _copy_of_first(tmp_path, pattern, f"2099_000001{suffix}")
    assert open_source(name, str(tmp_path)).index().notes == ()


DEALT = {
    "folder": "train.txt, val.txt and test.txt, or tell the groups apart by the option group_pattern",
    "frames": "ImageSets/train.txt",
    "labelme": "more folders",
    "nuclei": "split_train.txt",
    "coco": "{split} in the option annotations",
}


@pytest.mark.parametrize("name", sorted(DEALT))
def test_a_split_that_the_hash_left_empty_is_said_with_a_remedy_of_that_source(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    options: dict[str, str | int | float | bool] = {"shares": "0,1,0"}
    if name == "frames":
        shutil.rmtree(tmp_path / "ImageSets", ignore_errors=True)
    if name == "coco":
        (tmp_path / "annotations" / "instances_train2017.json").rename(tmp_path / "all.json")
        options |= {"annotations": "all.json", "images": "train2017"}
    for extra in tmp_path.glob("*.txt"):
        if extra.stem in ("train", "val", "test") or extra.name.startswith("split_"):
            extra.unlink()
    assert not any("no sample is in" in note for note in open_source(name, str(tmp_path), options).index().notes)
    options["shares"] = "0.000001,0.999999,0"
    found = open_source(name, str(tmp_path), options).index()
    notes = [note for note in found.notes if note.startswith("no sample is in train: ")]
    assert len(notes) == (len(found.refs) >= 2), "a single sample can be in one split only"
    assert all(DEALT[name] in note and "option shares" in note for note in notes)


def test_folders_of_splits_beside_others_are_said_not_to_count(tmp_path: Path) -> None:
    WRITERS["folder"](tmp_path)
    for name in ("train.txt", "val.txt", "test.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    for tree in ("images", "masks"):
        files = sorted((tmp_path / tree).iterdir())
        for folder, file in zip(("train", "validation", "holdout"), files * 3, strict=False):
            (tmp_path / tree / folder).mkdir()
            shutil.copy(file, tmp_path / tree / folder)
        for file in files:
            file.unlink()
    (note,) = (text for text in open_source("folder", str(tmp_path)).index().notes if "called like splits" in text)
    assert note.startswith("train, validation below images/ are called like splits, but holdout beside them not: all")
    for tree in ("images", "masks"):
        shutil.rmtree(tmp_path / tree / "holdout")
    found = open_source("folder", str(tmp_path)).index()
    assert ({ref.split for ref in found.refs}, found.notes) == ({"train", "val"}, ())


def test_yolos_validation_folder_is_the_split_val(tmp_path: Path) -> None:
    WRITERS["yolo"](tmp_path)
    (tmp_path / "data.yaml").write_text("names: [person, car]\n")  # with paths, those count
    before = open_source("yolo", str(tmp_path)).index()
    for tree in ("images", "labels"):
        (tmp_path / tree / "val").rename(tmp_path / tree / "validation")
    after = open_source("yolo", str(tmp_path)).index()
    assert [(ref.split, len(ref.files)) for ref in after.refs] == [(ref.split, len(ref.files)) for ref in before.refs]
    assert "val" in {ref.split for ref in after.refs}
