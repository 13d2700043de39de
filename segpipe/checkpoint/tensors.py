"""Tensors <-> the bytes of a safetensors file, which are what their hash says. Below `steps.py` and `bundle.py`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from segpipe import storage
from segpipe.errors import CorruptError

WEIGHTS = "weights.safetensors"


def pack(tensors: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file of these tensors, on the CPU whatever device they are on."""
    # Contiguous copies: safetensors refuses views and channels-last strides.
    as_stored = partial(torch.Tensor.to, device="cpu", memory_format=torch.contiguous_format, copy=True)
    return to_safetensors({key: as_stored(tensor.detach()) for key, tensor in tensors.items()}, metadata)


def unpack(data: bytes, path: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which errors call `path`. Raises CorruptError."""
    try:
        return from_safetensors(data)
    except SafetensorError as error:
        raise CorruptError(f"{path}: not a safetensors file: {error}") from None


def read_verified(path: str, sha256: str) -> bytes:
    """The bytes of a file with this hash. Raises CorruptError for another one, InputError when it is missing."""
    data = storage.read_bytes(path)
    require_sha256(path, storage.sha256_bytes(data), sha256)
    return data


def require_sha256(path: str, found: str, expected: str) -> None:
    """Raises CorruptError where the hash that was found is not the one expected."""
    if found != expected:
        raise CorruptError(
            f"{path}: SHA-256 is {found[:12]}, expected {expected[:12]}; the file was changed or damaged"
        )


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or Inf."""
    bad = (key for key, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all())
    return next(bad, None)
