"""Ingest: the same files give the same version anywhere, bad samples are named, a killed run leaves nothing half."""

import json
import locale
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe import storage
from segpipe.config import DatasetConfig
from segpipe.errors import InputError, SegpipeError
from segpipe.shards import open_dataset
from segpipe.sources import open_source
from segpipe.stages import parts
from segpipe.stages.ingest import IngestResult, QuarantineLimitError, ingest
from segpipe.types import Annotation
from tests.fixtures import check_dataset, ingest_worker
from tests.fixtures.camvid_mini import write_camvid_mini
from tests.fixtures.ingest_worker import SPLITS, streets, write_pair, write_streets
from tests.fixtures.pictures import photograph, png
from tests.fixtures.publish_worker import run_child, start_child

pytestmark = pytest.mark.xdist_group("ingest")

SCENES = DatasetConfig(
    name="toy",
    format="scenes",
    options={"train": 6, "val": 2, "test": 3, "height": 32, "width": 40, "clips": 0.7, "clip_length": 2},
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_streets(tmp_path_factory.mktemp("source") / "streets")


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The version that `source` must give everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0})
        return ingest(streets(source), to=str(tmp_path_factory.mktemp("expected"))).version


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


# --- what comes out


@pytest.mark.usefixtures("one_core")
def test_scenes_come_out_of_the_shards_as_their_source_reads_them(tmp_path: Path) -> None:
    result = ingest(SCENES, to=str(tmp_path))
    dataset, scenes = open_dataset(result.uri), open_source("scenes", "", SCENES.options)
    refs, _ = scenes.index()
    read = {split: [scenes.read(ref) for ref in refs if ref.split == split] for split in ("test", "train", "val")}
    assert {split: list(dataset.samples(split)) for split in read} == read
    everything = [sample for samples in read.values() for sample in samples]
    assert any(sample.keypoints for sample in everything)
    assert any(sample.segments and sample.segment_map for sample in everything)
    assert {sample.frame_index for sample in everything} == {None, 0, 1}
    manifest = dataset.manifest
    assert (result.splits, result.status) == ({"test": 3, "train": 6, "val": 2}, "published")
    assert (manifest.dataset, manifest.source, set(manifest.annotations)) == ("toy", "scenes", set(Annotation))
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


# --- the same version everywhere (row A10 of the goal sheet)


