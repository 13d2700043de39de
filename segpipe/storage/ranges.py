"""Reading parts of a remote object: one range request at a time with its own retries, a bounded number in flight.

Below `files.py` (a seekable stream) and `cache.py` (a whole object, piece by piece).
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

from segpipe.storage import object_store
from segpipe.storage.budget import RetryBudget

READ_BUFFER_BYTES = 256 * 1024
# S3's guidance is 8 to 16 MiB a request, several at once; 8 of 8 MiB hold 64 MiB of memory.
PIECE_BYTES = 8 << 20
REQUESTS_AT_ONCE = 8
NO_SUCH_RANGE = 416
_in_flight = threading.BoundedSemaphore(REQUESTS_AT_ONCE)


def beginning(uri: str, most: int) -> bytes:
    """The first `most` bytes of an object, or all of one that has fewer. Raises as `object_store.attempt`."""

    def request(filesystem: Any, path: str) -> bytes:
        try:
            return bytes(filesystem.cat_file(path, start=0, end=most))
        except Exception as error:
            if object_store.status_of(error) == NO_SUCH_RANGE:  # the answer to any range of an empty object
                return b""
            raise

    return object_store.attempt(uri, request)


def read_range(uri: str, start: int, stop: int, size: int, *, budget: RetryBudget | None = None) -> bytes:
    """Bytes `start` to `stop` of an object of `size` bytes. Raises as `object_store.attempt`."""

    def request(filesystem: Any, path: str) -> bytes:
        data = bytes(filesystem.cat_file(path, start=start, end=stop))
        # A web server that knows no ranges sends the whole file.
        return _exactly(data[start:stop] if len(data) == size else data, stop - start)

    return object_store.attempt(uri, request, budget=budget, turn=_in_flight)


def pieces(uri: str, size: int, *, budget: RetryBudget | None = None) -> Iterator[bytes]:
    """An object of `size` bytes from its beginning, in pieces: a fault costs a piece and not the whole."""
    for start in range(0, size, PIECE_BYTES):
        yield read_range(uri, start, min(size, start + PIECE_BYTES), size, budget=budget)


def open_read(
    uri: str, *, size: int | None = None, budget: RetryBudget | None = None, buffer: int | None = None
) -> io.BufferedReader:
    """A seekable file; each read is one range request of `buffer` bytes or more. Asks for the size if none is given."""
    if size is None:
        size = object_store.attempt(uri, lambda filesystem, path: int(filesystem.size(path)), budget=budget)
    return io.BufferedReader(_RemoteFile(uri, size, budget), buffer or READ_BUFFER_BYTES)


class _RemoteFile(io.RawIOBase):
    """fsspec's own file would read 50 MB ahead of every row group, and its errors would not be ours."""

    def __init__(self, uri: str, size: int, budget: RetryBudget | None) -> None:
        self._uri, self._size, self._budget = uri, size, budget
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer).cast("B")
        start, stop = self._position, min(self._size, self._position + len(wanted))
        if stop <= start:
            return 0
        data = read_range(self._uri, start, stop, self._size, budget=self._budget)
        wanted[: len(data)] = data
        self._position = stop
        return len(data)


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ConnectionError(f"short body: {len(data)} of {size} bytes")
    return data
