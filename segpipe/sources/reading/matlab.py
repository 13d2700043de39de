"""MATLAB 5's .mat files, as a few old benchmarks ship their lists and masks. Part of `reading`.

Read here and not by scipy, whose reader is C and crashes over damaged files: a process of its own for it took a second
to start, and nobody could say whether the file or the night had ended it. Source: MathWorks, MAT-File Format (R2019a),
chapter 1. A file is a header and then elements: a tag of type and size, the data, zeros up to a multiple of eight. An
array is an element of elements: flags, dimensions, name, then numbers, text, or more arrays.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from segpipe import storage
from segpipe.errors import BadSampleError, InputError
from segpipe.sources.reading.files import inside, read_file, without_root

MAX_BYTES = 256 * 2**20
# PASCAL's masks of one image have some tens of megabytes unpacked; zlib can make a thousand bytes of one.
MAX_UNPACKED = 128 * 2**20
# A file of PASCAL-Part has some thousands; an empty array takes eight bytes of a file, and a hundred of memory.
MAX_ARRAYS = 50_000
MAX_DEPTH = 32  # of arrays within arrays; PASCAL-Part has four

_HEADER, _VERSION_5, _VERSION_73, _TAG = 128, 0x0100, 0x0200, 8
_ARRAY, _COMPRESSED, _CHUNK = 14, 15, 2**20
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# MATLAB's characters are UTF-16 units, which it writes as bytes where all of them fit.
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELLS, _STRUCTURE, _TEXT, _NUMERIC = 1, 2, 4, range(6, 16)
_COMPLEX = 0x0800
_CUT = "it ends amid an array"


def read_matlab(root: str, path: str) -> dict[str, Any]:
    """The variables of a .mat file (version 5) by name; see `parse`. Raises InputError."""
    uri = inside(root, path)
    return _parsed(storage.read_bytes(uri, limit=MAX_BYTES), uri)


def read_matlab_of_sample(root: str, path: str) -> dict[str, Any]:
    """The variables of one sample's annotation by name; see `parse`. Raises BadSampleError."""
    data = read_file(root, path, missing="missing_mask")
    try:
        return _parsed(data, path)
    except InputError as error:
        raise BadSampleError("unreadable", path, without_root(error, root, path)) from error


def _parsed(data: bytes, where: str) -> dict[str, Any]:
    try:
        return parse(data)
    except (ValueError, zlib.error) as error:
        raise InputError(f"{where}: {error}; expected a MATLAB 5 file: fetch it again") from error


