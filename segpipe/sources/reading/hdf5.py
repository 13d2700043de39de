"""HDF5, as MATLAB 7.3 saves arrays that outgrew its own format. Part of `reading`, and the only file with h5py.

h5py costs half a second to import, which only who reads such a file pays. A hostile file could point to others on this
machine: links, external storage and virtual datasets are refused. And libhdf5 believes what a file says of itself (each
of these was seen, with 2.0): it crashes in filters with odd settings, and unpacks a chunk to whatever its stream holds.
So filters are those that MATLAB writes, and what a chunk unpacks to is counted before HDF5 may unpack it.
"""

from __future__ import annotations

import itertools
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading.files import inside

_CACHE_BYTES = 64 * 2**20  # a chunk may span several images: decompress it once for all of them
# A megabyte can unpack to a thousand: what one read may need is looked up before it is read.
_MAX_BYTES = 128 * 2**20
_MAX_NAME, _MAX_TEXTS = 1000, 100_000
_MAX_CHUNKS = 10_000  # for one read: each is a look-up
_DEFLATE, _SHUFFLE, _CHECKSUM = 1, 2, 3  # HDF5's numbers of filters
_CHECKSUM_BYTES = 4
_PIECE_BYTES = 1 << 20


class Arrays:
    """The arrays of one HDF5 file below a source's root, read slice by slice.

    Cheap to make and to pickle: the file is opened when it is first read, and stays open.
    """

    def __init__(self, root: str, path: str) -> None:
        self._root, self._path = root, path
        self._file: Any = None
        self._counted: dict[str, set[int]] = defaultdict(set)  # array -> the first rows of chunks that are sound

    def __reduce__(self) -> tuple[Any, ...]:
        return Arrays, (self._root, self._path)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array. Raises InputError where there is no such array, as all methods do."""
        with self._reading():
            return tuple(self._array(name).shape)

    def item(self, name: str, place: int, *, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The array at `place` of the first axis, of this `kind` ("u1", "f4": letter and bytes) and shape."""
        with self._reading():
            array = self._array(name)
            found = f"{array.dtype.kind}{array.dtype.itemsize}"
            if found != kind or array.shape[1:] != shape or not 0 <= place < array.shape[0]:
                raise InputError(
                    f"{self._root}/{self._path}: {name}[{place}] of an array {array.shape} of {array.dtype}; expected "
                    f"{shape} of kind {kind!r} at that place: fetch the file again"
                )
            self._require_small(name, int(np.prod(shape, dtype=object)) * array.dtype.itemsize)
            if array.chunks is not None and (row := place - place % array.chunks[0]) not in self._counted[name]:
                self._require_sound(name, array, range(row, row + 1))
                self._counted[name].add(row)
            return np.asarray(array[place])

    def texts(self, name: str) -> list[str]:
        """A MATLAB cell array of character rows."""
        with self._reading():
            cells = self._array(name)
            # By a text for a reference, HDF5 would follow links.
            if not _holds_references(cells) or cells.size > _MAX_TEXTS:
                raise InputError(
                    f"{self._root}/{self._path}: {name} of {cells.shape} is no cell array of texts, at most "
                    f"{_MAX_TEXTS:,}: fetch the file again"
                )
            return [self._text(name, cell) for cell in self._whole(name, cells).ravel()]

    def _text(self, name: str, cell: Any) -> str:
        letters = self._checked(name, self._file[cell])
        if letters.size > _MAX_NAME or letters.dtype.kind != "u":
            raise InputError(
                f"{self._root}/{self._path}: {name} holds a cell of {letters.shape} of {letters.dtype}; expected a "
                f"text of at most {_MAX_NAME} letters: fetch the file again"
            )
        return "".join(map(chr, self._whole(name, letters).ravel().tolist()))

    def _whole(self, name: str, array: Any) -> npt.NDArray[Any]:
        """All of a small array."""
        if array.chunks is not None:
            self._require_sound(name, array, range(0, array.shape[0], array.chunks[0]))
        return np.asarray(array)

    def _array(self, name: str) -> Any:
        import h5py

        if self._file is None:
            uri = inside(self._root, self._path)
            path = storage.local_path(uri)
            if path is not None and path.exists() and not path.is_file():
                raise InputError(f"{uri}: is not a regular file: remove it or replace it by one")
            self._file = h5py.File(path or storage.open_read(uri), "r", rdcc_nbytes=_CACHE_BYTES)
        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            raise InputError(f"{self._root}/{self._path}: has no array {name}; expected it in the file: fetch it again")
        return self._checked(name, self._file[name])

    def _checked(self, name: str, array: Any) -> Any:
        import h5py

        if not isinstance(array, h5py.Dataset) or array.external or array.is_virtual:
            raise InputError(f"{self._root}/{self._path}: {name} is no array of its own file: fetch the file again")
        self._require_small(name, _chunk_bytes(array))
        filters = _filters(array)
        # In another order the checksum or the shuffling would be of packed bytes; twice packed is packed a millionfold.
        order = [number for number in filters if number != _CHECKSUM]
        known = order in ([], [_DEFLATE], [_SHUFFLE], [_SHUFFLE, _DEFLATE]) and len(filters) <= len(order) + 1
        if not known or filters.get(_SHUFFLE, array.dtype.itemsize) != array.dtype.itemsize:
            raise InputError(
                f"{self._root}/{self._path}: {name} went through filters {filters} (number: first setting); expected "
                f"deflate ({_DEFLATE}), shuffle ({_SHUFFLE}) of {array.dtype.itemsize} bytes before it, or none: "
                "save the file anew with MATLAB"
            )
        return array

    def _require_sound(self, name: str, array: Any, rows: range) -> None:
        """Raises InputError unless each chunk that begins in `rows` unpacks to what the array says.

        Chunks are looked up one by one: in a list of them, HDF5 would follow a circle until the stack is full.
        """
        filters, expected = _filters(array), _chunk_bytes(array)
        places = {number: 1 << place for place, number in enumerate(filters)}
        firsts = [rows, *(range(0, size, chunk) for size, chunk in zip(array.shape[1:], array.chunks[1:], strict=True))]
        if (count := int(np.prod([len(first) for first in firsts], dtype=object))) > _MAX_CHUNKS:
            raise InputError(
                f"{self._root}/{self._path}: {name} is read in {count:,} chunks of {array.chunks} at once; allowed are "
                f"{_MAX_CHUNKS:,}: is this the published file?"
            )
        for first in itertools.product(*firsts):
            try:
                skipped, data = array.id.read_direct_chunk(first)
            except (RuntimeError, MemoryError):  # what was never stored and reads as zeros, or HDF5 will say it again
                continue
            done = {number for number, place in places.items() if not skipped & place}
            found = _unpacked(data, expected + _CHECKSUM_BYTES) if _DEFLATE in done else len(data)
            # Unpacking does not tell of a checksum behind the stream; one before it was packed, too.
            behind = _DEFLATE in done and _CHECKSUM in done and places[_CHECKSUM] > places[_DEFLATE]
            if found != expected + (_CHECKSUM_BYTES if _CHECKSUM in done and not behind else 0):
                raise InputError(
                    f"{self._root}/{self._path}: the chunk at {first} of {name} holds {found:,} bytes or more; "
                    f"expected {expected:,}: fetch the file again"
                )

    def _require_small(self, name: str, num_bytes: int) -> None:
        if num_bytes > _MAX_BYTES:
            raise InputError(
                f"{self._root}/{self._path}: {name} takes {num_bytes:,} bytes at once; allowed are {_MAX_BYTES:,}: is "
                "this the published file?"
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, zlib.error) as error:
            raise InputError(
                f"{self._root}/{self._path}: {error}; expected MATLAB 7.3 (HDF5): fetch the file again"
            ) from error


def _holds_references(array: Any) -> bool:
    import h5py

    return h5py.check_ref_dtype(array.dtype) is h5py.Reference


def _chunk_bytes(array: Any) -> int:
    return int(np.prod(array.chunks or (1,), dtype=object)) * int(array.dtype.itemsize)


def _filters(array: Any) -> Mapping[int, int | None]:
    """Number of each filter of an array -> its first setting, in the order of writing."""
    made = array.id.get_create_plist()
    filters = [made.get_filter(place) for place in range(made.get_nfilters())]
    found = {number: values[0] if values else None for number, _, values, _ in filters}
    if len(found) != len(filters):
        raise ValueError(f"a filter is applied twice: {[number for number, *_ in filters]}")
    return found


def _unpacked(data: bytes, most: int) -> int:
    """How many bytes a zlib stream holds, counted piece by piece until they are more than `most`."""
    stream, count = zlib.decompressobj(), 0
    while count <= most and not stream.eof:
        piece = stream.decompress(data, _PIECE_BYTES)
        data = stream.unconsumed_tail
        if not piece:
            raise ValueError("a compressed chunk is cut short")
        count += len(piece)
    return count
