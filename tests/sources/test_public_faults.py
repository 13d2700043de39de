"""Public datasets in a state in which nobody published them: the bad sample is named, its neighbours stay."""

from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import BadSampleError, InputError
from segpipe.sources import SOURCES, open_source
from segpipe.sources.reading import matlab
from segpipe.types import QuarantineEntry
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.mini_variants import open_mini, write_mini
from tests.sources.faults import CASES, FEW, KNOWN_BAD, TRAIN, Spoil, edit, ids, mat, move, put, remove, rename

Options = dict[str, str | int | float | bool]


def found_bad(source: str, root: Path, options: Options | None = None) -> tuple[list[tuple[str, str]], int]:
    """(file, reason) of everything refused, by the index or by a read; and how many samples are left."""
    opened = open_mini(source, root, options)
    refs, refused, _ = opened.index()
    bad, good = list(refused), 0
    for ref in refs:
        assert all((root / file).exists() for file in ref.files), "ingest would stumble over it"
        try:
            opened.read(ref)
            good += 1
        except BadSampleError as error:
            bad.append(QuarantineEntry(file=error.file, item=ref.sample_id, reason=error.reason, detail=error.detail))
    assert all(entry.detail for entry in bad)
    return [(entry.file, entry.reason) for entry in bad], good


def test_every_list_of_known_bad_samples_is_tried() -> None:
    assert KNOWN_BAD.keys() == {name for name, info in SOURCES.items() if info.known_bad}
    assert all(new in SOURCES[name].known_bad for name, (_, new, _, _) in KNOWN_BAD.items())


def test_a_known_bad_sample_is_told_as_such_where_its_file_was_taken_away(tmp_path: Path) -> None:
    WRITERS["ade20k"](tmp_path)
    rename("ADE_train_00000001", "ADE_train_00015928").apply(tmp_path)
    remove("images/training/ADE_train_00015928.jpg").apply(tmp_path)
    assert found_bad("ade20k", tmp_path) == ([("images/training/ADE_train_00015928.jpg", "known_bad")], 2)