def parse(data: bytes) -> dict[str, Any]:
    """The variables by name. Raises ValueError or zlib.error.

    Numbers are read-only arrays of MATLAB's dimensions, at least two, in the type that they are stored with: MATLAB
    writes whole doubles as the smallest integers that hold them. Text is a string, or a list of its rows. A structure
    is a dictionary, an array of other than one of them a list in MATLAB's order, by columns; a cell array is a list.
    What no benchmark has (sparse matrices, objects, function handles) is left out, and None within another array.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER])
    version = int.from_bytes(data[124:126], "big" if order == ">" else "little")
    if order is None or version not in (_VERSION_5, _VERSION_73):
        raise ValueError("it has no header of MATLAB 5")
    if version == _VERSION_73:
        raise ValueError("it is of MATLAB 7.3, which is HDF5")
    return _Reader(order).variables(memoryview(data)[_HEADER:])


class _Reader:
    """What one file may still take: bytes to unpack and arrays to make. `order` is < or >, as numpy has it."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.bytes_left, self.arrays_left = MAX_UNPACKED, MAX_ARRAYS

    def variables(self, data: memoryview) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for kind, body in self._elements(data):
            if kind == _COMPRESSED:
                kind, body = self._unpacked(body)
            if kind != _ARRAY:
                raise ValueError(f"an element of type {kind} where a variable should be")
            name, value = self._array(body, 1)
            if name in found:
                raise ValueError(f"variable {name!r:.40} is there twice")
            if name:  # what has none is the workspace of function handles
                found[name] = value
        return found

    def _elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """(type, data) of one after the other. An element of up to four bytes has them in its tag."""
        place = 0
        while place < len(data):
            kind, size, start = *self._tag(data, place), place + _TAG
            if kind >> 16:
                kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
                if size > 4:
                    raise ValueError(f"{size} bytes of data in a tag, which has room for 4")
            if start + size > len(data):
                raise ValueError(_CUT)
            yield kind, data[start : start + size]
            # Only compressed elements are not filled up.
            place = start + size if kind == _COMPRESSED else -(-(start + size) // _TAG) * _TAG

    def _tag(self, data: memoryview, place: int) -> tuple[int, int]:
        if place + _TAG > len(data):
            raise ValueError(_CUT)
        kind, size = np.frombuffer(data, f"{self.order}u4", 2, place)
        return int(kind), int(size)

    def _unpacked(self, packed: memoryview) -> tuple[int, memoryview]:
        """The one array of a compressed element: its tag says the size, so that no more is unpacked than allowed."""
        stream = zlib.decompressobj()
        kind, size = self._tag(memoryview(stream.decompress(packed, _TAG)), 0)
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise ValueError(f"its variables unpack to more than {MAX_UNPACKED} bytes")
        body, place = bytearray(size), 0  # zlib's own growing and joining would take twice the memory
        while place < size and (piece := stream.decompress(stream.unconsumed_tail, min(_CHUNK, size - place))):
            body[place : place + len(piece)] = piece
            place += len(piece)
        beyond = stream.decompress(stream.unconsumed_tail, 1)  # reads the checksum, too
        if place != size or beyond or not stream.eof:
            raise ValueError("a compressed variable has another size than its tag says")
        return kind, memoryview(body).toreadonly()

    def _array(self, data: memoryview, depth: int) -> tuple[str, Any]:
        """Name and value of an array; one of no bytes is empty, as MATLAB writes cells that were never filled."""
        self.arrays_left -= 1
        if self.arrays_left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_ARRAYS} arrays, or more than {MAX_DEPTH} of them within each other")
        if not data:
            return "", np.zeros((0, 0))
        parts = self._elements(data)
        flags = self._integers(parts)
        if len(flags) != 2:
            raise ValueError(f"{len(flags)} array flags; there should be 2")
        kind = flags[0] & 0xFF
        if kind not in (_CELLS, _STRUCTURE, _TEXT, *_NUMERIC):
            return "", None
        shape, name = self._integers(parts), self._text(parts)
        if len(shape) < 2 or min(shape) < 0:
            raise ValueError(f"an array of the dimensions {shape[:8]}")
        if kind in _NUMERIC:
            value: Any = self._numbers(parts, shape)
            return name, value + 1j * self._numbers(parts, shape) if flags[0] & _COMPLEX else value
        if kind == _TEXT:
            text, rows = self._text(parts), shape[0]
            return name, text if rows <= 1 else [text[row::rows] for row in range(min(rows, len(text)))]
        if kind == _CELLS:
            return name, [self._inner(parts, depth) for _ in range(math.prod(shape))]
        return name, self._structures(parts, shape, depth)

    def _structures(self, parts: Iterator[tuple[int, memoryview]], shape: list[int], depth: int) -> Any:
        length, names = self._integers(parts), self._text(parts)
        if len(length) != 1 or length[0] < 1 or len(names) % length[0]:
            raise ValueError(f"{len(names)} bytes of field names of {length[:8]} bytes each")
        fields = [names[at : at + length[0]].split("\0")[0] for at in range(0, len(names), length[0])]
        if len(set(fields)) < len(fields):
            raise ValueError("two fields of one name")
        count = math.prod(shape)
        if not fields and count > 1:
            raise ValueError(f"{count} structures without fields")
        entries = [{field: self._inner(parts, depth) for field in fields} for _ in range(count)]
        return entries[0] if count == 1 else entries

    def _inner(self, parts: Iterator[tuple[int, memoryview]], depth: int) -> Any:
        kind, data = _next(parts)
        if kind != _ARRAY:
            raise ValueError(f"an element of type {kind} where an array should be")
        return self._array(data, depth + 1)[1]

    def _numbers(self, parts: Iterator[tuple[int, memoryview]], shape: list[int]) -> Any:
        kind, data = _next(parts)
        if kind not in _NUMBERS:
            raise ValueError(f"an element of type {kind} where numbers should be")
        dtype = np.dtype(self.order + _NUMBERS[kind])
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{len(data)} bytes of numbers for an array of {shape[:8]}, {dtype.itemsize} bytes each")
        return np.frombuffer(data, dtype).reshape(shape, order="F").astype(dtype.newbyteorder("="), copy=False)

    def _integers(self, parts: Iterator[tuple[int, memoryview]]) -> list[int]:
        kind, data = _next(parts)
        if kind not in (5, 6) or len(data) % 4:
            raise ValueError(f"{len(data)} bytes of type {kind} where whole numbers of 32 bits should be")
        return [int(number) for number in np.frombuffer(data, self.order + _NUMBERS[kind])]

    def _text(self, parts: Iterator[tuple[int, memoryview]]) -> str:
        kind, data = _next(parts)
        if kind not in _TEXTS:
            raise ValueError(f"an element of type {kind} where text should be")
        wide = "" if kind in (1, 2, 16) else "-le" if self.order == "<" else "-be"
        return bytes(data).decode(_TEXTS[kind] + wide)


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    for part in parts:
        return part
    raise ValueError(_CUT)
