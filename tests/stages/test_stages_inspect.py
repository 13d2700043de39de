"""A dataset version, told: contract, fingerprint, proposal, contact sheet; and what changed between two versions."""

import json
import math
import os
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from segpipe.cli import data_views, version_views
from segpipe.config import DatasetConfig, Recipe
from segpipe.errors import CorruptError, InputError
from segpipe.shards import open_dataset
from segpipe.stages import fingerprint
from segpipe.stages.diff import Move, diff
from segpipe.stages.ingest import ingest
from segpipe.stages.inspect import inspect
from segpipe.types import Fingerprint, SplitFingerprint
from tests.fixtures.camvid_mini import write_camvid_mini
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.pictures import label_blocks, photograph, png

pytestmark = [pytest.mark.usefixtures("one_core"), pytest.mark.xdist_group("ingest")]


def ingested(source: str, root: Path, to: Path, **options: str | int | float | bool) -> str:
    return ingest(DatasetConfig(name="toy", format=source, root=str(root), options=options), to=str(to)).uri


def test_the_contract_says_what_the_files_meant(tmp_path: Path) -> None:
    uri = ingested("camvid", write_camvid_mini(tmp_path / "root"), tmp_path / "to")
    told = inspect(uri)
    assert (told.name, told.source, told.version) == ("toy", "camvid", open_dataset(uri).version)
    assert (told.ignored_values, told.ignore_index, told.rules) == ((11,), 255, ("11 is void",))
    assert [(row.class_id, row.name, row.raw_values) for row in told.classes][3] == (3, "Road", (3,))
    manifest = open_dataset(uri).manifest
    for split in manifest.splits:
        shares = [row.shares[split] for row in told.classes]
        assert math.isclose(sum(share or 0 for share in shares), 1)
        assert shares[0] == manifest.splits[split].class_pixels[0] / sum(manifest.splits[split].class_pixels)
    assert any("same group" in warning for warning in told.warnings)


