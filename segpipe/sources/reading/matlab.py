"""MATLAB's .mat files, as a few old benchmarks ship their lists and masks. Part of `reading`.

scipy reads them without running anything; it is there because MLflow brings it, and costs its import only here.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading.files import inside

MAX_BYTES = 256 * 2**20


def read_matlab(root: str, path: str) -> dict[str, Any]:
    """The variables of a .mat file (version 5) by name, as numpy arrays. Raises InputError."""
    import scipy.io
    from scipy.io.matlab import MatReadError

    uri = inside(root, path)
    try:
        return dict(scipy.io.loadmat(io.BytesIO(storage.read_bytes(uri, limit=MAX_BYTES)), squeeze_me=True))
    # Of MATLAB 7.3, which is HDF5, scipy says that it is not implemented, by a RuntimeError.
    except (MatReadError, ValueError, TypeError, RuntimeError, OSError, zlib.error) as error:
        raise InputError(f"{uri}: {error}; expected a MATLAB 5 file: fetch it again") from error
