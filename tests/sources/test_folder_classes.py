"""The classes file of a user's folder: which raw value or colour is which class, which is void."""

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import InputError
from segpipe.sources import open_source
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.pictures import label_blocks, photograph, png

COLOURS = np.array([(10, 20, 30), (128, 0, 0), (0, 200, 9)], dtype=np.uint8)


def write_classes(root: Path, entries: object) -> None:
    (root / "classes.txt").unlink(missing_ok=True)
    (root / "classes.json").write_text(json.dumps(entries))


def labels_of(root: Path, stem: str, **options: str | int | bool) -> np.ndarray:
    source = open_source("folder", str(root), options)
    (ref,) = [ref for ref in source.index()[0] if ref.sample_id == stem]
    sample = source.read(ref)
    width = 1 if source.ignore_index == 255 else 2
    return np.frombuffer(sample.label_map or b"", f"<u{width}").reshape(sample.height, sample.width)


def test_mask_values_follow_the_classes_file(tmp_path: Path) -> None:
    write_folder_mini(tmp_path, count=3)
    raw = np.array([[7, 9, 3], [255, 3, 9]], np.uint8)
    (tmp_path / "images" / "img_000.jpg").write_bytes(photograph(2, 3))
    (tmp_path / "masks" / "img_000.png").write_bytes(png(raw))
    write_classes(tmp_path, [{"name": "b", "id": 9}, {"name": "void", "id": 3, "ignore": True}, {"name": "a", "id": 7}])
    np.testing.assert_array_equal(labels_of(tmp_path, "img_000"), [[1, 0, 255], [255, 255, 0]])


def test_void_by_option_by_255_and_by_reduced_zero(tmp_path: Path) -> None:
    write_folder_mini(tmp_path, count=1)
    (tmp_path / "images" / "img_000.jpg").write_bytes(photograph(1, 4))
    (tmp_path / "masks" / "img_000.png").write_bytes(png(np.array([[0, 1, 2, 255]], np.uint8)))
    np.testing.assert_array_equal(labels_of(tmp_path, "img_000"), [[0, 1, 2, 255]])
    (tmp_path / "masks" / "img_000.png").write_bytes(png(np.array([[0, 1, 3, 2]], np.uint8)))
    np.testing.assert_array_equal(labels_of(tmp_path, "img_000", ignore=3), [[0, 1, 255, 2]])
    np.testing.assert_array_equal(labels_of(tmp_path, "img_000", reduce_zero=True), [[255, 0, 2, 1]])


def test_rgb_masks_by_the_colours_of_the_classes_file(tmp_path: Path) -> None:
    write_folder_mini(tmp_path, count=2)
    ids = label_blocks(24, 30, 3)
    (tmp_path / "masks" / "img_000.png").write_bytes(png(COLOURS[ids]))
    colours = [[10, 20, 30], "#800000", [0, 200, 9]]
    entries = [{"name": name, "colour": colour} for name, colour in zip("abc", colours, strict=True)]
    entries[1]["ignore"] = True
    write_classes(tmp_path, entries)
    np.testing.assert_array_equal(labels_of(tmp_path, "img_000"), np.array([0, 255, 1])[ids])
    assert open_source("folder", str(tmp_path)).classes[1].colour == (0, 200, 9)


def test_more_than_255_classes_are_stored_in_16_bits(tmp_path: Path) -> None:
    write_folder_mini(tmp_path, count=1)
    (tmp_path / "classes.txt").write_text("\n".join(f"class {number}" for number in range(300)))
    (tmp_path / "images" / "img_000.jpg").write_bytes(photograph(1, 3))
    (tmp_path / "masks" / "img_000.png").write_bytes(png(np.array([[0, 299, 255]], np.uint16)))
    np.testing.assert_array_equal(labels_of(tmp_path, "img_000"), [[0, 299, 255]])
    assert len({info.colour for info in open_source("folder", str(tmp_path)).classes}) >= 255


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "a dict; expected a list"),
        ("[1]", r"classes\[0\]"),
        ('[{"name": "a", "color": 1}]', "unknown key 'color'; did you mean 'colour'"),
        ('[{"name": "a", "id": -1}]', r"classes\[0\]\.id: -1"),
        ('[{"name": "a", "id": true}]', r"classes\[0\]\.id: True"),
        ('[{"name": "a"}, {"name": "a"}]', "name 'a' is given twice"),
        ('[{"name": "a"}, {"name": "b", "id": 0}]', "id 0 is given twice"),
        ('[{"name": "a", "name": "b"}]', "given twice"),
        ('[{"name": "a", "colour": [1, 2, 256]}]', r"colour.*256"),
        ('[{"name": "a", "colour": "#12345g"}]', "rrggbb"),
        ('[{"name": "a", "ignore": 1}]', "true or false"),
        ('[{"name": "a", "ignore": true}]', "0 classes"),
        ("[" * 100_000, "strict JSON"),
        ("nonsense", "strict JSON"),
    ],
)
def test_a_bad_classes_file_is_named_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    write_folder_mini(tmp_path, count=1)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(InputError, match=f"(?s)classes.json.*{words}"):
        open_source("folder", str(tmp_path))


def test_an_empty_line_in_classes_txt_would_shift_ids(tmp_path: Path) -> None:
    write_folder_mini(tmp_path, count=1)
    (tmp_path / "classes.txt").write_text("a\n\nb\n")
    with pytest.raises(InputError, match="line 2 is empty"):
        open_source("folder", str(tmp_path))


@pytest.mark.parametrize("text", ["0 sky\n1 road\n", "1: sky\n2: road", "0,sky\n1,road"])
def test_numbers_before_names_are_no_part_of_them(tmp_path: Path, text: str) -> None:
    write_folder_mini(tmp_path, count=1)
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=r"classes.txt: line 1 is .*sky', and every line begins with a number"):
        open_source("folder", str(tmp_path))
    (tmp_path / "classes.txt").write_text("sky\n3 lanes\nroad 66\n")
    assert [info.name for info in open_source("folder", str(tmp_path)).classes] == ["sky", "3 lanes", "road 66"]