def test_the_fingerprint_counts_images_colours_and_sizes(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", count=6, lists=True)
    (root / "images" / "img_001.jpg").write_bytes(photograph(40, 50, number=1))
    (root / "masks" / "img_001.png").write_bytes(png(np.zeros((40, 50), np.uint8)))
    uri = ingested("folder", root, tmp_path / "to")
    seen = fingerprint.load(uri, open_dataset(uri).version).splits["train"]
    stems = (root / "splits" / "train.txt").read_text().split()
    pixels = [np.asarray(Image.open(root / "images" / f"{stem}.jpg")).reshape(-1, 3) for stem in stems]
    masks = [np.asarray(Image.open(root / "masks" / f"{stem}.png")) for stem in stems]
    mean, std = fingerprint.mean_and_std(seen)
    np.testing.assert_allclose(mean, np.concatenate(pixels).mean(axis=0) / 255, rtol=1e-9)
    np.testing.assert_allclose(std, np.concatenate(pixels).std(axis=0) / 255, rtol=1e-9)
    assert seen.sizes == {"30x24": len(stems) - 1, "50x40": 1}
    assert seen.looks is not None
    assert seen.looks["width"] == {"30": len(stems) - 1, "50": 1}
    assert seen.looks["brightness"] == Counter(str(int(image.mean())) for image in pixels)
    assert seen.images_of_class == tuple(sum(bool((mask == k).any()) for mask in masks) for k in range(3))


def test_objects_are_counted_by_class_and_size_without_crowds(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path / "root")
    told = inspect(ingested("coco", tmp_path / "root", tmp_path / "to"))
    person, brush = told.classes
    assert (person.objects["train"], brush.objects["train"]) == (1, 1)
    assert (person.raw_values, brush.raw_values) == ((1,), (90,))
    assert person.shares == {"train": None, "val": None}
    train = next(split for split in told.splits if split.name == "train")
    assert (train.objects_by_size, train.crowds, train.ignored) == ((2, 0, 0), 1, None)


def test_samples_without_a_label_map_are_counted_and_not_shown_as_empty_labels(tmp_path: Path) -> None:
    for clip, frames, masks in (("a", 4, 1), ("b", 2, 0)):
        for number in range(frames):
            for folder in ("images", "masks")[: 2 if number < masks else 1]:
                (tmp_path / "root" / folder / clip).mkdir(parents=True, exist_ok=True)
            file = tmp_path / "root" / "images" / clip / f"{number}.jpg"
            file.write_bytes(photograph(24, 30, number=number + 10 * frames))
            if number < masks:
                (tmp_path / "root" / "masks" / clip / f"{number}.png").write_bytes(png(label_blocks(24, 30, 2)))
    (tmp_path / "root" / "ImageSets").mkdir()
    for split, clip in (("train", "a"), ("test", "b")):
        (tmp_path / "root" / "ImageSets" / f"{split}.txt").write_text(f"{clip}\n")
    sheet = tmp_path / "sheet.png"
    told = inspect(ingested("frames", tmp_path / "root", tmp_path / "to"), sheet=str(sheet))
    assert [(s.name, s.samples, s.unlabelled, s.ignored) for s in told.splits] == [
        ("train", 4, 3, 0.0),
        ("test", 2, 2, None),
    ]
    assert [row.shares["test"] for row in told.classes] == [None, None]
    about = [text for text in told.warnings if "'test'" in text]
    assert [text.partition(":")[0] for text in about] == ["split 'test' has no labels"]
    with Image.open(sheet) as drawn:
        assert drawn.height < 3 * 400, "one row of train, and both images of test in one row"
    console = Console(record=True, width=160, file=open(os.devnull, "w"))  # noqa: SIM115
    data_views.inspected(console, told)
    console.file.close()
    shown = console.export_text()
    assert "no labels" in shown
    assert "test %" not in shown
    assert "test images" not in shown


def split_fingerprint(**changes: object) -> SplitFingerprint:
    fields: dict[str, object] = {
        "images": 100,
        "pixels": 1,
        "sizes": {"2048x1024": 100},
        "rgb_sum": (0, 0, 0),
        "rgb_square_sum": (0, 0, 0),
        "images_of_class": (100, 100),
        "objects_of_class": (0, 0),
        "objects_by_size": (0, 0, 0),
        "crowds": 0,
    }
    return SplitFingerprint(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_proposal_is_one_that_a_recipe_accepts(tmp_path: Path) -> None:
    told = inspect(ingested("camvid", write_camvid_mini(tmp_path / "root"), tmp_path / "to"))
    overrides = tuple(f"train.{key}={json.dumps(value)}" for key, value in told.proposal.items())
    train = Recipe.load("flows/recipes/scenes.yaml", overrides).run_configs()[0].train
    assert list(train.augment.crop) == told.proposal["augment.crop"] == [32, 32]
    assert train.batch_size == told.proposal["batch_size"] == 2
    assert told.proposal.keys() == told.reasons.keys()


@pytest.mark.parametrize(
    ("sizes", "crop"),
    [({"2048x1024": 100}, (512, 512)), ({"480x360": 99, "4000x3000": 1}, (352, 480)), ({"20x9": 1}, (32, 32))],
)
def test_the_crop_follows_the_typical_image(
    sizes: dict[str, int], crop: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = ingested("folder", write_folder_mini(tmp_path / "root", lists=True), tmp_path / "to")
    dataset = open_dataset(uri)
    seen = fingerprint.load(uri, dataset.version)
    changed = fingerprint.Fingerprint(
        dataset_version=seen.dataset_version, splits={"train": split_fingerprint(sizes=sizes)}, warnings=()
    )
    assert tuple(fingerprint.propose(dataset.manifest, changed).values["augment.crop"]) == crop


@pytest.mark.parametrize(
    ("images", "batch", "why"),
    [
        (2975, 16, "a power of two, 4.2 megapixels a step; less on a small GPU"),
        (41, 4, "a power of two; 10 steps in an epoch of 41 training images"),
        (5, 2, "a power of two; 2 steps in an epoch of 5 training images"),
        (1, 1, "a power of two; 1 step in an epoch of 1 training image"),
    ],
)
def test_the_batch_is_a_power_of_two_that_leaves_steps_in_an_epoch(
    images: int, batch: int, why: str, tmp_path: Path
) -> None:
    dataset = open_dataset(ingested("folder", write_folder_mini(tmp_path / "root", lists=True), tmp_path / "to"))
    train = split_fingerprint(images=images, sizes={"2048x1024": images})
    seen = Fingerprint(dataset_version=dataset.version, splits={"train": train}, warnings=())
    found = fingerprint.propose(dataset.manifest, seen)
    assert (found.values["batch_size"], found.reasons["batch_size"]) == (batch, why)


def test_the_contact_sheet_is_drawn_once(tmp_path: Path) -> None:
    uri = ingested("folder", write_folder_mini(tmp_path / "root", lists=True), tmp_path / "to")
    file = tmp_path / "sheet.png"
    assert inspect(uri, sheet=str(file), split="val", rows=3).sheet == str(file)
    with Image.open(file) as sheet:
        assert sheet.format == "PNG"
        assert sheet.size[0] > 900
    with pytest.raises(InputError, match="is there already"):
        inspect(uri, sheet=str(file))
    with pytest.raises(InputError, match="no split 'dev'"):
        inspect(uri, sheet=str(tmp_path / "other.png"), split="dev")


def test_a_missing_or_damaged_fingerprint_says_what_to_do(tmp_path: Path) -> None:
    uri = ingested("folder", write_folder_mini(tmp_path / "root", lists=True), tmp_path / "to")
    (file,) = (tmp_path / "to" / "fingerprints").iterdir()
    whole = file.read_bytes()
    file.write_text("{}")
    with pytest.raises(CorruptError, match="fingerprints"):
        inspect(uri)
    ingested("folder", tmp_path / "root", tmp_path / "to")
    assert file.read_bytes() == whole
    older = json.loads(whole)
    for key in ("looks_by_group", "looks"):  # the later of them first, as they came
        for split in older["splits"].values():
            del split[key]
        file.write_text(json.dumps(older))
        inspect(uri)
        ingested("folder", tmp_path / "root", tmp_path / "to")
        assert file.read_bytes() == whole, "what an earlier segpipe counted is counted again"
    file.unlink()
    with pytest.raises(InputError, match="no fingerprint beside it; ingest its source again"):
        inspect(uri)
    ingested("folder", tmp_path / "root", tmp_path / "to")
    assert file.read_bytes() == whole


def test_near_copies_in_two_splits_and_absent_classes_are_warned_of(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", lists=True)
    random = np.random.default_rng(5).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(random).resize((160, 120), Image.Resampling.BICUBIC)
    for stem, size, quality in (("img_000", (160, 120), 90), ("img_001", (80, 60), 60)):
        image.resize(size).save(root / "images" / f"{stem}.jpg", quality=quality)
        (root / "masks" / f"{stem}.png").write_bytes(png(label_blocks(size[1], size[0], 3)))
    for stem in (root / "splits" / "val.txt").read_text().split():
        with Image.open(root / "masks" / f"{stem}.png") as mask:
            labels = np.minimum(np.asarray(mask), 1)
        (root / "masks" / f"{stem}.png").write_bytes(png(labels))
    told = inspect(ingested("folder", root, tmp_path / "to"))
    assert any("1 image looks like one" in text and "train/img_001~val/img_000" in text for text in told.warnings)
    assert any("split 'val' shows none of 1 of 3 classes (stone)" in text for text in told.warnings)


def test_a_difference_names_every_kind_of_change(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", count=10, lists=True)
    uri = ingested("folder", root, tmp_path / "to")
    old = open_dataset(uri).version
    (root / "masks" / "img_001.png").write_bytes(png(label_blocks(24, 30, 3, number=2)))
    (root / "images" / "img_002.jpg").write_bytes(photograph(24, 30, number=77))
    shutil.copy(root / "images" / "img_003.jpg", root / "images" / "img_new.jpg")
    shutil.copy(root / "masks" / "img_003.png", root / "masks" / "img_new.png")
    train, val = root / "splits" / "train.txt", root / "splits" / "val.txt"
    names = train.read_text().split()
    train.write_text("\n".join([*(n for n in names if n not in ("img_004", "img_006")), "img_new"]))
    val.write_text(val.read_text() + "img_004\n")
    assert ingested("folder", root, tmp_path / "to") == uri
    found = diff(f"{uri}@{old[:8]}", uri)
    assert (found.old_version, found.new_version) == (old, open_dataset(uri).version)
    assert (found.added, found.removed) == (("train/img_new",), ("train/img_006",))
    assert (found.moved, found.renamed) == ((Move(old="train/img_004", new="val/img_004"),), ())
    assert (found.repainted, found.relabelled) == (("train/img_002",), ("train/img_001",))
    assert found.unchanged == 6
    assert found.coding == ()
    assert [each.name for each in found.classes] == ["ground", "plant", "stone"]


def test_an_image_is_the_same_one_by_its_bytes_where_its_id_holds_the_folder_of_a_split(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", count=6)
    for tree in ("images", "masks"):
        for number, file in enumerate(sorted((root / tree).iterdir())):
            folder = root / tree / ("val" if number > 3 else "train")
            folder.mkdir(exist_ok=True)
            file.rename(folder / file.name)
    shutil.copy(root / "images" / "train" / "img_002.jpg", root / "images" / "train" / "copy.jpg")
    shutil.copy(root / "masks" / "train" / "img_001.png", root / "masks" / "train" / "copy.png")
    uri = ingested("folder", root, tmp_path / "to")
    old = open_dataset(uri).version
    for tree, ending in (("images", "jpg"), ("masks", "png")):
        here = root / tree
        for name, there in (
            ("train/img_000", "val/img_000"),
            ("train/img_001", "train/roof"),
            ("train/img_002", "val/img_002"),
            ("train/copy", "val/copy"),
        ):
            (here / f"{name}.{ending}").rename(here / f"{there}.{ending}")
    (root / "masks" / "train" / "roof.png").write_bytes(png(label_blocks(24, 30, 3, number=2)))
    assert ingested("folder", root, tmp_path / "to") == uri
    found = diff(f"{uri}@{old[:8]}", uri)
    moved = [(each.old, each.new) for each in found.moved]
    assert moved == [(f"train/train/{name}", f"val/val/{name}") for name in ("copy", "img_000", "img_002")]
    assert found.renamed == (Move(old="train/train/img_001", new="train/train/roof"),)
    assert (found.added, found.removed, found.repainted) == ((), (), ())
    assert (found.relabelled, found.unchanged) == (("train/train/roof",), 3)


def test_versions_without_label_maps_have_no_shares(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path / "root")
    objects = ingested("coco", tmp_path / "root", tmp_path / "objects")
    maps = ingested("folder", write_folder_mini(tmp_path / "roofs", lists=True), tmp_path / "maps")
    assert [(each.name, each.old, each.new) for each in diff(objects, objects).classes] == [
        ("person", None, None),
        ("toothbrush", None, None),
    ]
    assert [(each.old_objects, each.new_objects) for each in diff(objects, maps).classes[:2]] == [(2, None), (2, None)]
    found = diff(objects, maps)
    assert {each.name: (each.old is None, each.new is None) for each in found.classes}["ground"] == (True, False)
    console = Console(record=True, width=160, file=open(os.devnull, "w"))  # noqa: SIM115
    version_views.differed(console, found)
    bare = tuple(replace(each, old_objects=None) for each in found.classes[:2])
    version_views.differed(console, replace(found, classes=bare))
    version_views.differed(console, diff(objects, objects))
    console.file.close()
    shown = console.export_text()
    assert "0.00" not in shown
    assert "no label maps before, so no class has a share" in shown
    assert "no label maps and no objects before or after" in shown
    assert re.search(r"person +│ +2 +│ +- ", shown)
    assert "the very same version" in shown


def test_a_renamed_class_is_one_gone_and_one_new(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", lists=True)
    first = ingested("folder", root, tmp_path / "one")
    (root / "classes.txt").unlink()
    named = [{"name": name, "id": k} for k, name in enumerate(("ground", "bush", "stone"))]
    (root / "classes.json").write_text(json.dumps([*named, {"name": "void", "id": 9, "ignore": True}]))
    found = diff(first, ingested("folder", root, tmp_path / "two"))
    assert found.coding == ("value 1 was plant, is bush", "value 9 was unknown, is ignored")
    assert found.unchanged == 20
    gone = {each.name: (each.old is None, each.new is None) for each in found.classes}
    assert gone == {"ground": (False, False), "plant": (False, True), "stone": (False, False), "bush": (True, False)}
