"""HDF5, as MATLAB 7.3 saves arrays that outgrew its own format. Part of `reading`, and the only file with h5py.

h5py costs half a second to import, which only who reads such a file pays. A hostile file could point to others on this
machine: links, external storage and virtual datasets are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading.files import inside

_CACHE_BYTES = 64 * 2**20  # a chunk may span several images: decompress it once for all of them
# A megabyte can unpack to a thousand: what one read may need is looked up before it is read.
_MAX_BYTES = 512 * 2**20
_MAX_NAME = 1000


class Arrays:
    """The arrays of one HDF5 file below a source's root, read slice by slice.

    Cheap to make and to pickle: the file is opened when it is first read, and stays open.
    """

    def __init__(self, root: str, path: str) -> None:
        self._root, self._path = root, path
        self._file: Any = None

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
            return np.asarray(array[place])

    def texts(self, name: str) -> list[str]:
        """A MATLAB cell array of character rows."""
        with self._reading():
            cells = self._array(name)
            if cells.dtype.kind != "O":
                raise InputError(f"{self._root}/{self._path}: {name} is no cell array of texts: fetch the file again")
            self._require_small(name, cells.size * cells.dtype.itemsize)
            return [self._text(name, cell) for cell in np.asarray(cells).ravel()]

    def _text(self, name: str, cell: Any) -> str:
        letters = self._checked(name, self._file[cell])
        if letters.size > _MAX_NAME or letters.dtype.kind != "u":
            raise InputError(f"{self._root}/{self._path}: {name} holds a cell of {letters.shape} that is no text")
        return "".join(map(chr, np.asarray(letters).ravel().tolist()))

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
        self._require_small(name, int(np.prod(array.chunks or (1,), dtype=object)) * array.dtype.itemsize)
        return array

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
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(
                f"{self._root}/{self._path}: {error}; expected MATLAB 7.3 (HDF5): fetch the file again"
            ) from error
