"""A user's folder: how images and masks are matched, split and grouped; layouts of other projects."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.sources import open_source
from segpipe.types import SampleRef
from tests.fixtures.folder_mini import CLASSES, write_folder_mini
from tests.fixtures.pictures import label_blocks, photograph, png

DATA = Path(os.environ.get("SEGPIPE_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
COLOURS = np.array([(10, 20, 30), (128, 0, 0), (0, 200, 9)], dtype=np.uint8)


def by_split(refs: list[SampleRef]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for ref in refs:
        splits.setdefault(ref.split, []).append(ref.sample_id)
    return splits


def test_pairs_by_stem_and_hash_splits(tmp_path: Path) -> None:
    source = open_source("folder", str(write_folder_mini(tmp_path, count=60)))
    refs, refused, _ = source.index()
    assert refused == []
    assert [info.name for info in source.classes] == list(CLASSES)
    assert {ref.sample_id: ref.files for ref in refs}["img_004"] == ("images/img_004.jpg", "masks/img_004.png")
    assert all(ref.group == ref.sample_id for ref in refs)
    splits = by_split(refs)
    assert set(splits) == {"train", "val", "test"}
    assert 36 <= len(splits["train"]) <= 56
    (ref,) = [ref for ref in refs if ref.sample_id == "img_004"]
    assert source.read(ref).label_map == label_blocks(24, 30, 3, number=4).tobytes()


def test_a_samples_split_does_not_depend_on_the_others(tmp_path: Path) -> None:
    small = open_source("folder", str(write_folder_mini(tmp_path / "a", count=12))).index()[0]
    large = open_source("folder", str(write_folder_mini(tmp_path / "b", count=40))).index()[0]
    later = {ref.sample_id: ref.split for ref in large}
    assert {ref.sample_id: ref.split for ref in small}.items() <= later.items()


@pytest.mark.parametrize(("shares", "split"), [("1,0,0", "train"), ("0,1,0", "val"), ("0,0,1.0", "test")])
def test_shares_rule_the_hash(tmp_path: Path, shares: str, split: str) -> None:
    refs, _, _ = open_source("folder", str(write_folder_mini(tmp_path)), {"shares": shares}).index()
    assert set(by_split(refs)) == {split}


def test_groups_are_never_cut(tmp_path: Path) -> None:
    write_folder_mini(tmp_path, count=60)
    refs, _, _ = open_source("folder", str(tmp_path), {"group_pattern": r"img_(\d\d)"}).index()
    assert {ref.group for ref in refs} == {f"{number:02d}" for number in range(6)}
    assert all(len({ref.split for ref in refs if ref.group == group}) == 1 for group in ("00", "03", "05"))
    for tree in ("images", "masks"):
        for number, path in enumerate(sorted((tmp_path / tree).iterdir())):
            target = tmp_path / tree / f"patient{number % 4}" / path.name
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    refs, refused, _ = open_source("folder", str(tmp_path)).index()
    assert refused == []
    assert {ref.group for ref in refs} == {"patient0", "patient1", "patient2", "patient3"}
    assert len({(ref.group, ref.split) for ref in refs}) == 4


def test_folders_named_as_splits_are_splits(tmp_path: Path) -> None:
    write_folder_mini(tmp_path, count=6)
    for tree in ("images", "masks"):
        for number, path in enumerate(sorted((tmp_path / tree).iterdir())):
            target = tmp_path / tree / ("train", "train", "validation")[number % 3] / path.name
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    refs, _, _ = open_source("folder", str(tmp_path)).index()
    assert {split: len(ids) for split, ids in by_split(refs).items()} == {"train": 4, "val": 2}
    assert {ref.group for ref in refs} == {ref.sample_id for ref in refs}


@pytest.mark.parametrize(
    "spelling",
    ["img_003", "images/img_003.jpg", "/home/me/images/img_003.jpg", "img_003.jpg masks/img_003.png", "  img_003  "],
)
def test_lists_may_spell_a_sample_in_many_ways(tmp_path: Path, spelling: str) -> None:
    write_folder_mini(tmp_path, count=6)
    (tmp_path / "val.txt").write_text(spelling + "\n")
    (tmp_path / "train.txt").write_text("img_000\nimg_001\n")
    refs, refused, _ = open_source("folder", str(tmp_path)).index()
    assert refused == []
    assert by_split(refs) == {"train": ["img_000", "img_001"], "val": ["img_003"]}


def test_lists_in_the_splits_folder_and_what_they_get_wrong(tmp_path: Path) -> None:
    write_folder_mini(tmp_path, count=10, lists=True)
    (tmp_path / "splits" / "extra.txt").write_text("img_000\nnobody\n\n")
    refs, refused, _ = open_source("folder", str(tmp_path)).index()
    assert {split: len(ids) for split, ids in by_split(refs).items()} == {"train": 8, "val": 2}
    assert [(entry.file, entry.item, entry.reason) for entry in refused] == [
        ("splits/extra.txt", "line 1", "duplicate_id"),
        ("splits/extra.txt", "line 2", "missing_image"),
    ]
    assert "'nobody'" in refused[1].detail


def write_custom_layout(root: Path) -> Path:
    """The layout of mmsegmentation's sample: imgs/*_img.jpg, gts/*_gt.png in mode P, lists of bare stems."""
    for number in range(5):
        for folder, name, data in (
            ("imgs", f"{number:05d}_img.jpg", photograph(12, 16, number=number)),
            ("gts", f"{number:05d}_gt.png", png(label_blocks(12, 16, 4, number=number), palette=[9, 9, 9] * 4)),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / name).write_bytes(data)
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_text("00000\n00001\n00002\n00003\n")
    (root / "splits" / "val.txt").write_text("00004\n")
    return root


