"""Public datasets in a state in which nobody published them: the bad sample is named, its neighbours stay."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.io

from segpipe.errors import BadSampleError, InputError
from segpipe.sources import SOURCES, open_source
from segpipe.sources.reading import matlab
from segpipe.types import QuarantineEntry
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.mini_pascal import part_annotation
from tests.fixtures.mini_variants import open_mini, write_mini
from tests.fixtures.pictures import photograph, png
from tests.fixtures.small_files import HEIGHT, WIDTH

Options = dict[str, str | int | float | bool]


def found_bad(source: str, root: Path, options: Options | None = None) -> tuple[list[tuple[str, str]], int]:
    """(file, reason) of everything refused, by the index or by a read; and how many samples are left."""
    opened = open_mini(source, root, options)
    refs, refused = opened.index()
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


class Spoil(NamedTuple):
    """What to do to a dataset's folder, and the file that it is done to."""

    apply: Callable[[Path], object]
    file: str


def edit(path: str, change: Callable[[Any], object]) -> Spoil:
    """Changes a JSON document in place."""

    def apply(root: Path) -> None:
        document = json.loads((root / path).read_text())
        change(document)
        (root / path).write_text(json.dumps(document))

    return Spoil(apply, path)


def remove(path: str) -> Spoil:
    return Spoil(lambda root: (root / path).unlink(), path)


def move(path: str, to: str) -> Spoil:
    return Spoil(lambda root: (root / path).rename(root / to), path)


def put(path: str, data: bytes | str) -> Spoil:
    return Spoil(lambda root: (root / path).write_bytes(data.encode() if isinstance(data, str) else data), path)


def rename(old: str, new: str) -> Spoil:
    """Gives a sample another id, in the names of files and in lists."""

    def apply(root: Path) -> None:
        for path in [path for path in root.rglob("*") if path.is_file()]:
            if path.suffix == ".txt":
                path.write_text(path.read_text().replace(old, new))
            path.rename(path.with_name(path.name.replace(old, new)))

    return Spoil(apply, "")


def ids(value: int, kind: type = np.uint8) -> bytes:
    return png(np.full((HEIGHT, WIDTH), value, kind))


def mat(**variables: Any) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, do_compression=True)
    return stream.getvalue()


def first_of(**changes: object) -> Callable[[Any], object]:
    """Changes the first annotation of a document."""
    return lambda document: document["annotations"][0].update(changes)


def second_image(**changes: object) -> Callable[[Any], object]:
    return lambda document: document["images"][1].update(changes)


def shape(number: int, points: list[Any]) -> Callable[[Any], object]:
    return lambda document: document["shapes"][number].update(points=points)