@pytest.mark.parametrize("cores", [2, 3])
def test_the_number_of_processes_does_not_show(
    cores: int, source: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    seen: list[int] = []
    assert ingest(streets(source), to=str(tmp_path), on_progress=lambda done, _: seen.append(done)).version == expected
    assert len(seen) == 4, "two shards of train, one of val and one of test"
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


# --- bad input


def corrupt_truncated(root: Path) -> None:
    path = root / "images" / "val_001.png"
    path.write_bytes(path.read_bytes()[:-40])


def corrupt_size(root: Path) -> None:
    (root / "masks" / "val_001.png").write_bytes(png(np.zeros((11, 12), np.uint8)))


def corrupt_label(root: Path) -> None:
    (root / "masks" / "val_001.png").write_bytes(png(np.full((10, 12), 7, np.uint8)))


def corrupt_rgb(root: Path) -> None:
    (root / "masks" / "val_001.png").write_bytes(png(np.full((10, 12, 3), 7, np.uint8)))


def corrupt_palette(root: Path) -> None:
    (root / "masks" / "val_001.png").write_bytes(png(np.full((10, 12), 9, np.uint8), palette=list(range(256)) * 3))


def corrupt_mask_missing(root: Path) -> None:
    (root / "masks" / "val_001.png").unlink()


def corrupt_mask_truncated(root: Path) -> None:
    path = root / "masks" / "val_001.png"
    path.write_bytes(path.read_bytes()[:30])


def corrupt_image_missing(root: Path) -> None:
    (root / "images" / "val_001.png").unlink()


def corrupt_twice(root: Path) -> None:
    listed = root / "splits" / "val.txt"
    listed.write_text("val_000\nval_000\nval_002")


def corrupt_rotated(root: Path) -> None:
    (root / "images" / "val_001.png").unlink()
    (root / "images" / "val_001.jpg").write_bytes(photograph(10, 12, orientation=6))


def corrupt_text(root: Path) -> None:
    (root / "images" / "val_001.png").write_text("<html>not found</html>")


def corrupt_empty(root: Path) -> None:
    (root / "images" / "val_001.png").write_bytes(b"")


def corrupt_outside(root: Path) -> None:
    outside = root.parent / "secret.png"
    (root / "images" / "val_001.png").rename(outside)
    (root / "images" / "val_001.png").symlink_to(outside)


CORPUS = [
    (corrupt_truncated, "truncated", "images/val_001.png", "fetch the file again"),
    (corrupt_size, "size_mismatch", "masks/val_001.png", "mask 12x11, image images/val_001.png 12x10"),
    (corrupt_label, "label_out_of_range", "masks/val_001.png", "label 7 in 120 pixels, first at x=0, y=0"),
    (corrupt_rgb, "mask_mode", "masks/val_001.png", "RGB"),
    (corrupt_palette, "label_out_of_range", "masks/val_001.png", "label 9 in 120 pixels"),
    (corrupt_mask_missing, "missing_mask", "images/val_001.png", "no mask masks/val_001.png"),
    (corrupt_mask_truncated, "truncated", "masks/val_001.png", "fetch the file again"),
    (corrupt_image_missing, "missing_image", "splits/val.txt", "'val_001' names no image"),
    (corrupt_twice, "duplicate_id", "splits/val.txt", "'val_000' is already in split val"),
    (corrupt_rotated, "exif_rotated", "images/val_001.jpg", "EXIF orientation 6; expected 1"),
    (corrupt_text, "format_not_allowed", "images/val_001.png", "expected a JPEG or a PNG file"),
    (corrupt_empty, "truncated", "images/val_001.png", "the file is empty (0 bytes)"),
    (corrupt_outside, "outside_root", "images/val_001.png", "copy the file into the root"),
]


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize(("corrupt", "reason", "file", "detail"), CORPUS, ids=[case[0].__name__[8:] for case in CORPUS])
def test_a_bad_sample_is_quarantined_and_its_neighbours_are_published(
    corrupt: Callable[[Path], None], reason: str, file: str, detail: str, source: Path, tmp_path: Path
) -> None:
    root, to = Path(shutil.copytree(source, tmp_path / "root")), tmp_path / "to"
    corrupt(root)
    result = ingest(streets(root, max_quarantine=0.03), to=str(to))
    (entry,) = result.quarantined
    assert (entry.reason, entry.file) == (reason, file)
    assert detail in entry.detail
    assert result.splits == {"test": 4, "train": 36, "val": 2}
    dataset = open_dataset(str(to))
    assert dataset.sample_ids("val") == ["val_000", "val_002"]
    assert dataset.manifest.quarantined == {reason: 1}
    written = json.loads((to / str(dataset.manifest.quarantine_path)).read_text())
    assert written == [{"file": entry.file, "item": entry.item, "reason": entry.reason, "detail": entry.detail}]
    assert str(root) not in (to / "manifests" / f"{result.version}.json").read_text()
    assert ingest(streets(root, max_quarantine=0.03), to=str(to)).quarantined == result.quarantined


@pytest.mark.usefixtures("one_core")
def test_palette_and_rgb_masks_are_read_where_they_say_what_they_mean(
    source: Path, expected: str, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(source, tmp_path / "root"))
    path = root / "masks" / "val_001.png"
    ids_HW = pixels(path)
    path.write_bytes(png(ids_HW, palette=list(range(256)) * 3))
    assert ingest(streets(root), to=str(tmp_path / "to")).version == expected
    (root / "classes.txt").unlink()
    classes = [{"name": name, "colour": [k, 100, 0]} for k, name in enumerate(("ground", "car", "tree"))]
    (root / "classes.json").write_text(json.dumps([*classes, {"name": "void", "colour": [0, 0, 0], "ignore": True}]))
    colours = np.array([[0, 100, 0], [1, 100, 0], [2, 100, 0], [0, 0, 0]], np.uint8)
    path.write_bytes(png(colours[np.minimum(ids_HW, 3)]))
    dataset = open_dataset(ingest(streets(root), to=str(tmp_path / "rgb")).uri)
    assert list(dataset.samples("val"))[1].label_map == ids_HW.tobytes()


@pytest.mark.usefixtures("one_core")
def test_too_many_bad_samples_refuse_the_version_with_their_counts(source: Path, tmp_path: Path) -> None:
    root, to = Path(shutil.copytree(source, tmp_path / "root")), tmp_path / "to"
    corrupt_truncated(root)
    (root / "masks" / "train_003.png").unlink()
    (root / "masks" / "train_004.png").unlink()
    with pytest.raises(QuarantineLimitError) as caught:
        ingest(streets(root, max_quarantine=0.069), to=str(to))
    message = str(caught.value)
    assert "3 of 43 samples are bad (7.0%; the limit is 6.9%): 2 missing_mask, 1 truncated" in message
    assert "images/train_003.png: no mask" in message
    assert "raise dataset.max_quarantine; nothing was published" in message
    assert [entry.reason for entry in caught.value.entries] == ["missing_mask", "missing_mask", "truncated"]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.entries) == (message, caught.value.entries)
    assert check_dataset.versions(to) == []
    assert ingest(streets(root, max_quarantine=0.07), to=str(to)).splits["train"] == 34


