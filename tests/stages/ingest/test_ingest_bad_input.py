"""Ingest of bad input: a bad sample is left out by name, its neighbours are published; too many refuse the version."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import DatasetConfig
from segpipe.errors import InputError
from segpipe.shards import open_dataset
from segpipe.stages.ingest import ingest
from segpipe.stages.quarantine import QuarantineLimitError, refuse_above_limit
from segpipe.types import QuarantineEntry
from tests.fixtures import check_dataset
from tests.fixtures.camvid_mini import write_camvid_mini
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.ingest_worker import streets, write_pair, write_streets
from tests.fixtures.pictures import photograph, png
from tests.stages.ingest.conftest import pixels

pytestmark = [pytest.mark.usefixtures("one_core"), pytest.mark.xdist_group("ingest")]


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
    assert "raise dataset.max_quarantine (segpipe ingest: --max-quarantine) to 0.07; nothing was published" in message
    assert [entry.reason for entry in caught.value.entries] == ["missing_mask", "missing_mask", "truncated"]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.entries, again.notes) == (message, caught.value.entries, caught.value.notes)
    assert check_dataset.versions(to) == []
    assert ingest(streets(root, max_quarantine=0.07), to=str(to)).splits["train"] == 34


@pytest.mark.parametrize(
    ("bad", "known", "found", "limit", "message"),
    [
        (1, 5, 105, 0.01, None),
        (0, 5, 5, 0.0, None),
        (
            2,
            5,
            105,
            0.01,
            "2 of 100 samples are bad, besides 5 that are known to be (2.0%; the limit is 1.0%): 2 trunc",
        ),
        (21, 0, 2084, 0.01, "21 of 2084 samples are bad (1.01%; the limit is 1.00%)"),
    ],
)
def test_samples_that_are_broken_as_published_do_not_count(
    bad: int, known: int, found: int, limit: float, message: str | None
) -> None:
    reasons = ["known_bad"] * known + ["truncated"] * bad
    entries = [
        QuarantineEntry(file=f"{n}.jpg", item=str(n), reason=reason, detail="x") for n, reason in enumerate(reasons)
    ]
    config = DatasetConfig(name="toy", format="folder", root="x", max_quarantine=limit)
    if message is None:
        refuse_above_limit(config, entries, found, "there", ())
        return
    with pytest.raises(QuarantineLimitError, match=re.escape(message)) as caught:
        refuse_above_limit(config, entries, found, "there", ())
    assert f"First: {known}.jpg: x. All of them: there" in str(caught.value)
    assert len(caught.value.entries) == len(entries)


def test_a_split_of_bad_samples_only_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(source, tmp_path / "root"))
    for number in range(3):
        (root / "images" / f"val_{number:03d}.png").write_bytes(b"")
    with pytest.raises(InputError, match="split 'val' of 'streets' is empty: every sample of it was refused"):
        ingest(streets(root, max_quarantine=0.5), to=str(tmp_path / "to"))
    assert check_dataset.versions(tmp_path / "to") == []


def test_a_source_without_usable_samples_says_what_was_wrong_with_the_first(tmp_path: Path) -> None:
    root = write_streets(tmp_path / "root", splits={"train": 2})
    shutil.rmtree(root / "masks")
    (root / "masks").mkdir()
    (root / "masks" / "other.png").write_bytes(png(np.zeros((1, 1), np.uint8)))
    with pytest.raises(
        InputError, match=r"no usable sample \(2 refused: 2 missing_mask; first images/train_000.png: no mask"
    ):
        ingest(streets(root), to=str(tmp_path / "to"))


def test_the_same_image_in_two_splits_is_warned_of(source: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(source, tmp_path / "root"))
    for name in ("train_005", "test_001"):
        shutil.copy(root / "images" / "val_000.png", root / "images" / f"{name}.png")
    result = ingest(streets(root), to=str(tmp_path / "to"))
    said = "the same image is in several splits: test/test_001=train/train_005=val/val_000; leave it in one of them"
    assert said in result.warnings
    assert ingest(streets(root), to=str(tmp_path / "to")).warnings == result.warnings, "a rerun repeats them"


def test_of_many_images_in_two_splits_the_first_are_named(source: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(source, tmp_path / "root"))
    for number in range(4):
        shutil.copy(root / "images" / f"train_{number:03d}.png", root / "images" / f"test_{number:03d}.png")
    found = ingest(streets(root), to=str(tmp_path / "to")).warnings
    (warning,) = (text for text in found if "several splits" in text)
    assert warning.count("test/test_") == 3
    assert warning.endswith("and 1 more; leave it in one of them")


def test_images_that_no_list_names_are_warned_of_by_a_rerun_too(source: Path, tmp_path: Path) -> None:
    """They are not in the listing, so one that was added later changes no version, but is to be told."""
    root = Path(shutil.copytree(source, tmp_path / "root"))
    first = ingest(streets(root), to=str(tmp_path / "to"))
    assert not any("passed over" in text for text in first.warnings)
    write_pair(root, "new_001")
    write_pair(root, "new\n2")
    said = (
        "passed over: 2 images that no split list names: images/new\\n2.png, images/new_001.png; "
        "name them in splits/test.txt or splits/train.txt or splits/val.txt"
    )
    second, third = ingest(streets(root), to=str(tmp_path / "to")), ingest(streets(root), to=str(tmp_path / "fresh"))
    assert second.warnings == third.warnings == (said, *first.warnings)
    assert (second.version, second.status, third.version) == (first.version, "already_published", first.version)


def test_the_same_image_twice_in_one_split_is_warned_of(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", count=10, lists=True)
    shutil.copy(root / "images" / "img_001.jpg", root / "images" / "img_002.jpg")
    found = ingest(streets(root), to=str(tmp_path / "to")).warnings
    (warning,) = (text for text in found if "more than once" in text)
    assert "train/img_001=train/img_002; each copy counts again" in warning


def test_a_group_in_two_splits_is_warned_of_in_one_line(source: Path, tmp_path: Path) -> None:
    """Drives of ten streets each: train_000 to train_009, and two lists that share drives 0 and 1 of train."""
    root = Path(shutil.copytree(source, tmp_path / "root"))
    names = [f"train_{number:03d}" for number in range(36)]
    for split, mine in (("train", names[:8] + names[10:13] + names[20:]), ("val", names[8:10]), ("test", names[13:20])):
        (root / "splits" / f"{split}.txt").write_text("\n".join(mine))
    (root / "images" / "train_009.png").write_bytes(b"")  # refused, so no sample of a group
    config = streets(root, max_quarantine=0.1, options={"group_pattern": r"(train_\d\d)"})
    first, again = ingest(config, to=str(tmp_path / "to")), ingest(config, to=str(tmp_path / "to"))
    (warning,) = (text for text in first.warnings if "same group" in text)
    assert warning.startswith(
        "the same group is in several splits: train_00 (train 8, val 1), train_01 (test 7, train 3); 19 of 35 samples. "
    )
    assert "keep each group in one split" in warning
    assert "\n" not in warning
    assert again.warnings == first.warnings, "a rerun repeats it"


def test_images_of_one_folder_that_leave_a_split_empty_are_warned_of(tmp_path: Path, one_core: None) -> None:
    """A user's images/batch_1/*.jpg: one group, which is never cut, and so one split."""
    root = write_folder_mini(tmp_path / "root", count=6)
    for tree in ("images", "masks"):
        (root / tree).rename(root / "batch_1")
        (root / tree).mkdir()
        (root / "batch_1").rename(root / tree / "batch_1")
    (warning,) = ingest(streets(root), to=str(tmp_path / "one")).warnings
    assert re.match(r"no sample is in \w+ and \w+: .* the 6 samples are of 1 group, '.*batch_1'; change", warning)
    assert "option group_pattern" in warning
    apart = ingest(streets(root, options={"group_pattern": r"(\d+)$"}), to=str(tmp_path / "six"))
    assert not any("of 1 group," in text for text in apart.warnings)