TRAIN, PANOPTIC = "annotations/instances_train2017.json", "annotations/panoptic_train2017.json"
PANOPTIC_PNG = "annotations/panoptic_train2017/000000000009.png"
VOC_MASK, VOC_OBJECTS = "SegmentationClass/2007_000032.png", "SegmentationObject/2007_000032.png"
CITY_IDS = "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png"
ADE = "training/ADE_train_00000001"
BDD = "labels/sem_seg/masks/val/7d06fefd-f7be05a6.png"
VISTAS = "validation/v1.2/labels/_1Gn_xkw7sa_i9GU4mkxxQ.png"
NUCLEUS = "stage1_train/00ae/masks/00ff.png"
BEAR = "480p/bear/00001"
WRONG_SIZE = png(np.zeros((HEIGHT, WIDTH + 1), np.uint8))
EXTRA = "gtCoarse/train_extra/troisdorf/troisdorf_000000_000019_gtCoarse_labelIds.png"
PERSONS, STUFF = "annotations/person_keypoints_train2017.json", "000000000139_labelTrainIds.png"
FULL = np.ones((HEIGHT, WIDTH), np.int32)
PART = "Annotations_Part/2008_000007.mat"
FEW = "annotations/instances_val2014.json"
GREY = png(np.full((HEIGHT, WIDTH, 3), 99, np.uint8))
# source, what is spoilt, the reason that is given, how many samples are left, the file named if it is another one
CASES: list[tuple[str, Spoil, str, int, str]] = [
    ("voc", remove(VOC_OBJECTS), "missing_mask", 2, ""),
    ("voc", remove("JPEGImages/2007_000042.jpg"), "missing_image", 2, ""),
    ("voc", put(VOC_MASK, WRONG_SIZE), "size_mismatch", 2, ""),
    ("voc", put(VOC_MASK, ids(77)), "label_out_of_range", 2, ""),
    ("voc", put(VOC_MASK, ids(0)), "bad_annotation", 2, VOC_OBJECTS),
    ("ade20k", remove(f"annotations/{ADE}.png"), "missing_mask", 2, ""),
    ("ade20k", remove(f"images/{ADE}.jpg"), "missing_image", 2, ""),
    ("cityscapes", remove(CITY_IDS), "missing_mask", 1, ""),
    ("cityscapes", put(CITY_IDS, ids(29001, np.uint16)), "bad_annotation", 1, ""),
    ("bdd100k", put(BDD, ids(77)), "label_out_of_range", 1, ""),
    ("nuclei", put(NUCLEUS, ids(0)), "bad_annotation", 2, ""),
    ("nuclei", put(NUCLEUS, ids(9)), "label_out_of_range", 2, ""),
    ("nuclei", remove("stage1_train/00ae/images/00ae.png"), "missing_image", 2, ""),
    ("nuclei", put("split_val.txt", "1a11\nno\n"), "missing_image", 3, "stage1_train/no/images/no.png"),
    ("isbi2012", remove("train/label/10.png"), "missing_mask", 10, ""),
    ("isbi2012", put("train/label/10.png", ids(77)), "label_out_of_range", 10, ""),
    ("davis", put(f"Annotations/{BEAR}.png", ids(255)), "label_out_of_range", 5, ""),
    ("davis", put("ImageSets/2017/val.txt", "judo\ncow\n"), "missing_image", 6, "JPEGImages/480p/cow"),
    ("davis", move(f"JPEGImages/{BEAR}.jpg", "JPEGImages/480p/bear/one.jpg"), "missing_image", 5, ""),
    ("oxford_pet", remove("annotations/trimaps/beagle_1.png"), "missing_mask", 12, ""),
    ("gta5", put("labels/00002.png", WRONG_SIZE), "size_mismatch", 2, ""),
    ("gta5", remove("images/00003.png"), "missing_image", 2, ""),
    ("camvid-original", remove("LabeledApproved_full/0006R0_f00930_L.png"), "missing_mask", 5, ""),
    ("camvid-original", put("LabeledApproved_full/0006R0_f00930_L.png", ids(3)), "label_out_of_range", 5, ""),
    ("camvid-original", put("LabeledApproved_full/0006R0_f00930_L.png", GREY), "label_out_of_range", 5, ""),
    ("cityscapes-coarse", remove(EXTRA), "missing_mask", 2, ""),
    ("coco-keypoints", edit(PERSONS, first_of(keypoints=[1, 2, 2] * 16)), "bad_annotation", 3, ""),
    ("coco_stuff", put("annotations/val2017/000000000139.png", ids(11)), "label_out_of_range", 2, ""),
    ("coco_stuff", remove("annotations/val2017/000000000139.png"), "missing_mask", 2, ""),
    ("coco_stuff-train_ids", put(f"annotations/val2017/{STUFF}", ids(171)), "label_out_of_range", 2, ""),
    ("pascal_context", remove("trainval/2008_000007.mat"), "missing_mask", 2, ""),
    ("pascal_context", put("trainval/2008_000007.mat", mat(LabelMap=np.full((HEIGHT, 3), 9))), "size_mismatch", 2, ""),
    ("pascal_context", put("trainval/2008_000007.mat", mat(LabelMap=FULL * 460)), "label_out_of_range", 2, ""),
    ("pascal_context", put("trainval/2008_000007.mat", mat(LabelMap=FULL * -1)), "label_out_of_range", 2, ""),
    ("pascal_context", put("trainval/2008_000007.mat", mat(LabelMap=FULL * 0.5)), "bad_annotation", 2, ""),
    ("pascal_context", put("trainval/2008_000007.mat", mat(labels=FULL)), "bad_annotation", 2, ""),
    ("pascal_context", put("trainval/2008_000007.mat", mat(LabelMap=FULL)[:200]), "unreadable", 2, ""),
    ("pascal_context", put("trainval/2008_000007.mat", b""), "unreadable", 2, ""),
    ("pascal_context-merged", put("SegmentationClassContext/2008_000007.png", ids(60)), "label_out_of_range", 2, ""),
    ("coco_20i", remove("val2014/COCO_val2014_000000000009.jpg"), "missing_image", 2, ""),
    ("coco_20i", edit(FEW, first_of(segmentation=[[1, 2, 3]])), "bad_annotation", 2, f"{FEW}, annotation 1"),
    ("coco_20i", edit(FEW, first_of(category_id=2)), "bad_annotation", 2, ""),
    ("pascal_part", remove(PART), "missing_mask", 2, ""),
    ("pascal_part", put(PART, mat(anno=1)), "bad_annotation", 2, ""),
    ("pascal_part", put(PART, b"MATLAB 5.0"), "unreadable", 2, ""),
    ("pascal_part", put("JPEGImages/2008_000007.jpg", photograph(9, 9)), "size_mismatch", 2, f"{PART}, object 1"),
    ("pascal_part", put(PART, part_annotation([("background", [0], {})])), "bad_annotation", 2, f"{PART}, object 1"),
    (
        "pascal_part",
        put(PART, part_annotation([("boat", [0], {"mast": [0]})])),
        "bad_annotation",
        2,
        f"{PART}, object 1",
    ),
    ("pascal_5i", remove("SegmentationClassAug/2007_000033.png"), "missing_mask", 2, ""),
    ("pascal_5i", put("SegmentationClassAug/2007_000033.png", ids(15)), "bad_annotation", 2, ""),
    ("pascal_5i", put("SegmentationClassAug/2007_000033.png", ids(21)), "label_out_of_range", 2, ""),
    ("coco", remove("train2017/000000000009.jpg"), "missing_image", 3, ""),
    ("coco", put("train2017/000000000009.jpg", photograph(9, 9)), "size_mismatch", 3, ""),
    ("coco", edit(TRAIN, first_of(segmentation=[[1, 2, 3, 4]])), "bad_annotation", 3, f"{TRAIN}, annotation 90"),
    ("coco", edit(TRAIN, first_of(segmentation=[])), "bad_annotation", 3, f"{TRAIN}, annotation 90"),
    ("coco", edit(TRAIN, first_of(segmentation={"counts": [5]})), "bad_annotation", 3, f"{TRAIN}, annotation 90"),
    ("coco", edit(TRAIN, first_of(keypoints=[1, 2, 7] * 3)), "bad_annotation", 3, f"{TRAIN}, annotation 90"),
    ("coco", edit(TRAIN, first_of(keypoints=[1, 2])), "bad_annotation", 3, ""),
    ("coco", edit(TRAIN, first_of(category_id=7)), "bad_annotation", 3, ""),
    ("coco", edit(TRAIN, first_of(area=10**400, keypoints=[10**400] * 9)), "bad_annotation", 3, ""),
    ("coco", edit(TRAIN, first_of(segmentation=[[10**400] * 6])), "bad_annotation", 3, f"{TRAIN}, annotation 90"),
    (
        "coco",
        edit(TRAIN, first_of(segmentation={"counts": [], "size": None})),
        "bad_annotation",
        3,
        f"{TRAIN}, annotation 90",
    ),
    ("coco", edit(TRAIN, first_of(image_id=[9], category_id=[1])), "bad_annotation", 4, ""),
    ("coco", edit(TRAIN, first_of(image_id=999)), "bad_annotation", 4, ""),
    ("coco", edit(TRAIN, second_image(file_name="../../etc/passwd")), "bad_annotation", 3, ""),
    ("coco", edit(TRAIN, second_image(id=9)), "bad_annotation", 3, ""),
    ("coco", edit(TRAIN, second_image(height="24")), "bad_annotation", 3, ""),
    (
        "coco_panoptic",
        edit(PANOPTIC, lambda document: document["annotations"][0]["segments_info"].pop()),
        "bad_annotation",
        1,
        PANOPTIC_PNG,
    ),
    ("coco_panoptic", edit(PANOPTIC, first_of(segments_info=[{"id": 7}])), "bad_annotation", 1, ""),
    ("coco_panoptic", edit(PANOPTIC, first_of(file_name="/etc/passwd")), "bad_annotation", 1, ""),
    ("coco_panoptic", edit(PANOPTIC, first_of(image_id=[9])), "bad_annotation", 1, ""),
    ("coco_panoptic", edit(PANOPTIC, first_of(segments_info=[{"id": 7, "category_id": [1]}])), "bad_annotation", 1, ""),
    ("coco_panoptic", edit(PANOPTIC, lambda document: document["annotations"].clear()), "missing_mask", 1, ""),
    ("coco_panoptic", remove(PANOPTIC_PNG), "missing_mask", 1, ""),
    ("coco_panoptic", put(PANOPTIC_PNG, ids(7)), "mask_mode", 1, ""),
    ("labelme", edit("photo_0.json", shape(0, [[1, 2]])), "bad_annotation", 3, ""),
    ("labelme", edit("photo_0.json", shape(0, [[1, 2], [3, "x"], [5, 6]])), "bad_annotation", 3, ""),
    ("labelme", edit("photo_0.json", shape(2, [[90, 90], [95, 95]])), "bad_annotation", 3, "photo_0.json, shapes[2]"),
    ("labelme", edit("photo_0.json", shape(0, [[1, 2], [3, 10**400], [5, 6]])), "bad_annotation", 3, ""),
    ("labelme", put("photo_0.jpg", photograph(2 * HEIGHT, 2 * WIDTH)), "size_mismatch", 3, ""),
    ("labelme", put("photo_0.png", photograph(HEIGHT, WIDTH, encoding="PNG")), "duplicate_id", 3, ""),
    ("labelme", remove("photo_0.jpg"), "missing_image", 3, "photo_0.json"),
    ("labelme", put("photo_0.json", "{"), "bad_annotation", 3, ""),
    ("mapillary", remove(VISTAS.replace("labels", "instances")), "missing_mask", 1, ""),
    ("mapillary", put(VISTAS, ids(77)), "label_out_of_range", 1, ""),
    ("yolo", put("labels/train/a.txt", "2 0 0 1 0 1 1\n"), "label_out_of_range", 2, "labels/train/a.txt, line 1"),
    ("yolo", put("labels/train/a.txt", "1 0.5 0.5 0.2 0.2\n"), "bad_annotation", 2, "labels/train/a.txt, line 1"),
    ("yolo", put("labels/train/a.txt", "1 0 0 1 0 1 nan\n"), "bad_annotation", 2, "labels/train/a.txt, line 1"),
    ("yolo", put("labels/train/d.txt", "1 0 0 1 0 1 1\n"), "missing_image", 3, ""),
]


# A sample of each source that gets an id of its list of known-bad ones; how many are left, and the file that is named.
KNOWN_BAD: dict[str, tuple[str, str, int, str]] = {
    "ade20k": ("ADE_train_00000001", "ADE_train_00015928", 2, "images/training/ADE_train_00015928.jpg"),
    "cityscapes": (
        "aachen_000000_000019",
        "troisdorf_000000_000073",
        1,
        "leftImg8bit/train/aachen/troisdorf_000000_000073_leftImg8bit.png",
    ),
    "oxford_pet": ("beagle_1", "Egyptian_Mau_191", 12, "images/Egyptian_Mau_191.jpg"),
}
CASES += [(name, rename(old, new), "known_bad", left, file) for name, (old, new, left, file) in KNOWN_BAD.items()]


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
    refs, refused = open_source("nuclei", str(tmp_path)).index()
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
