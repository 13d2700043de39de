"""Ingest: what comes out of the shards, the same version from the same files anywhere, and nothing done twice."""

import json
import locale
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe import storage
from segpipe.config import DatasetConfig
from segpipe.errors import InputError
from segpipe.shards import open_dataset
from segpipe.sources import labelme, open_source
from segpipe.stages import parts
from segpipe.stages.ingest import IngestResult, ingest
from segpipe.types import Annotation
from tests.fixtures import check_dataset
from tests.fixtures.ingest_worker import SPLITS, streets, write_pair, write_streets
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.pictures import png
from tests.stages.ingest.conftest import pixels

pytestmark = pytest.mark.xdist_group("ingest")

SCENES = DatasetConfig(
    name="toy",
    format="scenes",
    options={"train": 6, "val": 2, "test": 3, "height": 32, "width": 40, "clips": 0.7, "clip_length": 2},
)


# --- what comes out


@pytest.mark.usefixtures("one_core")
def test_scenes_come_out_of_the_shards_as_their_source_reads_them(tmp_path: Path) -> None:
    result = ingest(SCENES, to=str(tmp_path))
    dataset, scenes = open_dataset(result.uri), open_source("scenes", "", SCENES.options)
    refs, _, _ = scenes.index()
    read = {split: [scenes.read(ref) for ref in refs if ref.split == split] for split in ("test", "train", "val")}
    assert {split: list(dataset.samples(split)) for split in read} == read
    everything = [sample for samples in read.values() for sample in samples]
    assert any(sample.keypoints for sample in everything)
    assert any(sample.segments and sample.segment_map for sample in everything)
    assert {sample.frame_index for sample in everything} == {None, 0, 1}
    manifest = dataset.manifest
    assert (result.splits, result.status) == ({"test": 3, "train": 6, "val": 2}, "published")
    assert (manifest.dataset, manifest.source) == ("toy", "scenes")
    assert set(manifest.annotations) == set(Annotation) - {Annotation.DEPTH, Annotation.FLOW}
    assert manifest.classes == scenes.classes
    assert (manifest.quarantined, manifest.quarantine_path, result.warnings) == ({}, None, ())


@pytest.mark.usefixtures("one_core")
def test_the_manifest_counts_the_pixels_of_each_class(source: Path, tmp_path: Path) -> None:
    manifest = open_dataset(ingest(streets(source), to=str(tmp_path)).uri).manifest
    for name, split in manifest.splits.items():
        masks = [pixels(path) for path in sorted((source / "masks").glob(f"{name}_*"))]
        assert split.samples == len(masks) == SPLITS[name]
        assert split.class_pixels == tuple(sum(int((mask == k).sum()) for mask in masks) for k in range(3))
        assert split.ignored_pixels == sum(int((mask == 255).sum()) for mask in masks)
        assert split.image_pixels == tuple(
            sum(int((mask != 255).sum()) for mask in masks if (mask == k).any()) for k in range(3)
        )


