"""CamVid: the list prefix is re-rooted and never escapes, void becomes 255, every bad line costs only itself; what its
makers publish has the same splits as SegNet's lists.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import BadSampleError, InputError
from segpipe.sources import open_source
from segpipe.sources.camvid import labels
from segpipe.types import IGNORE_8BIT
from tests.fixtures.camvid_mini import FRAMES, write_camvid_mini
from tests.fixtures.mini_variants import write_camvid_original
from tests.fixtures.pictures import label_blocks, photograph, png
from tests.fixtures.small_files import write

DATA = Path(os.environ.get("SEGPIPE_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
# The published training set, from the data's own description: pixels of each class, then void.
TRAIN_PIXELS = (10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967)
TRAIN_VOID = 2503995
ROOTS = {"mini": None} | ({"real": DATA / "camvid"} if (DATA / "camvid" / "train.txt").exists() else {})


def test_pairs_groups_and_splits(tmp_path: Path) -> None:
    source = open_source("camvid", str(write_camvid_mini(tmp_path)))
    refs, refused, _ = source.index()
    assert refused == []
    assert {(ref.split, ref.sample_id) for ref in refs} == {(s, stem) for s, stems in FRAMES.items() for stem in stems}
    assert {ref.group for ref in refs} == {"0001TP", "0006R0", "0016E5", "Seq05VD"}
    (first,) = [ref for ref in refs if ref.sample_id == "0001TP_006690"]
    assert first.files == ("train/0001TP_006690.jpg", "trainannot/0001TP_006690.png")


def test_void_becomes_ignore_and_image_bytes_stay(tmp_path: Path) -> None:
    source = open_source("camvid", str(write_camvid_mini(tmp_path)))
    ref = source.index()[0][0]
    sample = source.read(ref)
    raw = label_blocks(36, 48, 12, number=8)
    assert ref.sample_id == "0001TP_008550"
    labels = np.frombuffer(sample.label_map or b"", np.uint8).reshape(36, 48)
    np.testing.assert_array_equal(labels, np.where(raw == 11, IGNORE_8BIT, raw))
    assert sample.image == (tmp_path / ref.files[0]).read_bytes()
    assert source.ignore_index == IGNORE_8BIT


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
def test_counts_and_training_pixels(root: Path | None, tmp_path: Path) -> None:
    folder = root or write_camvid_mini(tmp_path)
    source = open_source("camvid", str(folder))
    refs, refused, _ = source.index()
    assert refused == []
    found = {split: sum(ref.split == split for ref in refs) for split in FRAMES}
    pixels = np.zeros(256, dtype=np.int64)
    for ref in refs:
        if ref.split == "train":
            pixels += np.bincount(np.frombuffer(source.read(ref).label_map or b"", np.uint8), minlength=256)
    if root is None:
        stripes = np.concatenate([label_blocks(36, 48, 12, number=n).ravel() for n in range(len(FRAMES["train"]))])
        counts, void = tuple(np.bincount(stripes)[:11]), int((stripes == 11).sum())
        assert found == {split: len(stems) for split, stems in FRAMES.items()}
    else:
        counts, void = TRAIN_PIXELS, TRAIN_VOID
        assert found == source.expected == {"train": 367, "val": 101, "test": 233}
    assert tuple(pixels[:11]) == counts
    assert pixels[IGNORE_8BIT] == void


def test_the_documented_counts_and_classes_can_be_compared(tmp_path: Path) -> None:
    source = open_source("camvid", str(write_camvid_mini(tmp_path)))
    assert source.expected == {"train": 367, "val": 101, "test": 233}
    assert [info.name for info in source.classes][:4] == ["Sky", "Building", "Pole", "Road"]
    assert source.classes[4].colour == (60, 40, 222)
    assert len({info.colour for info in source.classes}) == 11


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
def test_the_original_layout_has_the_splits_of_segnets_lists(root: Path | None, tmp_path: Path) -> None:
    listed = open_source("camvid", str(root or write_camvid_mini(tmp_path / "segnet"))).index()[0]
    for ref in listed:
        write(tmp_path / "original", f"701_StillsRaw_full/{ref.sample_id}.png", b"")
        write(tmp_path / "original", f"LabeledApproved_full/{ref.sample_id}_L.png", b"")
    found, refused, _ = open_source("camvid", str(tmp_path / "original"), {"layout": "original"}).index()
    assert refused == []
    assert [(ref.sample_id, ref.split, ref.group) for ref in found] == [
        (ref.sample_id, ref.split, ref.group) for ref in listed
    ]


def test_whole_drives_are_dealt_by_shares(tmp_path: Path) -> None:
    write_camvid_original(tmp_path)
    source = open_source("camvid", str(tmp_path), {"layout": "original", "shares": "0.4,0.3,0.3"})
    refs, _, _ = source.index()
    assert source.expected is None
    assert len({(ref.group, ref.split) for ref in refs}) == len({ref.group for ref in refs}) == 4


def test_every_label_belongs_to_one_of_the_eleven_classes() -> None:
    assert set(labels.TO_ELEVEN.values()) == set(range(11))
    assert len(labels.COLOURS) == 32
    # SegNet repainted the pavement only; every other class has the colour of the label that it is called by.
    named = {info.name: info.colour for info in labels.ALL}
    assert [info.name for info in labels.ELEVEN if named.get(info.name, info.colour) != info.colour] == []


@pytest.mark.parametrize(
    ("line", "reason", "file", "words"),
    [
        (
            "/SegNet/CamVid/train/gone.jpg /SegNet/CamVid/trainannot/gone.png",
            "missing_image",
            "train/gone.jpg",
            "line 7",
        ),
        ("x/train/0001TP_006690.jpg x/other/gone.png", "missing_mask", "other/gone.png", "line 7"),
        ("/a/train/0001TP_006690.jpg", "bad_annotation", "train.txt", "two paths"),
        ("/a/../secret.jpg /a/../secret.png", "bad_annotation", "train.txt", "two paths"),
        ("bare.jpg bare.png", "bad_annotation", "train.txt", "two paths"),
        ("a b c", "bad_annotation", "train.txt", "two paths"),
        ("/b/train/0001TP_006690.jpg /b/trainannot/0001TP_006690.png", "duplicate_id", "train.txt", "train.txt"),
    ],
)
def test_a_bad_line_costs_only_itself(tmp_path: Path, line: str, reason: str, file: str, words: str) -> None:
    write_camvid_mini(tmp_path)
    with (tmp_path / "train.txt").open("a") as stream:
        stream.write(f"{line}\n\n")
    refs, refused, _ = open_source("camvid", str(tmp_path)).index()
    assert len(refs) == 11
    ((entry),) = refused
    assert (entry.reason, entry.file) == (reason, file)
    assert words in entry.detail


def test_a_frame_in_two_splits_is_told(tmp_path: Path) -> None:
    write_camvid_mini(tmp_path)
    line = (tmp_path / "train.txt").read_text().splitlines()[0]
    with (tmp_path / "test.txt").open("a") as stream:
        stream.write(f"{line}\n")
    refs, (entry,), _ = open_source("camvid", str(tmp_path)).index()
    assert len(refs) == 11
    assert (entry.file, entry.item, entry.reason) == ("test.txt", "0001TP_006690", "duplicate_id")
    assert "train.txt" in entry.detail


@pytest.mark.parametrize(
    ("path", "data", "reason", "words"),
    [
        ("train/0001TP_006690.jpg", photograph(36, 48)[:400], "truncated", "end marker"),
        ("train/0001TP_006690.jpg", photograph(36, 48, orientation=8), "exif_rotated", "orientation 8"),
        ("train/0001TP_006690.jpg", b"", "truncated", "0 bytes"),
        ("trainannot/0001TP_006690.png", png(label_blocks(36, 47, 3)), "size_mismatch", "mask 47x36"),
        ("trainannot/0001TP_006690.png", png(label_blocks(36, 48, 16)), "label_out_of_range", "label 12"),
        ("trainannot/0001TP_006690.png", png(np.zeros((36, 48, 3), np.uint8)), "mask_mode", "RGB"),
    ],
)
def test_a_bad_file_is_refused_when_read(tmp_path: Path, path: str, data: bytes, reason: str, words: str) -> None:
    write_camvid_mini(tmp_path)
    (tmp_path / path).write_bytes(data)
    source = open_source("camvid", str(tmp_path))
    refs, _, _ = source.index()
    for ref in refs:
        if ref.sample_id == "0001TP_006690":
            with pytest.raises(BadSampleError, match=words) as caught:
                source.read(ref)
            assert (caught.value.reason, caught.value.file) == (reason, path)
        else:
            assert source.read(ref).height == 36


def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    root = write_camvid_mini(tmp_path / "root")
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(photograph(36, 48))
    (root / "train" / "0001TP_006690.jpg").unlink()
    (root / "train" / "0001TP_006690.jpg").symlink_to(outside)
    source = open_source("camvid", str(root))
    (ref,) = [ref for ref in source.index()[0] if ref.sample_id == "0001TP_006690"]
    with pytest.raises(BadSampleError, match="outside") as caught:
        source.read(ref)
    assert caught.value.reason == "outside_root"


def test_a_folder_without_lists_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.txt.*SegNet layout.*as root"):
        open_source("camvid", str(tmp_path)).index()


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    write_camvid_mini(tmp_path)
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"val\.txt.*UTF-8"):
        open_source("camvid", str(tmp_path)).index()
