"""MATLAB 5's .mat files: what scipy writes is read back; what is damaged, cut or a bomb is refused by its words."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from segpipe.sources.reading import matlab
from tests.fixtures.mini_pascal import structs

KINDS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
NUMBERS = {f"of_{kind}": np.arange(24).reshape(2, 3, 4).astype(kind) for kind in KINDS}
TEXTS = {"word": "hello", "accents": "hé, Zürich €", "empty": "", "rows": np.array(["abc", "def"])}
VALUES = {
    **NUMBERS,
    **TEXTS,
    "complex": np.array([1 + 2j, 3.0]),
    "nothing": np.zeros((0, 0)),
    "cells": np.array([1, "x", np.zeros((2, 2))], dtype=object),
    "one": {"inner": {"depth": np.uint8(3)}},
    "two": structs([{"x": 1, "y": "left"}, {"x": 2, "y": [1, 2]}]),
    "none": structs([{"x": 1}])[:, :0],
    "sparse": scipy.sparse.eye(3).tocsc(),
}


def written(**variables: Any) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables)
    return stream.getvalue()


def packed(data: bytes, size: int | None = None) -> bytes:
    """A file with its variables in one compressed element; `size` is what the tag within says instead."""
    body = data[128:] if size is None else data[128:132] + struct.pack("<I", size) + data[136:]
    small = zlib.compress(body)
    return data[:128] + struct.pack("<II", 15, len(small)) + small


def as_plain(value: Any) -> Any:
    """Arrays as (type, shape, numbers), so that two values can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tolist()
    if isinstance(value, dict):
        return {key: as_plain(inner) for key, inner in value.items()}
    return [as_plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("compressed", [False, True])
def test_what_scipy_writes_is_read(compressed: bool) -> None:
    stream = io.BytesIO()
    scipy.io.savemat(stream, VALUES, do_compression=compressed)
    found = matlab.parse(stream.getvalue())
    assert set(found) == set(VALUES) - {"sparse"}
    for name, numbers in NUMBERS.items():
        assert as_plain(found[name]) == as_plain(numbers), name
    assert {name: found[name] for name in TEXTS} == {**TEXTS, "rows": ["abc", "def"]}
    assert as_plain(found["complex"]) == as_plain(np.array([[1 + 2j, 3.0]]))
    assert as_plain(found["nothing"]) == as_plain(np.zeros((0, 0)))
    assert as_plain(found["cells"]) == as_plain([np.array([[1]]), "x", np.zeros((2, 2))])
    assert as_plain(found["one"]) == {"inner": {"depth": ("|u1", (1, 1), [[3]])}}
    assert as_plain(found["two"]) == as_plain(
        [{"x": np.array([[1]]), "y": "left"}, {"x": np.array([[2]]), "y": np.array([[1, 2]])}]
    )
    assert found["none"] == []


def test_a_file_of_the_other_byte_order_is_read() -> None:
    """As MATLAB wrote them on a Sun: a row of three numbers of two bytes, `x`, its name within the tag."""
    flags, shape = struct.pack(">IIII", 6, 8, 11, 0), struct.pack(">IIii", 5, 8, 1, 3)
    body = flags + shape + struct.pack(">HH4s", 1, 1, b"x") + struct.pack(">IIHHHxx", 4, 6, 1, 258, 3)
    data = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body
    assert as_plain(matlab.parse(data)["x"]) == ("<u2", (1, 3), [[1, 258, 3]])


WHOLE = written(x=np.arange(6, dtype=np.uint16))
NESTED = np.zeros(1, dtype=object)
for _ in range(matlab.MAX_DEPTH):
    outer = np.zeros(1, dtype=object)
    outer[0], NESTED = NESTED, outer


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no header of MATLAB 5"),
        (b"\0" * 500, "no header of MATLAB 5"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", "MATLAB 7.3, which is HDF5"),
        (WHOLE[:-8], "it ends amid an array"),
        (WHOLE + b"\0" * 3, "it ends amid an array"),
        (WHOLE + b"\0" * 8, "an element of type 0 where a variable should be"),
        (WHOLE + WHOLE[128:], "variable 'x' is there twice"),
        (packed(WHOLE, 2**32 - 8), "unpack to more than"),
        (packed(WHOLE, 8), "another size than its tag says"),
        (packed(WHOLE)[:-1], "it ends amid an array"),
        (packed(WHOLE + bytes(8)), "another size than its tag says"),
        (written(x=NESTED), f"more than {matlab.MAX_DEPTH} of them within each other"),
        (WHOLE.replace(struct.pack("<ii", 1, 6), struct.pack("<ii", 1, 7)), "numbers for an array of"),
        (WHOLE.replace(struct.pack("<ii", 1, 6), struct.pack("<ii", -1, -6)), "an array of the dimensions"),
        (WHOLE.replace(struct.pack("<ii", 1, 6), struct.pack("<ii", 2**31 - 1, 2**31 - 1)), "numbers for an array of"),
        (WHOLE.replace(b"\x01\x00\x01\x00x", b"\x01\x00\x09\x00x"), "9 bytes of data in a tag"),
    ],
    # The bytes hold the second they were written in: as names, they would differ between two workers.
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_is_damaged_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matlab.parse(data)


def test_structures_without_fields_and_empty_arrays_are_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some bytes that ask for gigabytes of dictionaries, or for as many arrays as bytes."""
    bare = written(x=structs([{"y": 1}, {"y": 2}]))
    at = bare.index(struct.pack("<ii", 1, 2))
    head = bare[136:at] + struct.pack("<ii", 2**30, 1) + bare[at + 8 : at + 16]
    body = head + struct.pack("<HHi", 5, 4, 32) + struct.pack("<II", 1, 0)
    with pytest.raises(ValueError, match="1073741824 structures without fields"):
        matlab.parse(bare[:128] + struct.pack("<II", 14, len(body)) + body)
    monkeypatch.setattr(matlab, "MAX_ARRAYS", 100)
    many = np.empty((1, 100), dtype=object)
    many[:] = "x"
    with pytest.raises(ValueError, match="more than 100 arrays"):
        matlab.parse(written(x=many))
