"""torchvision's own objects over the mini copies: ingest of them gives the version that the folder gives."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch.utils.data import Subset
from torchvision.datasets import Cityscapes, CocoDetection, OxfordIIITPet, VOCDetection, VOCSegmentation

from segpipe.config import DatasetConfig
from segpipe.errors import InputError
from segpipe.sources import open_source
from segpipe.sources.torchvision_objects import describe, from_torchvision
from segpipe.stages.adopt import config_of
from segpipe.stages.ingest import ingest
from tests.fixtures.mini_datasets import WRITERS

pytestmark = [pytest.mark.usefixtures("one_core"), pytest.mark.xdist_group("ingest")]
Options = dict[str, str | int | float | bool]


class Coco:
    """What CocoDetection needs of pycocotools, which is not among our packages: the images of the document."""

    def __init__(self, document: str) -> None:
        self.imgs = {entry["id"]: entry for entry in json.loads(Path(document).read_text())["images"]}


@pytest.fixture(autouse=True)
def _pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pycocotools.coco")
    module.COCO = Coco  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycocotools", ModuleType("pycocotools"))
    monkeypatch.setitem(sys.modules, "pycocotools.coco", module)


@dataclass(frozen=True, kw_only=True)
class Case:
    """The objects over a mini copy in `folder` below the root, and the source's options that mean the same."""

    source: str
    folder: str = "."
    objects: Callable[[Path], list[Any]]
    options: Options = field(default_factory=dict)


def voc(root: Path, *image_sets: str) -> list[Any]:
    return [VOCSegmentation(str(root), image_set=image_set) for image_set in image_sets]


def cityscapes(root: Path, kind: str = "instance") -> list[Any]:
    return [Cityscapes(str(root), split=split, target_type=kind) for split in ("train", "val")]


def coco(root: Path) -> list[Any]:
    places = [(root / f"{split}2017", root / f"annotations/instances_{split}2017.json") for split in ("train", "val")]
    return [CocoDetection(str(images), str(document)) for images, document in places]


CASES = {
    "voc": Case(source="voc", folder="VOCdevkit/VOC2012", objects=lambda root: voc(root, "train", "val")),
    "trainval": Case(source="voc", folder="VOCdevkit/VOC2012", objects=lambda root: voc(root, "trainval")),
    "one split": Case(source="voc", folder="VOCdevkit/VOC2012", objects=lambda root: voc(root, "train")),
    "coco": Case(source="coco", objects=coco),
    "cityscapes": Case(source="cityscapes", objects=cityscapes),
    "classes": Case(
        source="cityscapes", objects=lambda root: cityscapes(root, "semantic"), options={"segments": False}
    ),
    "oxford_pet": Case(
        source="oxford_pet",
        folder="oxford-iiit-pet",
        objects=lambda root: [OxfordIIITPet(root, split, "segmentation") for split in ("trainval", "test")],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ingest_of_objects_is_ingest_of_the_folder(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "root" / case.folder
    WRITERS[case.source](folder)
    if case.source == "oxford_pet":  # torchvision reads no comments, which the published list has
        listed = folder / "annotations" / "test.txt"
        listed.write_text("".join(line + "\n" for line in listed.read_text().splitlines() if line[0] != "#"))
    config = config_of("toy", *case.objects(tmp_path / "root"))
    plain = DatasetConfig(name="toy", format=case.source, root=str(folder), options=case.options)
    found, wanted = ingest(config, to=str(tmp_path / "one")), ingest(plain, to=str(tmp_path / "two"))
    assert (found.version, found.splits) == (wanted.version, wanted.splits)
    assert sum(found.splits.values()) > 1


def test_a_source_and_its_options_may_be_asked_for(tmp_path: Path) -> None:
    WRITERS["voc"](tmp_path / "VOCdevkit" / "VOC2012")
    dataset = voc(tmp_path, "train")[0]
    source = from_torchvision(dataset, objects="")
    assert source == open_source("voc", str(tmp_path / "VOCdevkit" / "VOC2012"), {"objects": ""})
    with pytest.raises(InputError, match="no option 'object'"):
        from_torchvision(dataset, object="")
    with pytest.raises(InputError, match="name"):
        config_of("Not a name", dataset)


def test_what_is_no_dataset_of_this_kind_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "VOCdevkit" / "VOC2012"
    WRITERS["voc"](base)
    shutil.copytree(base / "ImageSets" / "Segmentation", base / "ImageSets" / "Main")
    train, val = voc(tmp_path, "train", "val")
    with pytest.raises(InputError, match="type Subset is a part of a dataset: give the dataset itself"):
        describe(Subset(train, [0]))
    with pytest.raises(InputError, match=r"type VOCDetection is not known here; .* Cityscapes, CocoDetection, Oxf"):
        describe(VOCDetection(str(tmp_path)))
    with pytest.raises(InputError, match="no dataset object"):
        from_torchvision()
    WRITERS["coco"](tmp_path / "coco")
    with pytest.raises(InputError, match=r"coco at .* is not a split of voc at"):
        from_torchvision(train, coco(tmp_path / "coco")[0])
    document = str(tmp_path / "coco/annotations/instances_train2017.json")
    (tmp_path / "coco" / "train2017").rename(tmp_path / "coco" / "pictures")
    with pytest.raises(InputError, match=r"pictures: the folder does not tell its split; expected train2017"):
        describe(CocoDetection(str(tmp_path / "coco/pictures"), document))
    train.images = train.images[:1]
    with pytest.raises(InputError, match=r"VOCSegmentation holds 1 samples, the files of train 2 \(0 refused\)"):
        from_torchvision(train, val)
    val.images = []
    with pytest.raises(InputError, match="VOCSegmentation of 'val' holds no image"):
        describe(val)
    WRITERS["cityscapes"](tmp_path / "city")
    with pytest.raises(InputError, match="split 'test' of Cityscapes has no published truth"):
        describe(Cityscapes(str(tmp_path / "city"), split="test"))