@pytest.mark.parametrize(
    ("source", "spoil", "reason", "left", "file"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_a_bad_sample_is_named_and_its_neighbours_stay(
    source: str, spoil: Spoil, reason: str, left: int, file: str, tmp_path: Path
) -> None:
    write_mini(source, tmp_path)
    spoil.apply(tmp_path)
    bad, good = found_bad(source, tmp_path)
    assert (file or spoil.file, reason) in bad
    assert good == left


NAMES = "Idx\tRatio\tTrain\tVal\tName\n1\t1\t1\t1\twall\n"


@pytest.mark.parametrize(
    ("source", "spoil", "message"),
    [
        ("voc", move("ImageSets", "x"), "no ImageSets/Segmentation/.*name a split for all"),
        ("ade20k", remove("objectInfo150.txt"), "objectInfo150.txt"),
        ("ade20k", put("objectInfo150.txt", NAMES), "1 rows; expected the"),
        ("ade20k", move("images/training", "images/extra"), "images/extra: expected"),
        ("cityscapes", move("leftImg8bit", "x"), "expected leftImg8bit/train/<city>/"),
        ("bdd100k", move("images", "x"), "give the folder bdd100k as root"),
        ("nuclei", move("stage1_train", "x"), "Data Science Bowl"),
        ("isbi2012", put("train/image/copy.png", b"x"), "copy.png in train/image/"),
        ("davis", put("ImageSets/2017/val.txt", "..\n"), "'..' is no sequence"),
        ("oxford_pet", put("annotations/test.txt", "Abyssinian_201 1 9 1\n"), "line 1: breed 1, species 9"),
        ("oxford_pet", put("annotations/test.txt", "Abyssinian_201\n"), "line 1 is 'Abyssinian_201'"),
        ("gta5", put("split.mat", b"no matlab"), "expected a MATLAB 5 file"),
        ("gta5", put("split.mat", b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"), "expected a MATLAB 5 file"),
        ("camvid-original", move("701_StillsRaw_full", "x"), "expected CamVid's own layout"),
        ("coco_stuff", move("images", "x"), "say where they are by the option images"),
        ("pascal_part", move("ImageSets", "x"), "neither train.txt nor val.txt in ImageSets/Main"),
        ("coco_20i", move(FEW, "annotations/instances_test2014.json"), "expected documents of train and val"),
        ("pascal_5i", remove("splits/pascal/trn/fold3.txt"), "fold3.txt"),
        ("pascal_5i", put("splits/pascal/val/fold0.txt", "2007_000033__06\n"), "a class of 01 to 05"),
        ("pascal_5i", put("splits/pascal/val/fold0.txt", "2007_000033\n"), "expected `image__class`"),
        ("pascal_context", move("ImageSets", "x"), "neither train.txt nor val.txt in ImageSets/Main"),
        ("pascal_context", remove("labels.txt"), "labels.txt"),
        ("pascal_context", put("labels.txt", "1: accordion\n"), "1 names without aeroplane, bag"),
        ("pascal_context-official", put("59_labels.txt", "aeroplane\n"), "line 1 is 'aeroplane'; expected"),
        (
            "camvid-original",
            move("701_StillsRaw_full/0006R0_f00930.png", "701_StillsRaw_full/0007R0_f00930.png"),
            "0007R0_f00930.png: is no frame of 0001TP",
        ),
        ("coco", move("annotations", "x"), "no annotations/instances_{split}2017.json"),
        ("coco", put(TRAIN, '{"images": [], "images": []}'), "'images' is given twice"),
        ("coco", put(TRAIN, "[]"), "a list; expected an object"),
        ("coco", edit(TRAIN, lambda document: document["categories"].reverse()), "categories of .* differ"),
        (
            "coco",
            edit(TRAIN, lambda document: document["categories"][0].update(name="toothbrush")),
            r"categories\[1\].name is 'toothbrush'",
        ),
        ("coco_panoptic", move("annotations", "x"), "no annotations/panoptic"),
        ("mapillary", put("config_v1.2.json", '{"labels": [{}]}'), "expected a list of name, readable"),
        ("yolo", put("data.yaml", "names: {a: b}\n"), "names is"),
        ("yolo", put("data.yaml", "names: [[a], b]\n"), "expected a list, or a mapping from 0, 1, 2"),
        ("yolo", put("data.yaml", "names: {0: a, 2: b}\n"), "expected a list, or a mapping from 0, 1, 2"),
        ("yolo", put("data.yaml", "names: [a\n"), "expected YAML with `names`"),
        ("yolo", put("data.yaml", "names: [a, b]\nisthing: [0, maybe]\n"), "isthing is .*; expected a list of 0 and 1"),
        ("yolo", put("data.yaml", "names: [a, a]\n"), "2 class names; expected at least one, each once"),
        ("yolo", move("labels", "x"), "no text file in labels/train/, so no photograph would have an object"),
        ("yolo", remove("data.yaml"), "neither data.yaml nor classes.txt"),
    ],
)
def test_a_folder_that_is_not_the_dataset_says_what_was_expected(
    source: str, spoil: Spoil, message: str, tmp_path: Path
) -> None:
    write_mini(source, tmp_path)
    spoil.apply(tmp_path)
    with pytest.raises(InputError, match=message):
        open_mini(source, tmp_path).index()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("cityscapes", {"truth": "gtfine"}, "option truth='gtfine'; expected gtFine or gtCoarse"),
        ("cityscapes", {"split": "dev"}, "option split='dev'"),
        ("davis", {"year": 2018}, "option year=2018; expected 2016 or 2017"),
        ("oxford_pet", {"classes": "cat"}, "option classes='cat'; expected pet, species or breed"),
        ("oxford_pet", {"validation": 1.0}, "option validation=1.0"),
        ("oxford_pet", {"classes": "breed"}, "the lists name 2 of 37 breeds"),
        ("labelme", {"classes": "photo_0.jpg"}, "expected UTF-8"),
        ("nuclei", {"shares": "1,1"}, "option shares='1,1'"),
        ("pascal_part", {"level": "part"}, "option level='part'; expected objects or parts"),
        ("coco_20i", {"fold": -1}, "option fold=-1; expected 0 to 3"),
        ("coco_20i", {"outside": ""}, "option outside=''; expected background or ignored"),
        ("pascal_5i", {"fold": 4}, "option fold=4; expected 0 to 3"),
        ("pascal_5i", {"outside": "void"}, "option outside='void'; expected background or ignored"),
        ("pascal_context", {"masks": "mats"}, "option masks='mats'; expected trainval, 59_context_labels, Seg"),
        ("pascal_context", {"classes": 459}, "option classes=459; expected 59"),
        ("coco_stuff", {"labels": "171"}, "option labels='171'; expected raw, train_ids, pixelmaps"),
        ("camvid", {"layout": "full"}, "option layout='full'; expected segnet or original"),
        ("camvid", {"classes": 12}, "option classes=12; expected 11 or 32"),
        ("camvid", {"classes": 32}, "SegNet's layout has 11 classes and its own lists"),
        ("camvid", {"shares": "1,0,0"}, "SegNet's layout has 11 classes and its own lists"),
    ],
)
def test_a_wrong_option_is_refused(source: str, options: Options, message: str, tmp_path: Path) -> None:
    write_mini(source, tmp_path)
    with pytest.raises(InputError, match=message):
        open_mini(source, tmp_path, options)


def test_a_stray_picture_among_the_nuclei_is_passed_over(tmp_path: Path) -> None:
    WRITERS["nuclei"](tmp_path)
    for name in ("split_train.txt", "split_val.txt"):
        (tmp_path / name).unlink()
    (tmp_path / "stage1_train" / "preview.png").write_bytes(ids(0))
    refs, refused, _ = open_source("nuclei", str(tmp_path)).index()
    assert (len(refs), refused) == (3, [])


def test_more_labels_than_a_byte_has_are_refused(tmp_path: Path) -> None:
    WRITERS["labelme"](tmp_path)
    shapes = [{"label": f"kind {n}", "points": [[1, 1], [5, 1], [5, 5]], "shape_type": "polygon"} for n in range(255)]
    edit("photo_0.json", lambda document: document.update(shapes=shapes)).apply(tmp_path)
    with pytest.raises(InputError, match="257 labels; expected 1 to 254"):
        open_source("labelme", str(tmp_path)).index()


@pytest.mark.parametrize(
    ("source", "file"), [("coco", TRAIN), ("voc", "ImageSets/Segmentation/train.txt"), ("ade20k", "objectInfo150.txt")]
)
def test_lists_and_documents_are_not_followed_out_of_the_root(source: str, file: str, tmp_path: Path) -> None:
    WRITERS[source](tmp_path / "root")
    (tmp_path / "root" / file).rename(tmp_path / "elsewhere")
    (tmp_path / "root" / file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link out of the root"):
        open_source(source, str(tmp_path / "root")).index()


def test_a_mask_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mini("pascal_context", tmp_path)
    monkeypatch.setattr(matlab, "MAX_UNPACKED", 2**20)
    put("trainval/2008_000007.mat", mat(LabelMap=np.zeros((2048, 2048), np.uint8))).apply(tmp_path)
    assert found_bad("pascal_context", tmp_path) == ([("trainval/2008_000007.mat", "unreadable")], 2)