def test_of_many_cut_groups_the_first_are_named(source: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(source, tmp_path / "root"))
    for split, first in (("train", 0), ("val", 1)):
        (root / "splits" / f"{split}.txt").write_text("\n".join(f"train_{n:03d}" for n in range(first, 36, 2)))
    (root / "splits" / "test.txt").unlink()
    config = streets(root, options={"group_pattern": r"(\d)$"})
    whole = ingest(config, to=str(tmp_path / "whole")).warnings
    assert not any("group" in text for text in whole), "even numbers are in one list and odd ones in the other"
    config = streets(root, options={"group_pattern": r"(\d)\d$"})
    (warning,) = (text for text in ingest(config, to=str(tmp_path / "cut")).warnings if "group" in text)
    assert "splits: 0 (train 5, val 5), 1 (train 5, val 5), 2 (train 5, val 5) and 1 more; 36 of 36 samples." in warning


def test_other_counts_than_the_documented_ones_are_warned_of(tmp_path: Path) -> None:
    root = write_camvid_mini(tmp_path / "camvid")
    result = ingest(DatasetConfig(name="camvid", format="camvid", root=str(root)), to=str(tmp_path / "to"))
    assert result.splits == {"test": 3, "train": 6, "val": 2}
    for split, found, documented in (("train", 6, 367), ("val", 2, 101), ("test", 3, 233)):
        assert f"split {split!r} has {found} samples, its documentation says {documented}" in result.warnings
    (drives,) = (text for text in result.warnings if "same group" in text)
    assert "0001TP (test 1, train 2), 0016E5 (train 2, val 2); 7 of 11 samples" in drives


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
