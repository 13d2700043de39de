"""Source yolo reads what data.yaml names, as Ultralytics does, and never leaves the root."""

from pathlib import Path

import pytest

from segpipe.errors import InputError
from segpipe.sources import open_source
from tests.fixtures.mini_datasets import WRITERS

NAMES = "names: [person, car]\n"
TRAIN, VAL = ("images/train/a.jpg", "images/train/b.jpg"), ("images/val/c.jpg",)
ROBOFLOW = ("train/images/a.jpg", "train/images/b.jpg"), ("valid/images/c.jpg",)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """images/{train,val} and labels/{train,val}; `b` has no text file."""
    WRITERS["yolo"](tmp_path / "roofs")
    return tmp_path / "roofs"


def as_roboflow(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid")):
        (root / folder).mkdir()
        for tree in ("images", "labels"):
            (root / tree / split).rename(root / folder / tree)


def photographs(root: Path, **options: str) -> dict[str, tuple[str, ...]]:
    """Split -> its photographs; of each that is not `b` the text file was found."""
    refs, refused, notes = open_source("yolo", str(root), options).index()
    assert (refused, notes) == ([], ())
    assert all(len(ref.files) == (1 if ref.sample_id.endswith("b") else 2) for ref in refs)
    splits = dict.fromkeys(ref.split for ref in refs)
    return {split: tuple(ref.files[0] for ref in refs if ref.split == split) for split in splits}


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nval: images/val\ntest:\n",
        "path: ../datasets/roofs\ntrain: images/train\nval: images/val\n",
        "path: /home/somebody/roofs\ntrain: ./images/train/\nval: [images/val]\n",
        "train: /content/roofs/images/train\nval: C:\\data\\roofs\\images\\val\n",
        "train: train.txt\nval: lists/val.txt\n",
        "path: ..\ntrain: [images/train, train.txt]\nvalidation: images/val\n",
    ],
)
def test_the_splits_are_those_that_data_yaml_names(root: Path, text: str) -> None:
    (root / "lists").mkdir()
    (root / "train.txt").write_text("./images/train/a.jpg\n\n/content/roofs/images/train/b.jpg\n")
    (root / "lists" / "val.txt").write_text("images/val/c.jpg\n")
    (root / "data.yaml").write_text(text + NAMES)
    assert photographs(root) == {"train": TRAIN, "val": VAL}


def test_paths_count_from_the_folder_that_path_names(root: Path) -> None:
    for tree in ("images", "labels"):
        (root / "half").mkdir(exist_ok=True)
        (root / tree).rename(root / "half" / tree)
    (root / "data.yaml").write_text("path: half\ntrain: images/train\nval: images/val\n" + NAMES)
    assert photographs(root) == {
        "train": tuple(f"half/{path}" for path in TRAIN),
        "val": tuple(f"half/{path}" for path in VAL),
    }


def test_roboflows_folders_are_found_and_its_line_of_an_absent_test_is_noted(root: Path) -> None:
    as_roboflow(root)
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\n" + NAMES)
    assert photographs(root) == dict(zip(("train", "val"), ROBOFLOW, strict=True))
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\ntest: ../test/images\n" + NAMES)
    (note,) = open_source("yolo", str(root)).index().notes
    assert note.startswith("passed over: 1 split of data.yaml without a photograph: test: ../test/images; fetch")


@pytest.mark.parametrize("options", [{"images": "{split}/images"}, {"labels": "{split}/labels"}])
def test_an_option_counts_more_than_data_yaml(root: Path, options: dict[str, str]) -> None:
    if "images" in options:
        as_roboflow(root)
    else:
        for split in ("train", "val"):
            (root / split).mkdir()
            (root / "labels" / split).rename(root / split / "labels")
    (root / "data.yaml").write_text("train: elsewhere\nval: elsewhere\n" + NAMES)
    expected = ROBOFLOW if "images" in options else (TRAIN, VAL)
    assert photographs(root, **options) == dict(zip(("train", "val"), expected, strict=True))


@pytest.mark.parametrize("text", ["", "train: images/train\n"])
def test_labelled_photographs_of_no_split_are_noted(root: Path, text: str) -> None:
    for tree in ("images", "labels"):
        (root / tree / "val").rename(root / tree / "holdout")
    (root / "data.yaml").write_text(text + NAMES)
    (note,) = open_source("yolo", str(root)).index().notes
    assert note == (
        "passed over: 1 photograph with objects that no split names: images/holdout/c.jpg; name their folder, or a "
        "list of them, in data.yaml under train, val or test"
    )


def test_a_line_of_a_list_that_names_no_photograph_is_refused(root: Path) -> None:
    (root / "train.txt").write_text("images/train/a.jpg\nimages/train/z.jpg\n../../secret.jpg\n")
    (root / "data.yaml").write_text("train: train.txt\nval: images/val\n" + NAMES)
    found = open_source("yolo", str(root)).index()
    assert [(each.file, each.item, each.reason) for each in found.refused] == [
        ("train.txt", "line 2", "missing_image"),
        ("train.txt", "line 3", "missing_image"),
    ]
    assert [ref.files[0] for ref in found.refs] == ["images/train/a.jpg", *VAL]


def test_a_photograph_of_two_splits_is_refused_in_the_second(root: Path) -> None:
    (root / "data.yaml").write_text("train: [images/train, images]\nval: images/val\n" + NAMES)
    refs, refused, _ = open_source("yolo", str(root)).index()
    assert [ref.files[0] for ref in refs if ref.split == "train"] == [*TRAIN, *VAL]
    assert [(each.item, each.reason) for each in refused] == [("images/val/c", "duplicate_id")]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("train: images/train\nval: images/valid\n", {}, "val: images/valid: no JPEG or PNG there .* mend the line"),
        ("train: ../../secrets\nval: images/val\n", {}, r"train: \.\./\.\./secrets: no JPEG or PNG there"),
        ("train: {a: b}\n", {}, "train is .*'a'.*; expected a folder of photographs"),
        ("train: [[images/train]]\n", {}, "train is .*; expected a folder of photographs"),
        ("test: images/none\n", {}, "no picture in images/train/; expected images/train and labels/train"),
        ("", {"images": "images"}, r"option images='images'; expected a folder with \{split\} in it"),
    ],
)
def test_what_cannot_be_followed_says_what_to_mend(
    root: Path, text: str, options: dict[str, str], message: str
) -> None:
    (root.parent / "secrets").mkdir()
    (root.parent / "secrets" / "a.jpg").write_bytes((root / "images" / "train" / "a.jpg").read_bytes())
    (root / "data.yaml").write_text(text + NAMES)
    with pytest.raises(InputError, match=message):
        open_source("yolo", str(root), options).index()
