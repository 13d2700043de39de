"""MATLAB's .mat files, as a few old benchmarks ship their lists and masks. Part of `reading`.

scipy reads them without running anything; it is there because MLflow brings it, and costs its import only here.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import struct
import zlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from segpipe import storage
from segpipe.errors import BadSampleError, InputError
from segpipe.orphans import end_with_parent
from segpipe.sources.reading.files import inside, read_file, without_root

MAX_BYTES = 256 * 2**20
# PASCAL's masks of one image have some tens of megabytes unpacked; zlib can make a thousand bytes of one.
MAX_UNPACKED = 512 * 2**20
_HEADER, _TAG, _COMPRESSED, _CHUNK = 128, 8, 15, 2**20


def read_matlab(root: str, path: str) -> dict[str, Any]:
    """The variables of a .mat file (version 5) by name, as numpy arrays. Raises InputError."""
    uri = inside(root, path)
    return _parse(storage.read_bytes(uri, limit=MAX_BYTES), uri)


def read_matlab_of_sample(root: str, path: str) -> dict[str, Any]:
    """The variables of one sample's annotation; structures are dictionaries. Raises BadSampleError."""
    data = read_file(root, path, missing="missing_mask")
    try:
        return _parse(data, path, simplify_cells=True)
    except InputError as error:
        raise BadSampleError("unreadable", path, without_root(error, root, path)) from error


def _parse(data: bytes, where: str, **how: bool) -> dict[str, Any]:
    """What scipy reads, in a process of its own: its reader is C, and a damaged file can make it crash."""
    try:
        _refuse_bombs(data)
        return _reader().submit(_read, data, how or {"squeeze_me": True}).result()
    except BrokenProcessPool:
        _reader.cache_clear()
        problem = "its reader crashes over it"
    except (ValueError, zlib.error) as error:
        problem = str(error)
    raise InputError(f"{where}: {problem}; expected a MATLAB 5 file: fetch it again")


@functools.cache
def _reader() -> ProcessPoolExecutor:
    """One reader for all files, since it takes a second to start; it ends with this process."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent)


def _read(data: bytes, how: dict[str, bool]) -> dict[str, Any]:
    """Raises ValueError, whatever scipy raises: over damaged files that can be anything, an UnboundLocalError too."""
    import scipy.io

    try:
        return dict(scipy.io.loadmat(io.BytesIO(data), **how))
    except Exception as error:  # noqa: BLE001 - of MATLAB 7.3, which is HDF5, scipy says that it is not implemented
        raise ValueError(f"{error}") from None


def _refuse_bombs(data: bytes) -> None:
    """Raises ValueError where the compressed variables of the file unpack to more than any of the benchmarks'."""
    order = ">" if data[126:128] == b"MI" else "<"
    place, unpacked = _HEADER, 0
    while place + _TAG <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind == _COMPRESSED:
            stream, rest = zlib.decompressobj(), data[place + _TAG : place + _TAG + size]
            while rest and unpacked <= MAX_UNPACKED:
                unpacked += len(stream.decompress(rest, _CHUNK))
                rest = stream.unconsumed_tail
        if unpacked > MAX_UNPACKED:
            raise ValueError(f"its variables unpack to more than {MAX_UNPACKED} bytes")
        place += _TAG + size
