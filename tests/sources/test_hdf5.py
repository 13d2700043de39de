"""Arrays of HDF5 that lie about themselves: each is refused before HDF5 crashes, hangs or fills the memory with it."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from segpipe.errors import InputError
from segpipe.sources.reading.hdf5 import Arrays

SHAPE = (5, 6, 8)
VALUES = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
Spoil = Callable[[h5py.File], object]


def arrays_of(folder: Path, spoil: Spoil) -> Arrays:
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        spoil(file)
    return Arrays(str(folder), "a.mat")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (1, 6, 8)},
        {"chunks": (2, 4, 5), "compression": "gzip"},
        {"chunks": (2, 4, 5), "compression": "gzip", "shuffle": True, "fletcher32": True, "maxshape": (None, 6, 8)},
        {"chunks": (3, 6, 8), "fletcher32": True},
    ],
)
@pytest.mark.parametrize("noise", [False, True])
def test_what_matlab_and_h5py_write_is_read(options: dict[str, Any], noise: bool, tmp_path: Path) -> None:
    """Also where a chunk would grow by packing, so that HDF5 left it as it is."""
    values = np.random.default_rng(0).integers(0, 2**16, SHAPE, dtype=np.uint16) if noise else VALUES
    arrays = arrays_of(tmp_path, lambda file: file.create_dataset("x", data=values, **options))
    for place in (4, 0, 3, 0, 1):
        assert (arrays.item("x", place, kind="u2", shape=SHAPE[1:]) == values[place]).all()


def chunk_of(data: bytes, filter_mask: int = 0, **options: Any) -> Spoil:
    """An array whose second chunk holds `data`, whatever the array says."""

    def spoil(file: h5py.File) -> None:
        array = file.create_dataset("x", data=VALUES, chunks=(2, 6, 8), **options)
        array.id.write_direct_chunk((2, 0, 0), data, filter_mask)

    return spoil


def filtered(number: int, *settings: int) -> Spoil:
    """An array with this filter before deflate: a flipped bit makes one of the other."""

    def spoil(file: h5py.File) -> None:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((2, 6, 8))
        made.set_filter(number, h5py.h5z.FLAG_OPTIONAL, settings)
        made.set_deflate(4)
        h5py.h5d.create(file.id, b"x", h5py.h5t.STD_U16LE, h5py.h5s.create_simple(SHAPE), made)

    return spoil


GZIP: dict[str, Any] = {"compression": "gzip"}
WHOLE = 2 * 6 * 8 * 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (chunk_of(zlib.compress(bytes(64 << 20), 9), **GZIP), r"the chunk at \(2, 0, 0\) of x holds 1,048,576 bytes"),
        (chunk_of(zlib.compress(bytes(WHOLE - 1)), **GZIP), "holds 191 bytes or more; expected 192"),
        (chunk_of(zlib.compress(bytes(WHOLE + 1)), **GZIP), "holds 193 bytes or more; expected 192"),
        (chunk_of(zlib.compress(bytes(WHOLE))[:-5], **GZIP), "a compressed chunk is cut short"),
        (chunk_of(bytes(WHOLE), **GZIP), "unknown compression method"),
        (chunk_of(bytes(WHOLE - 1), filter_mask=1, **GZIP), "holds 191 bytes or more; expected 192"),
        (chunk_of(bytes(WHOLE), filter_mask=0, fletcher32=True), "expected 192"),
        (lambda file: file.create_dataset("x", data=VALUES, chunks=(2, 6, 8), scaleoffset=0), "through filters {6"),
        (lambda file: file.create_dataset("x", data=VALUES, chunks=(2, 6, 8), compression="lzf"), "filters {32000"),
        (filtered(1, 9), "a filter is applied twice"),
        (filtered(5, 1, 2, 3), r"through filters {5.*expected deflate \(1\), shuffle \(2\) of 2 bytes before it"),
    ],
)
def test_a_chunk_that_is_not_what_its_array_says_is_refused(spoil: Spoil, message: str, tmp_path: Path) -> None:
    arrays = arrays_of(tmp_path, spoil)
    for _ in range(2):  # the second time as the first
        with pytest.raises(InputError, match=f"a.mat: .*{message}"):
            arrays.item("x", 3, kind="u2", shape=SHAPE[1:])


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ((1, 9000, 9000), None, "x takes 162,000,000 bytes at once"),
        ((1, 2**40, 2**10), (1, 1, 1), "x takes 2,251,799,813,685,248 bytes at once"),
        ((1, 8000, 8000), (1, 8, 8), r"x is read in 1,000,000 chunks of \(1, 8, 8\) at once; allowed are 10,000"),
        ((2**40, 6, 8), (2**30, 6, 8), "x takes 103,079,215,104 bytes at once"),
    ],
)
def test_an_array_that_is_larger_than_its_file_costs_nothing(
    shape: tuple[int, ...], chunks: tuple[int, ...] | None, message: str, tmp_path: Path
) -> None:
    arrays = arrays_of(tmp_path, lambda file: file.create_dataset("x", shape, np.uint16, chunks=chunks))
    with pytest.raises(InputError, match=message):
        arrays.item("x", 0, kind="u2", shape=shape[1:])


def test_an_index_that_leads_back_to_itself_is_refused(tmp_path: Path) -> None:
    """Of the chunks' tree, the one leaf becomes a node above itself: to list the chunks overflows the stack."""
    arrays = arrays_of(tmp_path, lambda file: file.create_dataset("x", data=VALUES, chunks=(2, 6, 8), **GZIP))
    data = bytearray((tmp_path / "a.mat").read_bytes())
    leaf = data.index(b"TREE\1")
    data[leaf + 5] = 1  # its level
    child = leaf + 24 + 8 + 8 * (len(SHAPE) + 1)  # behind the head and the first key
    data[child : child + 8] = (leaf - 512).to_bytes(8, "little")
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(InputError, match=r"a.mat: .*; expected MATLAB 7.3 \(HDF5\): fetch the file again"):
        arrays.item("x", 0, kind="u2", shape=SHAPE[1:])


def named(name: str) -> Spoil:
    """A cell that names what to read, and is no reference: HDF5 would follow a link of that name out of the file."""

    def spoil(file: h5py.File) -> None:
        with h5py.File(str(file.filename).replace("a.mat", "b.mat"), "w") as other:
            other["secret"] = np.array([ord(sign) for sign in "secret"], np.uint16)
        file["out"] = h5py.ExternalLink("b.mat", "secret")
        file["x"] = np.array([name], dtype=h5py.string_dtype())

    return spoil


def cells(count: int, **options: Any) -> Spoil:
    def spoil(file: h5py.File) -> None:
        letters = file.create_dataset("a", data=np.zeros(900, np.uint16), chunks=(900,), **options)
        letters.id.write_direct_chunk((0,), zlib.compress(bytes(1 << 20)))
        array = file.create_dataset("x", (1, count), dtype=h5py.ref_dtype, chunks=(1, count), compression="gzip")
        array[:] = letters.ref

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (named("/out"), r"x of \(1,\) is no cell array of texts"),
        (cells(100_001), r"x of \(1, 100001\) is no cell array of texts, at most 100,000"),
        (cells(2, **GZIP), r"the chunk at \(0,\) of x holds 1,048,576 bytes or more; expected 1,800"),
    ],
)
def test_texts_that_lead_elsewhere_or_never_end_are_refused(spoil: Spoil, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        arrays_of(tmp_path, spoil).texts("x")
