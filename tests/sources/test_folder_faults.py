"""What a user's folder may get wrong: each bad input has its reason and its remedy, and its neighbours survive."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import BadSampleError, InputError
from segpipe.sources import open_source
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.pictures import label_blocks, photograph, png

COLOURS = np.array([(10, 20, 30), (128, 0, 0), (0, 200, 9)], dtype=np.uint8)


def without_mask(root: Path) -> None:
    (root / "masks" / "img_001.png").unlink()


def without_image(root: Path) -> None:
    (root / "images" / "img_001.jpg").unlink()


def with_a_twin(root: Path) -> None:
    (root / "images" / "img_001.png").write_bytes(photograph(24, 30, encoding="PNG"))


@pytest.mark.parametrize(
    ("spoil", "reason", "files", "words"),
    [
        (without_mask, "missing_mask", ["images/img_001.jpg"], "masks/img_001.png"),
        (without_image, "missing_image", ["masks/img_001.png"], "images/img_001"),
        (with_a_twin, "duplicate_id", ["images/img_001.jpg", "images/img_001.png"], "keep one"),
    ],
)
def test_what_names_alone_tell_is_refused_by_the_index(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str, files: list[str], words: str
) -> None:
    spoil(write_folder_mini(tmp_path, count=5))
    source = open_source("folder", str(tmp_path))
    refs, refused, _ = source.index()
    assert [(entry.file, entry.item, entry.reason) for entry in refused] == [
        (file, "img_001", reason) for file in files
    ]
    assert all(words in entry.detail for entry in refused)
    assert sorted(source.read(ref).sample_id for ref in refs) == ["img_000", "img_002", "img_003", "img_004"]


@pytest.mark.parametrize(
    ("path", "data", "reason", "words"),
    [
        ("images/img_001.jpg", photograph(24, 30)[:-200], "truncated", "end marker"),
        ("images/img_001.jpg", b"", "truncated", "0 bytes"),
        ("images/img_001.jpg", b"BM" + bytes(60), "format_not_allowed", "JPEG or a PNG"),
        ("images/img_001.jpg", photograph(24, 30, orientation=3), "exif_rotated", "exif_transpose"),
        ("masks/img_001.png", png(label_blocks(30, 24, 3)), "size_mismatch", "mask 24x30.*30x24"),
        ("masks/img_001.png", png(label_blocks(24, 30, 5)), "label_out_of_range", "label 3 in 144 pixels"),
        ("masks/img_001.png", png(COLOURS[label_blocks(24, 30, 3)]), "mask_mode", "give each class its `colour`"),
        ("masks/img_001.png", png(np.zeros((24, 30, 4), np.uint8)), "mask_mode", "RGBA"),
        ("masks/img_001.png", photograph(24, 30), "format_not_allowed", "loses ids"),
        ("masks/img_001.png", png(label_blocks(24, 30, 3))[:-20], "truncated", "end marker"),
    ],
)
def test_what_bytes_tell_is_refused_when_read(tmp_path: Path, path: str, data: bytes, reason: str, words: str) -> None:
    write_folder_mini(tmp_path, count=4)
    (tmp_path / path).write_bytes(data)
    source = open_source("folder", str(tmp_path))
    good = 0
    for ref in source.index()[0]:
        if ref.sample_id == "img_001":
            with pytest.raises(BadSampleError, match=words) as caught:
                source.read(ref)
            assert (caught.value.reason, caught.value.file) == (reason, path)
        else:
            good += source.read(ref).height == 24
    assert good == 3


@pytest.mark.parametrize("tree", ["images/img_001.jpg", "masks/img_001.png"])
def test_links_may_not_leave_the_root(tmp_path: Path, tree: str) -> None:
    root = write_folder_mini(tmp_path / "root", count=3)
    outside = tmp_path / "outside"
    (root / tree).rename(outside)
    (root / tree).symlink_to(outside)
    source = open_source("folder", str(root))
    (ref,) = [ref for ref in source.index()[0] if ref.sample_id == "img_001"]
    with pytest.raises(BadSampleError, match="outside") as caught:
        source.read(ref)
    assert (caught.value.reason, caught.value.file) == ("outside_root", tree)


def test_a_file_that_vanished_after_indexing_is_told(tmp_path: Path) -> None:
    source = open_source("folder", str(write_folder_mini(tmp_path, count=3)))
    ref = source.index()[0][0]
    (tmp_path / ref.files[1]).unlink()
    with pytest.raises(BadSampleError) as caught:
        source.read(ref)
    assert (caught.value.reason, caught.value.file) == ("missing_mask", ref.files[1])


def test_hidden_files_and_files_that_are_no_pictures_are_passed_over(tmp_path: Path) -> None:
    write_folder_mini(tmp_path, count=3)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._img_000.jpg"):
        (tmp_path / "images" / name).write_bytes(b"x")
    refs, refused, _ = open_source("folder", str(tmp_path)).index()
    assert (len(refs), refused) == (3, [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": "photos"}, "photos.*options images, masks"),
        ({"mask_suffix": "_gt"}, r"\*_gt\.png"),
        ({"shares": "0.5,0.2"}, "three shares"),
        ({"shares": "a,b,c"}, "three shares"),
        ({"group_pattern": "("}, "regular expression"),
        ({"group_pattern": "img"}, "no \\(...\\)"),
        ({"splits": "lists"}, "lists/train.txt"),
        ({"classes": "names.txt"}, "names.txt.*no such file"),
        ({"ignore": 1}, "mask value 1 is class 'plant'"),
    ],
)
def test_a_bad_option_says_what_was_expected(tmp_path: Path, options: dict[str, str | int], words: str) -> None:
    write_folder_mini(tmp_path, count=2)
    with pytest.raises(InputError, match=words):
        open_source("folder", str(tmp_path), options).index()
