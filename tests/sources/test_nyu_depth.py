"""NYU Depth v2: arrays that lie the other way round, three sets of classes, the folders made of them, and faults."""

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from segpipe import masks
from segpipe.errors import BadSampleError, InputError
from segpipe.sources import open_source
from segpipe.sources.nyu_depth import FROM_40_TO_13, NAMES_13, NAMES_40
from segpipe.sources.reading.hdf5 import Arrays
from segpipe.types import Sample
from tests.fixtures.mini_depth import depths, matlab, stripes, write_nyu_depth
from tests.fixtures.pictures import photograph, png
from tests.fixtures.small_files import HEIGHT, WIDTH, write

Options = dict[str, str | int | float | bool]
MAT = "nyu_depth_v2_labeled.mat"
QUARTER = HEIGHT * WIDTH // 4


def write_folders(root: Path) -> None:
    """What the field makes of the arrays: PNGs by number, and lists."""
    for number in (1, 2, 3):
        write(root, f"image/{number:06d}.png", photograph(HEIGHT, WIDTH, number=number, encoding="PNG"))
        write(root, f"label40/{number:06d}.png", png(stripes([0, 1, 40, 255], np.uint8)))
        write(root, f"depth16/{number:06d}.png", png(depths(number)))
    write(root, "train.txt", "000001\n000002\n")
    write(root, "test.txt", "000003")


def classes_of(sample: Sample, root: Path, options: Options) -> dict[str, int]:
    source = open_source("nyu_depth", str(root), options)
    kind = np.uint8 if source.ignore_index == 255 else np.uint16
    found = Counter(np.frombuffer(sample.label_map or b"", kind).tolist())
    return {source.classes[k].name if k != source.ignore_index else "void": n for k, n in found.items()}


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (40, {"void", "wall", "books", "pillow"}),
        (13, {"void", "wall", "books", "objects"}),
        (894, {"void", "wall", "book", "sofa"}),
    ],
)
def test_arrays_become_upright_photographs_with_labels_and_depth(classes: int, names: set[str], tmp_path: Path) -> None:
    write_nyu_depth(tmp_path)
    write(tmp_path, "classMapping40.mat", matlab(mapClass=np.array([[1, 23, 2, 40, 18]], np.uint8)))
    options: Options = {"classes": classes}
    source = open_source("nyu_depth", str(tmp_path), options)
    refs, refused, _ = source.index()
    assert refused == []
    assert [(ref.split, ref.sample_id, ref.group) for ref in refs] == [
        ("test", "0003", "office_0001"),
        ("train", "0001", "kitchen_0004"),
        ("train", "0002", "kitchen_0004"),
    ]
    sample = source.read(refs[1])
    assert classes_of(sample, tmp_path, options) == dict.fromkeys(names, QUARTER)
    assert (masks.read_rgb(sample.image, file="x") == masks.read_rgb(photograph(HEIGHT, WIDTH), file="y")).all()
    assert (masks.read_label_image(sample.extras["depth"], file="d") == 1235).all()  # rounded, not cut
    assert source.expected == {"train": 795, "test": 654}


def test_the_tables_of_classes_are_whole() -> None:
    assert (len(NAMES_40), len(set(NAMES_40)), len(NAMES_13), len(FROM_40_TO_13)) == (40, 40, 13, 40)
    merged = {name: NAMES_13[k - 1] for name, k in zip(NAMES_40, FROM_40_TO_13, strict=True)}
    assert {merged[name] for name in ("cabinet", "bookshelf", "dresser", "otherfurniture")} == {"furniture"}
    assert (merged["television"], merged["whiteboard"], merged["blinds"]) == ("tv", "objects", "window")
    assert set(merged.values()) == set(NAMES_13)


def test_the_folders_of_the_field_are_read_too(tmp_path: Path) -> None:
    write_folders(tmp_path)
    source = open_source("nyu_depth", str(tmp_path))
    refs, refused, _ = source.index()
    assert refused == []
    assert [(ref.split, ref.sample_id) for ref in refs] == [
        ("test", "000003"),
        ("train", "000001"),
        ("train", "000002"),
    ]
    sample = source.read(refs[1])
    assert classes_of(sample, tmp_path, {}) == {"void": 2 * QUARTER, "wall": QUARTER, "otherprop": QUARTER}
    assert sample.image == photograph(HEIGHT, WIDTH, number=1, encoding="PNG")
    assert sample.extras == {"depth": png(depths(1))}
    without = open_source("nyu_depth", str(tmp_path), {"depth": False})
    assert not any(without.read(ref).extras for ref in without.index()[0])


def change(**arrays: Any) -> Callable[[Path], None]:
    """Puts other arrays into the file of arrays."""

    def apply(root: Path) -> None:
        with h5py.File(root / MAT, "a") as file:
            for name, values in arrays.items():
                del file[name]
                file[name] = values

    return apply


def wide(root: Path) -> None:
    """A photograph of gigapixels in a few bytes: chunks that were never written read as zeros."""
    with h5py.File(root / MAT, "a") as file:
        del file["images"]
        file.create_dataset("images", (3, 3, 40_000, 40_000), np.uint8, chunks=(1, 1, 100, 100))


def beyond(kind: str) -> Callable[[Path], None]:
    """Makes `depths` lead out of the file, in one of HDF5's ways."""

    def apply(root: Path) -> None:
        (root / "secret").write_bytes(bytes(4 * 3 * WIDTH * HEIGHT))
        with h5py.File(root / "other.h5", "w") as other:
            other["depths"] = np.zeros((3, WIDTH, HEIGHT), np.float32)
        with h5py.File(root / MAT, "a") as file:
            del file["depths"]
            shape = (3, WIDTH, HEIGHT)
            if kind == "link":
                file["depths"] = h5py.ExternalLink(str(root / "other.h5"), "depths")
            elif kind == "storage":
                file.create_dataset(
                    "depths", shape, np.float32, external=[(str(root / "secret"), 0, h5py.h5f.UNLIMITED)]
                )
            else:
                layout = h5py.VirtualLayout(shape, np.float32)
                layout[:] = h5py.VirtualSource(str(root / "other.h5"), "depths", shape)
                file.create_virtual_dataset("depths", layout)

    return apply