@pytest.mark.usefixtures("one_core")
def test_the_default_place_is_the_home_and_progress_reaches_the_end(source: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = ingest(streets(source), on_progress=lambda done, total: seen.append((done, total)))
    assert result.uri == f"{os.environ['SEGPIPE_HOME']}/datasets/streets"
    assert seen == sorted(seen)
    assert seen[-1] == (43, 43)


@pytest.mark.usefixtures("one_core")
def test_into_s3_and_back(source: Path, expected: str, s3_root: str) -> None:
    first = ingest(streets(source), to=s3_root)
    assert (first.version, first.status) == (expected, "published")
    dataset = open_dataset(s3_root)
    assert [sample.sample_id for sample in dataset.samples("val")] == ["val_000", "val_001", "val_002"]
    assert next(dataset.samples("test")).image == (source / "images" / "test_000.png").read_bytes()
    assert ingest(streets(source), to=s3_root).status == "already_published"


def test_another_image_size_is_no_fault(tmp_path: Path, one_core: None) -> None:
    root = write_streets(tmp_path / "root", splits={"train": 2, "val": 1, "test": 1})
    write_pair(root, "train_001", size=(7, 5))
    assert open_dataset(ingest(streets(root), to=str(tmp_path / "to")).uri).sizes("train") == [(10, 12), (7, 5)]


# --- the same version everywhere (row A10 of the goal sheet)


@pytest.mark.usefixtures("one_core")
def test_the_name_of_a_dataset_is_a_part_of_its_versions(source: Path, expected: str, tmp_path: Path) -> None:
    """As `segpipe ingest --help` says: other than the place."""
    assert ingest(streets(source), to=str(tmp_path / "there")).version == expected
    assert ingest(streets(source, name="alleys"), to=str(tmp_path / "here")).version != expected


@pytest.mark.parametrize("cores", [2, 3])
def test_the_number_of_processes_does_not_show(
    cores: int, source: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    seen: list[int] = []
    assert ingest(streets(source), to=str(tmp_path), on_progress=lambda done, _: seen.append(done)).version == expected
    assert seen[0] == 0, "said before the first worker has started"
    assert len(seen) == 1 + 4, "two shards of train, one of val and one of test"
    assert check_dataset.versions(tmp_path) == [expected]


@pytest.mark.usefixtures("one_core")
def test_neither_root_nor_listing_order_nor_dates_show(
    source: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backwards = write_streets(tmp_path / "made" / "backwards", order=-1)
    copy = Path(shutil.copytree(source, tmp_path / "ünï code" / "deep"))
    (tmp_path / "link").symlink_to(copy)
    os.utime(copy / "images" / "val_000.png", (0, 0))
    (copy / "images" / ".hidden.png").write_bytes(b"no picture")
    for number, root in enumerate((backwards, copy, tmp_path / "link", f"{copy}/")):
        assert ingest(streets(root), to=str(tmp_path / f"to{number}")).version == expected
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", "made")
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((f, d, names[::-1]) for f, d, names in walk(*a, **k)))
    assert ingest(streets("$HERE/backwards"), to="relative").version == expected


@pytest.mark.usefixtures("one_core")
def test_the_root_does_not_show_in_what_is_said_of_bad_files(tmp_path: Path) -> None:
    versions = set()
    for name in ("one", "another/deeper"):
        root = tmp_path / name
        WRITERS["labelme"](root)
        (root / "photo_1.json").write_text("{")
        (root / "photo_2.jpg").unlink()
        (root / "photo_2.jpg").symlink_to(tmp_path / "one" / "photo_0.jpg")
        config = DatasetConfig(
            name="toy", format="labelme", root=str(root), options={"shares": "1,0,0"}, max_quarantine=1
        )
        result = ingest(config, to=str(tmp_path / f"to-{len(versions)}"))
        assert {entry.reason for entry in result.quarantined} >= {"bad_annotation"}
        assert not any(str(tmp_path) in entry.detail for entry in result.quarantined)
        versions.add(tuple(entry.detail for entry in result.quarantined if entry.file == "photo_1.json"))
    assert len(versions) == 1


@pytest.mark.usefixtures("one_core")
def test_classes_that_change_while_ingest_works_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["labelme"](tmp_path / "root")
    index = labelme.LabelMe.index

    def late(source: labelme.LabelMe) -> object:
        found = index(source)
        file = tmp_path / "root" / "photo_3.json"
        file.write_text(file.read_text().replace('"car"', '"bike"'))
        for number in range(3):
            other = tmp_path / "root" / f"photo_{number}.json"
            other.write_text(other.read_text() + " ")
        return found

    monkeypatch.setattr(labelme.LabelMe, "index", late)
    config = DatasetConfig(name="toy", format="labelme", root=str(tmp_path / "root"), options={"shares": "1,0,0"})
    with pytest.raises(InputError, match="classes changed while they were read"):
        ingest(config, to=str(tmp_path / "to"))
    assert check_dataset.versions(tmp_path / "to") == []


@pytest.mark.usefixtures("one_core")
def test_a_corrected_object_mask_is_a_new_version(tmp_path: Path) -> None:
    root = tmp_path / "root"
    WRITERS["voc"](root)
    config = DatasetConfig(name="toy", format="voc", root=str(root))
    first = ingest(config, to=str(tmp_path / "to"))
    for path in (root / "SegmentationObject").iterdir():
        ids = pixels(path)
        path.write_bytes(png(np.where(ids == 2, 1, ids).astype(np.uint8), palette=[0] * 768))
    second = ingest(config, to=str(tmp_path / "to"))
    assert (second.status, second.version == first.version) == ("published", False)


def test_another_time_zone_locale_and_hash_seed_do_not_show(source: Path, expected: str, tmp_path: Path) -> None:
    code = "import sys; from tests.fixtures.ingest_worker import print_version; print_version(sys.argv[1:])"
    surroundings = {**os.environ, "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "7", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(tmp_path / "to")],
        env=surroundings,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


@pytest.mark.usefixtures("one_core")
def test_the_locale_of_this_process_does_not_show(source: Path, expected: str, tmp_path: Path) -> None:
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
        assert ingest(streets(source), to=str(tmp_path)).version == expected
    finally:
        locale.setlocale(locale.LC_ALL, before)


def swap_ids(root: Path) -> None:
    """The same classes, of other mask values."""
    (root / "classes.txt").unlink()
    classes = [{"name": name, "id": raw} for name, raw in (("ground", 1), ("car", 0), ("tree", 2))]
    (root / "classes.json").write_text(json.dumps(classes))


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "classes.txt").write_text("ground\nlorry\ntree"),
        swap_ids,
        lambda root: (root / "splits" / "val.txt").write_text("val_000\nval_001"),
        lambda root: shutil.copy(root / "masks" / "val_001.png", root / "masks" / "val_000.png"),
        lambda root: shutil.copy(root / "images" / "val_001.png", root / "images" / "val_000.png"),
    ],
    ids=["classes", "ids", "lists", "mask", "image"],
)
def test_changed_files_are_a_new_version_beside_the_old_one(
    change: Callable[[Path], object], source: Path, expected: str, tmp_path: Path
) -> None:
    root, to = Path(shutil.copytree(source, tmp_path / "root")), tmp_path / "to"
    assert ingest(streets(root), to=str(to)).version == expected
    change(root)
    second = ingest(streets(root), to=str(to))
    assert second.status == "published"
    assert check_dataset.versions(to) == [expected, second.version]
    assert open_dataset(str(to)).version == second.version != expected
    assert open_dataset(str(to), version=expected).manifest.splits["val"].samples == 3