def copy_custom_layout(root: Path) -> Path:
    return Path(shutil.copytree(DATA / "custom_layout_sample", root, copy_function=shutil.copyfile))


CUSTOM = {"made up": write_custom_layout}
CUSTOM |= {"real": copy_custom_layout} if (DATA / "custom_layout_sample").exists() else {}


@pytest.mark.parametrize("write", CUSTOM.values(), ids=CUSTOM)
def test_suffixes_and_lists_of_a_foreign_layout(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    root = write(tmp_path / "custom")
    root.chmod(0o755)
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    options = {"images": "imgs", "masks": "gts", "image_suffix": "_img", "mask_suffix": "_gt"}
    source = open_source("folder", str(root), options)
    refs, refused, _ = source.index()
    assert refused == []
    assert by_split(refs) == {"train": ["00000", "00001", "00002", "00003"], "val": ["00004"]}
    values = {value for ref in refs for value in source.read(ref).label_map or b""}
    assert values <= {0, 1, 2, 3}
    assert len(values) > 1


def write_pets(root: Path) -> Path:
    """The layout of the pet sample: images/, labels/ in mode P with 255 at the borders, breeds in the names."""
    for number, name in enumerate(["Bengal_1", "Bengal_2", "Bombay_7", "great_pyrenees_4"] * 6):
        stem = f"{name}{number}"
        for folder, suffix, data in (
            ("images", "jpg", photograph(12, 16 + number % 3)),
            ("labels", "png", png(np.where(label_blocks(12, 16 + number % 3, 4) == 3, 255, 1).astype(np.uint8))),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / f"{stem}.{suffix}").write_bytes(data)
    return root


def copy_pets(root: Path) -> Path:
    return Path(shutil.copytree(DATA / "oxford_pet_sample", root, copy_function=shutil.copyfile))


PETS = {"made up": write_pets}
PETS |= {"real": copy_pets} if (DATA / "oxford_pet_sample").exists() else {}


@pytest.mark.parametrize("write", PETS.values(), ids=PETS)
def test_groups_from_names_and_255_as_void(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    root = write(tmp_path / "pets")
    root.chmod(0o755)
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    options = {"masks": "labels", "group_pattern": r"^(.*)_\d+$", "shares": "0.5,0.25,0.25"}
    source = open_source("folder", str(root), options)
    refs, refused, _ = source.index()
    assert refused == []
    assert len(refs) in (24, 26)
    assert len({(ref.group, ref.split) for ref in refs}) == len({ref.group for ref in refs})
    assert {"Bengal", "Bombay", "great_pyrenees"} <= {ref.group for ref in refs}
    values = {value for ref in refs for value in source.read(ref).label_map or b""}
    assert values <= {0, 1, 2, 255}
    assert 255 in values
