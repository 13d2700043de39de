"""Label Studio's run lengths of a brush: bits of an RGBA picture, of which the alpha channel is the mask.

Layout (`label_studio_converter/brush.py`, which follows thi.ng/rle-pack): 32 bits how many values follow, 5 bits the
size of a value - 1, four times 4 bits the size of a length - 1; then runs: 1 bit whether one value is repeated, 2 bits
which of the four sizes its length has, the length - 1, and the value, or as many values as the length says. Values go
row by row, four a pixel. Part of the room `masks`.

Letter legend: H W image size in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import BadSampleError
from segpipe.masks.coco import Mask

_CHANNELS, _ALPHA, _VALUE_BITS = 4, 3, 8
_LENGTH_BITS = (3, 4, 8, 16)  # of a run; what Label Studio itself writes
_HEADER_BITS = 32 + 5 + 4 * 4
# The dearest way to spell a value is a run of its own: 1 + 2 + 16 + 8 bits, less than four bytes.
_MOST_BYTES_A_VALUE = 4


def encode_brush(mask_HW: npt.ArrayLike) -> list[int]:
    """The bytes, as numbers, of a (H, W) mask, non-zero = inside, as `value.rle` of a brush label holds them."""
    inside = (np.asarray(mask_HW) != 0).ravel()
    edges = np.concatenate(([0], np.flatnonzero(inside[1:] != inside[:-1]) + 1, [inside.size]))
    bits = [f"{_CHANNELS * inside.size:032b}", f"{_VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        value, left = 255 if inside[start] else 0, _CHANNELS * (stop - start)
        while left:
            length = min(left, 1 << _LENGTH_BITS[-1])
            kind = next(at for at, size in enumerate(_LENGTH_BITS) if length <= 1 << size)
            bits.append(f"1{kind:02b}{length - 1:0{_LENGTH_BITS[kind]}b}{value:08b}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_brush(rle: Any, height: int, width: int, *, file: str = "brush") -> Mask:
    """The (H, W) uint8 mask (0 or 1) of a brush label, a list of bytes or these; any alpha above 0 is inside.

    Raises BadSampleError(bad_annotation) for what is no list of bytes, of another size than the image's, or ends too
    early; nothing is reserved before the size is known to fit.
    """
    values = _CHANNELS * height * width
    data = _bytes_of(rle, _MOST_BYTES_A_VALUE * values + _HEADER_BITS, file)
    head = int.from_bytes(data[:7], "big") >> 3 if len(data) >= 7 else 0  # 53 bits
    told, value_bits = head >> 21, (head >> 16 & 31) + 1
    if told != values or value_bits != _VALUE_BITS:
        raise _bad(
            file,
            f"{told} values of {value_bits} bits; expected {values} of {_VALUE_BITS}, four a pixel of {height}x{width}",
        )
    sizes = [(head >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    found, at, place = np.empty(values, dtype=np.uint8), _HEADER_BITS, 0
    while place < values:
        repeats, kind = _number(data, at, 1), _number(data, at + 1, 2)
        length = _number(data, at + 3, sizes[kind]) + 1
        at += 3 + sizes[kind]
        end = at + _VALUE_BITS * (1 if repeats else length)
        if end > 8 * len(data):
            raise _bad(file, f"ends after {place} of {values} values")
        stop = min(place + length, values)  # rle-pack, too, cuts off what a last run says behind the end
        around = np.frombuffer(data[at >> 3 : (end + 7) >> 3], dtype=np.uint8)
        spelled = np.packbits(np.unpackbits(around)[at & 7 : (at & 7) + end - at])
        found[place:stop] = spelled[0] if repeats else spelled[: stop - place]
        at, place = end, stop
    alpha_HW = found.reshape(height, width, _CHANNELS)[..., _ALPHA]
    return (alpha_HW > 0).astype(np.uint8)


def _bytes_of(rle: Any, most: int, file: str) -> bytes:
    if not isinstance(rle, list | bytes) or len(rle) > most:
        raise _bad(file, f"{rle!r:.60}; expected a list of at most {most} bytes")
    try:
        return bytes(rle)
    except (TypeError, ValueError) as error:
        raise _bad(file, f"{rle!r:.60}; expected whole numbers from 0 to 255") from error


def _number(data: bytes, at: int, bits: int) -> int:
    """The number that `bits` (at most 16) bits spell from bit `at` on; bits behind the end are 0."""
    first = at >> 3
    window = int.from_bytes(data[first : first + 4].ljust(4, b"\0"), "big")
    return window >> (32 - (at & 7) - bits) & ((1 << bits) - 1)


def _bad(file: str, detail: str) -> BadSampleError:
    return BadSampleError("bad_annotation", file, f"run lengths of a brush: {detail}: export the annotation again")