# --- again


@pytest.fixture
def ingested(source: Path, tmp_path: Path, one_core: None) -> tuple[DatasetConfig, IngestResult]:
    config = streets(shutil.copytree(source, tmp_path / "root"))
    return config, ingest(config, to=str(tmp_path / "to"))


def test_again_reads_no_image_and_says_so(
    ingested: tuple[DatasetConfig, IngestResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, first = ingested
    monkeypatch.setattr(parts, "write_part", lambda part: pytest.fail("an image was read"))
    before = storage.list_tree(first.uri)
    second = ingest(config, to=first.uri)
    assert (first.status, second.status) == ("published", "already_published")
    assert (second.version, second.splits, second.warnings) == (first.version, first.splits, first.warnings)
    assert storage.list_tree(first.uri) == before


def test_touched_but_unchanged_files_are_read_and_give_the_same_version(
    ingested: tuple[DatasetConfig, IngestResult],
) -> None:
    config, first = ingested
    os.utime(Path(config.root) / "images" / "train_000.png", (1, 1))
    second = ingest(config, to=first.uri)
    assert (second.version, second.status) == (first.version, "already_published")
    assert check_dataset.versions(Path(first.uri)) == [first.version]


def test_a_lost_shard_is_written_again(ingested: tuple[DatasetConfig, IngestResult]) -> None:
    config, first = ingested
    shard = next((Path(first.uri) / "shards").glob("val-*"))
    shard.unlink()
    assert ingest(config, to=first.uri).version == first.version
    assert shard.exists()
    assert check_dataset.versions(Path(first.uri)) == [first.version]


def test_files_changed_back_make_the_old_version_current_again(ingested: tuple[DatasetConfig, IngestResult]) -> None:
    config, first = ingested
    listed = Path(config.root) / "splits" / "val.txt"
    original = listed.read_text()
    listed.write_text("val_000")
    second = ingest(config, to=first.uri)
    listed.write_text(original)
    third = ingest(config, to=first.uri)
    assert (third.version, third.status) == (first.version, "published")
    assert check_dataset.versions(Path(first.uri)) == [first.version, second.version, first.version]
    assert open_dataset(first.uri).version == first.version
