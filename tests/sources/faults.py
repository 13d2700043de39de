"""Public datasets in a state in which nobody published them: what to do to a folder, and what must come of it."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io

from tests.fixtures.mini_pascal import part_annotation
from tests.fixtures.pictures import photograph, png
from tests.fixtures.small_files import HEIGHT, WIDTH


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
    """Gives a sample another id, in the names of files and folders and in lists."""

    def apply(root: Path) -> None:
        for path in sorted(root.rglob("*"), reverse=True):  # what lies in a folder comes before it
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
    ("coco-keypoints", edit(PERSONS, first_of(bbox=[4, 4, -2, 7])), "bad_annotation", 3, ""),
    ("coco-keypoints", edit(PERSONS, first_of(bbox=[4, 4, 2, 0])), "bad_annotation", 3, ""),
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


UNLABELLED = "7b38c9173ebe69b4c6ba7e703c0c27f39305d9b2910f46405993d2ea7a963b80"
# A sample of each source that gets an id of its list of known-bad ones; how many are left, and the file that is named.
KNOWN_BAD: dict[str, tuple[str, str, int, str]] = {
    "ade20k": ("ADE_train_00000001", "ADE_train_00015928", 2, "images/training/ADE_train_00015928.jpg"),
    "cityscapes": (
        "aachen_000000_000019",
        "troisdorf_000000_000073",
        1,
        "leftImg8bit/train/aachen/troisdorf_000000_000073_leftImg8bit.png",
    ),
    "nuclei": ("00ae", UNLABELLED, 2, f"stage1_train/{UNLABELLED}/images/{UNLABELLED}.png"),
    "oxford_pet": ("beagle_1", "Egyptian_Mau_191", 12, "images/Egyptian_Mau_191.jpg"),
}
CASES += [(name, rename(old, new), "known_bad", left, file) for name, (old, new, left, file) in KNOWN_BAD.items()]