@pytest.mark.usefixtures("one_core")
def test_a_split_of_bad_samples_only_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(source, tmp_path / "root"))
    for number in range(3):
        (root / "images" / f"val_{number:03d}.png").write_bytes(b"")
    with pytest.raises(InputError, match="split 'val' of 'streets' is empty: every sample of it was refused"):
        ingest(streets(root, max_quarantine=0.5), to=str(tmp_path / "to"))
    assert check_dataset.versions(tmp_path / "to") == []


@pytest.mark.usefixtures("one_core")
def test_a_source_without_usable_samples_says_what_was_wrong_with_the_first(tmp_path: Path) -> None:
    root = write_streets(tmp_path / "root", splits={"train": 2})
    shutil.rmtree(root / "masks")
    (root / "masks").mkdir()
    (root / "masks" / "other.png").write_bytes(png(np.zeros((1, 1), np.uint8)))
    with pytest.raises(InputError, match=r"no usable sample \(2 refused, first images/train_000.png: no mask"):
        ingest(streets(root), to=str(tmp_path / "to"))


@pytest.mark.usefixtures("one_core")
def test_the_same_image_in_two_splits_is_warned_of(source: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(source, tmp_path / "root"))
    for name in ("train_005", "test_001"):
        shutil.copy(root / "images" / "val_000.png", root / "images" / f"{name}.png")
    result = ingest(streets(root), to=str(tmp_path / "to"))
    expected = ("the same image is in several splits: test/test_001, train/train_005, val/val_000",)
    assert result.warnings == expected
    assert ingest(streets(root), to=str(tmp_path / "to")).warnings == expected, "a rerun repeats them"


