"""Rows E1 and E5: no link, `..`, absolute path or name from data leads out of a root; no call runs what it reads."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import shards, storage
from segpipe.config import DatasetConfig
from segpipe.errors import CorruptError, InputError, SegpipeError
from segpipe.shards import open_dataset
from segpipe.stages.export import export
from segpipe.stages.ingest import ingest
from segpipe.types import Sample
from tests import test_walls
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.ingest_worker import streets
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.mini_label_studio import EXPORT
from tests.fixtures.pictures import photograph, png
from tests.fixtures.samples import manifest_of
from tests.fixtures.small import publish_small
from tests.fixtures.trials import Trials

CANARY = "canary of the outside"
TRAIN, PANOPTIC = "annotations/instances_train2017.json", "annotations/panoptic_train2017.json"
OUT = (
    "../outside/secret.jpg",
    "{outside}/secret.jpg",
    "a/../../outside/secret.jpg",
    "..\\outside\\secret.jpg",
    "//x/secret",
)
# A file of a source that may be a link out of it, and what it is a link to.
LINKED = [
    ("folder", "images/img_001.jpg", "secret.jpg"),
    ("folder", "masks/img_001.png", "secret.png"),
    ("folder", "classes.txt", "secret.txt"),
    ("folder", "images", "images"),
    ("folder", "masks", "masks"),
    ("voc", "ImageSets/Segmentation/train.txt", "secret.txt"),
    ("voc", "JPEGImages/2007_000032.jpg", "secret.jpg"),
    ("coco", TRAIN, "secret.json"),
    ("coco", "train2017/000000000009.jpg", "secret.jpg"),
    ("coco_panoptic", PANOPTIC, "secret.json"),
    ("label_studio", EXPORT, "secret.json"),
    ("label_studio", "labelling_config.xml", "secret.txt"),
    ("label_studio", "images/b.jpg", "secret.jpg"),
    ("labelme", "photo_0.json", "secret.json"),
    ("labelme", "photo_0.jpg", "secret.jpg"),
    ("yolo", "data.yaml", "secret.yaml"),
    ("yolo", "labels/train/a.txt", "secret.txt"),
    ("gta5", "split.mat", "secret.mat"),
    ("ade20k", "objectInfo150.txt", "secret.txt"),
    ("mapillary", "config_v1.2.json", "secret.json"),
    ("oxford_pet", "annotations/test.txt", "secret.txt"),
]


def outside(folder: Path) -> Path:
    """Well-formed files that hold the canary, which must not be found anywhere afterwards."""
    folder.mkdir()
    comment = photograph(24, 30)[:2] + b"\xff\xfe" + (len(CANARY) + 2).to_bytes(2, "big") + CANARY.encode()
    picture = comment + photograph(24, 30)[2:]
    for name in ("images", "masks"):
        (folder / name).mkdir()
    (folder / "secret.jpg").write_bytes(picture)
    (folder / "images" / "img_001.jpg").write_bytes(picture)
    (folder / "secret.png").write_bytes(png(np.zeros((24, 30), np.uint8)))
    (folder / "masks" / "img_001.png").write_bytes(png(np.zeros((24, 30), np.uint8)))
    (folder / "secret.txt").write_text(f"{CANARY}\n{CANARY} 1\n{CANARY} 2\n")
    (folder / "secret.json").write_text(json.dumps({"shapes": [], "categories": [{"id": 1, "name": CANARY}]}))
    (folder / "secret.yaml").write_text(f"names: ['{CANARY}', b]\n")
    (folder / "secret.mat").write_bytes(b"MATLAB " + CANARY.encode())
    return folder


def linked(source: str, path: str, target: str) -> Callable[[Path, Path], None]:
    def spoil(root: Path, out: Path) -> None:
        (root / path).rename(out.parent / "moved")
        (root / path).symlink_to(out / target)

    return spoil


def listed(path: str) -> Callable[[Path, Path], None]:
    """A list that names files outside."""

    def spoil(root: Path, out: Path) -> None:
        lines = (root / path).read_text().splitlines()
        (root / path).write_text("\n".join([*lines, *(name.format(outside=out) for name in OUT)]) + "\n")

    return spoil


def entry(path: str, key: str, name: str, value: str) -> Callable[[Path, Path], None]:
    """An annotation document whose first `key` names a file outside."""

    def spoil(root: Path, out: Path) -> None:
        document = json.loads((root / path).read_text())
        document[key][0][name] = value.format(outside=out)
        (root / path).write_text(json.dumps(document))

    return spoil


SOURCES: list[tuple[str, Callable[[Path, Path], None], dict[str, Any]]] = [
    *((source, linked(source, path, target), {}) for source, path, target in LINKED),
    ("folder", listed("train.txt"), {}),
    ("voc", listed("ImageSets/Segmentation/train.txt"), {}),
    ("davis", listed("ImageSets/2017/train.txt"), {}),
    *(("coco", entry(TRAIN, "images", "file_name", value), {}) for value in OUT),
    *(("coco_panoptic", entry(PANOPTIC, "annotations", "file_name", value), {}) for value in OUT),
    *(("labelme", entry("photo_0.json", "shapes", "label", value), {}) for value in OUT),
    *(
        ("folder", lambda root, out: None, {option: "../outside"})
        for option in ("images", "masks", "classes", "splits")
    ),
    *(("coco", lambda root, out: None, {option: "../outside/{split}"}) for option in ("images", "annotations")),
    *(("labelme", lambda root, out: None, {option: "../outside"}) for option in ("images", "json")),
    *(
        ("label_studio", lambda root, out: None, {option: "../outside/secret.txt"})
        for option in ("images", "export", "config")
    ),
]


def outcome(config: DatasetConfig, to: Path) -> str:
    """What a user is told."""
    try:
        result = ingest(config, to=str(to))
    except SegpipeError as error:
        return str(error)
    return f"{result.warnings} {result.quarantined}"


@pytest.mark.usefixtures("one_core")
def test_nothing_outside_of_a_root_is_read(trials: Trials, tmp_path: Path) -> None:
    """Refused as a whole or as a sample; what is published holds nothing of the files outside."""

    def trial(number: int) -> None:
        source, spoil, options = SOURCES[number]
        place = tmp_path / str(number)
        place.mkdir()
        out, root, to = outside(place / "outside"), place / "root", place / "to"
        WRITERS[source](root) if source != "folder" else write_folder_mini(root, count=6, lists=False)
        if source == "folder":
            (root / "train.txt").write_text("".join(f"img_{n:03d}\n" for n in range(6)))
        spoil(root, out)
        config = DatasetConfig(name="x", format=source, root=str(root), options=options, max_quarantine=1)
        assert CANARY not in outcome(config, to), "the outside is shown"
        for path in to.rglob("*") if to.exists() else ():
            assert path.is_dir() or CANARY.encode() not in path.read_bytes(), f"{path} holds the outside"
        assert {path.name for path in place.iterdir()} <= {"outside", "root", "to", "moved"}

    trials.run("E1", range(len(SOURCES)), trial)


PATHS = ("/etc/passwd", "../x.parquet", "shards/../../x", "s3://b/k", "", ".", "a\\b", "a//b", "a/\0b", "shards/./x")


def test_names_of_a_manifest_stay_inside(trials: Trials, tmp_path: Path) -> None:
    """Forged manifests, each under the name of its hash, as somebody with access to the store could write them."""
    version = publish_small(str(tmp_path), train=4, val=1, test=1)
    document = json.loads((tmp_path / "manifests" / f"{version}.json").read_bytes())
    places = [
        lambda manifest, path: manifest["splits"]["train"]["shards"][0].update(path=path),
        lambda manifest, path: manifest["splits"].update({path: manifest["splits"].pop("train")}),
        lambda manifest, path: manifest.update(quarantine_path=path),
    ]

    def trial(number: int) -> None:
        place, path = places[number % len(places)], PATHS[number // len(places)]
        manifest = json.loads(json.dumps(document))
        place(manifest, path)
        data = storage.canonical_json(manifest)
        forged = storage.sha256_bytes(data)
        (tmp_path / "manifests" / f"{forged}.json").write_bytes(data)
        with pytest.raises(CorruptError):
            open_dataset(str(tmp_path), version=forged)
        with pytest.raises(InputError):
            storage.join(str(tmp_path), path)

    trials.run("E1", range(len(PATHS) * len(places)), trial)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", "", "x\0", "X", "x" * 64])
def test_a_dataset_is_not_called_like_a_path(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        streets("root", name=name)


def test_an_export_stays_in_its_folder(trials: Trials, tmp_path: Path) -> None:
    """Sample ids come from data, and files are called after them."""
    names = [
        "../../escaped",
        "/etc/escaped",
        "a/../../escaped",
        "..",
        "c:\\escaped",
        "a/b/../../../escaped",
        "~/escaped",
    ]

    def trial(number: int) -> None:
        place, sample_id = tmp_path / str(number), names[number]
        sample = Sample(sample_id=sample_id, image=photograph(6, 8), height=6, width=8, group="g", label_map=bytes(48))
        uri = str(place / "data")
        shards.publish(uri, manifest_of([shards.write_shard([sample], uri, "train")]))
        for kind in ("folder", "coco", "voc"):
            try:
                export(uri, kind, str(place / "to" / "deep" / kind))
            except InputError:
                continue
        found = {path.relative_to(place).parts[0] for path in place.rglob("*")}
        assert found <= {"data", "to"}, found
        assert {path.name for path in (place / "to").iterdir()} <= {"deep"}
        assert not list(tmp_path.glob("escaped*"))

    trials.run("E1", range(len(names)), trial)


def test_no_unsafe_calls_in_the_source(trials: Trials) -> None:
    files = test_walls.source_files()
    random.Random(0).shuffle(files)
    trials.run("E5", range(len(files)), lambda number: test_walls.test_no_unsafe_calls(files[number]))