@pytest.mark.parametrize(
    ("spoil", "reason", "detail"),
    [
        (change(labels=np.full((3, WIDTH, HEIGHT), 6, np.uint16)), "label_out_of_range", "label 6 in"),
        (change(labels=np.zeros((3, WIDTH, 1), np.uint16)), "unreadable", r"labels\[0\] of an array \(3, 36, 1\)"),
        (change(depths=np.full((3, WIDTH, HEIGHT), 70.0, np.float32)), "bad_annotation", "up to 70.0 m"),
        (change(depths=np.zeros((3, WIDTH, HEIGHT), np.uint8)), "unreadable", "of kind 'f4'"),
        (change(images=np.zeros(3, np.uint8)), "unreadable", r"images\[0\] of an array \(3,\)"),
        (change(images=np.zeros((3, 3, WIDTH, HEIGHT), np.uint16)), "unreadable", "of kind 'u1'"),
        (wide, "unreadable", r"images takes [\d,]+ bytes at once; allowed are 134,217,728"),
        (beyond("link"), "unreadable", "has no array depths"),
        (beyond("storage"), "unreadable", "depths is no array of its own file"),
        (beyond("virtual"), "unreadable", "depths is no array of its own file"),
    ],
)
def test_a_bad_array_costs_its_images(spoil: Callable[[Path], None], reason: str, detail: str, tmp_path: Path) -> None:
    write_nyu_depth(tmp_path)
    spoil(tmp_path)
    source = open_source("nyu_depth", str(tmp_path))
    with pytest.raises(BadSampleError, match=detail) as caught:
        source.read(source.index()[0][1])
    assert caught.value.reason == reason
    assert caught.value.file.startswith(f"{MAT}, image 1")
    assert str(tmp_path) not in caught.value.detail


def test_where_there_is_no_depth_it_is_zero(tmp_path: Path) -> None:
    write_nyu_depth(tmp_path)
    change(depths=np.full((3, WIDTH, HEIGHT), np.nan, np.float32))(tmp_path)
    source = open_source("nyu_depth", str(tmp_path))
    assert (masks.read_label_image(source.read(source.index()[0][0]).extras["depth"], file="d") == 0).all()


@pytest.mark.parametrize(
    ("lay_out", "spoil", "options", "message"),
    [
        (write_nyu_depth, None, {"classes": 37}, "option classes=37; expected 40, 13, or 894"),
        (write_nyu_depth, ("classMapping40.mat", matlab(mapClass=np.array([1, 2]))), {}, "mapClass has 2 values"),
        (write_nyu_depth, ("classMapping40.mat", matlab(mapClass=np.full(5, 41))), {}, "expected one of 1 to 40"),
        (write_nyu_depth, ("splits.mat", matlab(trainNdxs=np.array([1]))), {}, "no whole numbers in testNdxs"),
        (write_nyu_depth, (MAT, b"MATLAB 5.0 MAT-file"), {}, r"expected MATLAB 7.3 \(HDF5\): fetch the file again"),
        (write_folders, None, {"classes": 894}, f"no {MAT} here; expected it beside splits.mat, or image/"),
        (write_folders, ("depth16", None), {}, "no depth/ here; .* set the option depth=false"),
        (write_folders, ("test.txt", None), {}, "test.txt"),
    ],
)
def test_what_does_not_fit_is_refused(
    lay_out: Callable[[Path], None], spoil: Any, options: Options, message: str, tmp_path: Path
) -> None:
    lay_out(tmp_path)
    if spoil and spoil[1] is None:
        (tmp_path / spoil[0]).rename(tmp_path / "elsewhere")
    elif spoil:
        write(tmp_path, *spoil)
    with pytest.raises(InputError, match=message):
        open_source("nyu_depth", str(tmp_path), options).index()


def test_a_number_beyond_the_arrays_is_refused_and_a_missing_picture_named(tmp_path: Path) -> None:
    write_nyu_depth(tmp_path / "mat")
    write(tmp_path / "mat", "splits.mat", matlab(trainNdxs=np.array([1, 9]), testNdxs=np.array([3])))
    refs, refused, _ = open_source("nyu_depth", str(tmp_path / "mat")).index()
    assert (len(refs), [(entry.item, entry.reason) for entry in refused]) == (2, [("0009", "missing_image")])
    write_folders(tmp_path / "png")
    (tmp_path / "png/depth16/000002.png").unlink()
    refs, refused, _ = open_source("nyu_depth", str(tmp_path / "png")).index()
    assert (len(refs), [(e.file, e.reason) for e in refused]) == (2, [("depth16/000002.png", "missing_mask")])


def test_arrays_are_pickled_closed(tmp_path: Path) -> None:
    write_nyu_depth(tmp_path)
    arrays = Arrays(str(tmp_path), MAT)
    assert arrays.shape("images") == (3, 3, WIDTH, HEIGHT)
    copy = pickle.loads(pickle.dumps(arrays))
    assert copy.texts("scenes") == ["kitchen_0004", "kitchen_0004", "office_0001"]
    for name, message in (
        ("images", "no cell array of texts"),
        ("rawDepths", "has no array rawDepths"),
        ("#refs#", "no array of its own"),
    ):
        with pytest.raises(InputError, match=message):
            copy.texts(name)