@pytest.mark.usefixtures("one_core")
def test_other_counts_than_the_documented_ones_are_warned_of(tmp_path: Path) -> None:
    root = write_camvid_mini(tmp_path / "camvid")
    result = ingest(DatasetConfig(name="camvid", format="camvid", root=str(root)), to=str(tmp_path / "to"))
    assert result.splits == {"test": 3, "train": 6, "val": 2}
    for split, found, documented in (("train", 6, 367), ("val", 2, 101), ("test", 3, 233)):
        assert f"split {split!r} has {found} samples, its documentation says {documented}" in result.warnings


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("place", ["below/a/file", "proc"])
def test_an_unwritable_destination_is_named(place: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "below").write_text("in the way")
    to = "/proc/version/dataset" if place == "proc" else f"{tmp_path}/{place}"
    with pytest.raises(InputError) as caught:
        ingest(streets(source), to=to)
    assert to.rsplit("/", 1)[0].split("/")[1] in str(caught.value)


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "foldr"}, "unknown source format 'foldr'; did you mean 'folder'"),
        ({"options": {"image": "x"}}, "source 'folder' has no option 'image'"),
        ({"options": {"ignore": "x"}}, "source 'folder', option 'ignore': 'x' is of type str; expected int"),
        ({"root": "/absent/streets"}, "/absent/streets"),
        ({"root": "$ABSENT_VARIABLE/streets"}, "names an environment variable that is not set"),
    ],
)
def test_a_config_that_names_nothing_is_refused(
    change: dict[str, object], message: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        ingest(streets(source, **change) if "root" not in change else streets(str(change["root"])), to=str(tmp_path))
    assert message in str(caught.value)


# --- kills and full disks


def test_a_full_disk_is_said_and_room_mends_it(source: Path, expected: str, tmp_path: Path) -> None:
    to = tmp_path / "to"
    for file_bytes in (0, 500, 4000, 10_000):
        status, answer = run_child(ingest_worker.limited_ingest, str(source), str(to), file_bytes)
        assert status == 0
        assert answer[0] == "StorageFullError", answer
        assert "bytes" in answer[1]
        assert check_dataset.versions(to) == []
    assert run_child(ingest_worker.ingest_alone, str(source), str(to)) == (0, (expected, "published"))
    assert check_dataset.leftovers(to) == []


@pytest.mark.usefixtures("one_core")
def test_killed_at_any_step_the_next_run_publishes_the_same_version(tmp_path: Path) -> None:
    source = write_streets(tmp_path / "root", splits={"train": 2, "val": 1})
    (source / "images" / "train_001.png").write_bytes(b"")
    config = streets(source, max_quarantine=0.5)
    expected = ingest(config, to=str(tmp_path / "expected")).version
    step = 0
    while True:
        step += 1
        to = tmp_path / f"step{step}"
        status, _ = run_child(
            ingest_worker.ingest_alone, str(source), str(to), 0.5, environment={"SEGPIPE_FAILPOINT": f"*:{step}"}
        )
        assert check_dataset.versions(to) in ([], [expected])
        if status == 0:
            break
        assert status == 137
        assert ingest(config, to=str(to)).version == expected
        assert check_dataset.versions(to) == [expected]
        assert check_dataset.leftovers(to) == []
    assert step > 15


def test_killed_at_random_instants_the_next_run_publishes_the_same_version(
    source: Path, expected: str, tmp_path: Path
) -> None:
    run_child(ingest_worker.ingest_alone, str(source), str(tmp_path / "warm-up"))
    started = time.perf_counter()
    run_child(ingest_worker.ingest_alone, str(source), str(tmp_path / "whole"))
    whole = time.perf_counter() - started
    instants = random.Random(0)
    killed = 0
    to = tmp_path / "to"
    for number in range(15):
        child, receiver = start_child(ingest_worker.ingest_alone, str(source), str(to))
        time.sleep(instants.uniform(0, whole))
        child.kill()
        child.join()
        receiver.close()
        killed += child.exitcode == -signal.SIGKILL
        assert check_dataset.versions(to) in ([], [expected]), f"kill {number}"
        if check_dataset.versions(to):
            shutil.rmtree(to)
    assert killed
    assert run_child(ingest_worker.ingest_alone, str(source), str(to))[1][0] == expected
    assert check_dataset.versions(to) == [expected]


def test_a_worker_process_that_dies_is_an_error_with_a_remedy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setenv("SEGPIPE_FAILPOINT", "shard.written:1")
    with pytest.raises(SegpipeError, match="a process that was writing shards died, and nothing was published"):
        ingest(streets(source), to=str(tmp_path / "to"))
    assert check_dataset.versions(tmp_path / "to") == []


def test_another_image_size_is_no_fault(tmp_path: Path, one_core: None) -> None:
    root = write_streets(tmp_path / "root", splits={"train": 2, "val": 1, "test": 1})
    write_pair(root, "train_001", size=(7, 5))
    assert open_dataset(ingest(streets(root), to=str(tmp_path / "to")).uri).sizes("train") == [(10, 12), (7, 5)]
