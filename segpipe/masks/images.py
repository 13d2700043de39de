"""Encoded photographs and label images at the border: JPEG and PNG, checked before a decoder or a model sees them.

Header first (container, size, rotation), then a full decode; label images keep every id. Part of the room `masks`.
Letter legend: H W image size in pixels; arrays are row-major, pixel (x, y) is array[y, x].
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, JpegImagePlugin, PngImagePlugin

from segpipe.errors import BadSampleError
from segpipe.masks.bombs import refuse_empty_vastness, refuse_endless_jpeg, refuse_endless_png
from segpipe.masks.looks import look_at
from segpipe.types import ImageLook

MAX_PIXELS = 200_000_000
IMAGE_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_ORIENTATION_TAG = 0x0112
_JPEG_START = b"\xff\xd8\xff"
# What Pillow's JPEG and PNG readers raise on damaged bytes (seen by fuzzing); anything else is a bug and may surface.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    AttributeError,
    struct.error,
    zlib.error,
)

Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


class ImageHeader(NamedTuple):
    """What the header of an encoded image says: size in pixels as stored, container, EXIF orientation (1 = upright)."""

    width: int
    height: int
    format: str
    orientation: int


def read_image_header(data: bytes, *, file: str, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Size, format and EXIF orientation of a JPEG or PNG, without decoding a pixel. Raises BadSampleError."""
    _container(data, file)
    return _quick_header(data, file, max_pixels) or _open(data, file, max_pixels)[1]


def check_header(data: bytes, *, file: str, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """The header of a JPEG or PNG that may be a photograph, without decoding a pixel.

    Raises BadSampleError: truncated, unreadable, format_not_allowed, too_large, or exif_rotated (image bytes are stored
    as shipped, so a camera's rotation tag would turn the image away from its mask).
    """
    _container(data, file)
    return _quick_header(data, file, max_pixels) or _photograph(data, file, max_pixels)[1]


def check_image(data: bytes, *, file: str, max_pixels: int = MAX_PIXELS) -> ImageLook:
    """Decodes a photograph fully, once, and says what it looks like. Raises BadSampleError as `check_header`."""
    image, _ = _photograph(data, file, max_pixels)
    with decoding(file):
        image.load()
        _require_upright(_orientation(image), file)  # a PNG may carry its EXIF behind the pixels
        return look_at(image)


def read_rgb(data: bytes, *, file: str) -> npt.NDArray[np.uint8]:
    """The pixels (H, W, 3) of a JPEG or PNG that `check_image` let pass; grey spread over the three, alpha dropped.

    Unlike the checks, it may be called from several threads at once. Raises BadSampleError(truncated | unreadable).
    """
    reader = JpegImagePlugin.JpegImageFile if data.startswith(_JPEG_START) else PngImagePlugin.PngImageFile
    try:
        if reader is JpegImagePlugin.JpegImageFile and (pixels := _jpeg_rgb(data)) is not None:
            return pixels
        with reader(io.BytesIO(data)) as image:
            image.info.pop("transparency", None)  # of a palette, Pillow would warn that RGB cannot say it
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except _DAMAGE as error:
        raise _damaged(error, file) from error


def _jpeg_rgb(data: bytes) -> npt.NDArray[np.uint8] | None:
    """The pixels of a JPEG straight from libjpeg-turbo: Pillow's own, in four fifths of its time.

    None where libjpeg has something to say about the bytes: what of that is harmless is Pillow's to decide.
    """
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError:
        return None
    return pixels


def read_label_image(
    data: bytes, *, file: str, palette: Mapping[tuple[int, int, int], int] | None = None, max_pixels: int = MAX_PIXELS
) -> Labels:
    """The raw ids (H, W) of a PNG mask: modes 1, L, P (the index, not the colour) as uint8, 16-bit grey as uint16,
    RGB through `palette` (colour -> raw id) as uint16.

    Raises BadSampleError(mask_mode | label_out_of_range | format_not_allowed | truncated | unreadable | too_large).
    """
    image, header = _open(data, file, max_pixels)
    if header.format != "PNG":
        raise BadSampleError(
            "format_not_allowed", file, f"the mask is a {header.format}, which loses ids; expected a PNG"
        )
    depth, colour_type = data[24], data[25]
    _require_8_bit_colours(image, depth, file)
    if image.mode not in ("1", "L", "P", "I;16") and not (image.mode == "RGB" and palette):
        coloured = ", or give each class its `colour` in classes.json" if image.mode == "RGB" else ""
        raise BadSampleError(
            "mask_mode", file, f"mask mode {image.mode}; expected 1, L, P or 16-bit grey: save it as such{coloured}"
        )
    with decoding(file):
        pixels = np.asarray(image)
    if image.mode == "RGB":
        return _ids_of_colours(pixels, palette or {}, file)
    if colour_type == 0 and depth in (2, 4):
        pixels = pixels // (85 if depth == 2 else 17)  # Pillow stretches 2- and 4-bit grey to 0..255
    return pixels.astype(np.uint16) if image.mode == "I;16" else pixels.astype(np.uint8)


def read_id_image(data: bytes, *, file: str, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint32]:
    """The ids (H, W) of an RGB PNG as COCO's panoptic format writes them: red + 256 * green + 65536 * blue.

    Raises BadSampleError(mask_mode | format_not_allowed | truncated | unreadable | too_large).
    """
    image, header = _open(data, file, max_pixels)
    if header.format != "PNG" or image.mode != "RGB":
        raise BadSampleError("mask_mode", file, f"a {header.format} of mode {image.mode}; expected an RGB PNG of ids")
    _require_8_bit_colours(image, data[24], file)
    with decoding(file):
        pixels = np.asarray(image)
    return pixels.astype(np.uint32) @ np.array([1, 256, 65536], dtype=np.uint32)


def map_labels(labels: Labels, table: Mapping[int, int], *, file: str) -> Labels:
    """Raw ids (H, W) -> class ids by `table`; uint8 where every class id fits, else uint16.

    Raises BadSampleError(label_out_of_range) naming the first value that is not in the table, its count and its place.
    """
    # One byte a pixel each, where one table of both would take four: masks can be large.
    known = np.zeros(256 if labels.dtype == np.uint8 else 65536, dtype=np.bool_)
    lookup: npt.NDArray[Any] = np.zeros(known.size, np.uint8 if max(table.values(), default=0) <= 255 else np.uint16)
    for raw, class_id in table.items():
        if 0 <= raw < lookup.size:
            known[raw], lookup[raw] = True, class_id
    if not (fits := known[labels]).all():
        y, x = divmod(int(fits.argmin()), labels.shape[1])
        value, raws = labels[y, x], sorted(table)
        raise BadSampleError(
            "label_out_of_range",
            file,
            f"label {int(value)} in {int((labels == value).sum())} pixels, first at x={x}, y={y}; known raw labels are "
            f"{raws if len(raws) <= 12 else f'{raws[0]}..{raws[-1]}'}: add it to the classes, or "
            'have it ignored (source folder: option ignore, or "ignore": true in classes.json)',
        )
    mapped: Labels = lookup[labels]
    return mapped


def _ids_of_colours(pixels: npt.NDArray[Any], palette: Mapping[tuple[int, int, int], int], file: str) -> Labels:
    codes = pixels.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)
    items = sorted((red * 65536 + green * 256 + blue, raw) for (red, green, blue), raw in palette.items())
    known = np.array([code for code, _ in items], dtype=np.int32)
    place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    if (unknown := known[place] != codes).any():
        y, x = np.argwhere(unknown)[0]
        count = int((codes == codes[y, x]).sum())
        raise BadSampleError(
            "label_out_of_range",
            file,
            f"colour {tuple(int(c) for c in pixels[y, x])} in {count} pixels, first at x={x}, y={y}, is not one of the "
            f"{len(known)} colours of the classes file: add it there, or save masks without smoothing",
        )
    return np.array([raw for _, raw in items], dtype=np.uint16)[place]


def _open(data: bytes, file: str, max_pixels: int) -> tuple[Image.Image, ImageHeader]:
    """Parses the header with the one reader that the first bytes name (never Pillow's own guessing over 40 formats)."""
    jpeg = _container(data, file) == "JPEG"
    (refuse_endless_jpeg if jpeg else refuse_endless_png)(data, file)
    with decoding(file):
        # The classes rather than Image.open: its own pixel limit warns at 89 Mpx and is set by a global.
        stream = io.BytesIO(data)
        image = JpegImagePlugin.JpegImageFile(stream) if jpeg else PngImagePlugin.PngImageFile(stream)
        orientation = _orientation(image)
    width, height = image.size
    _limit(width, height, file, max_pixels)
    return image, ImageHeader(width, height, "JPEG" if jpeg else "PNG", orientation)


def _container(data: bytes, file: str) -> str:
    """ "JPEG" or "PNG" by the first bytes of a file that has its last ones."""
    if not data:
        raise BadSampleError("truncated", file, "the file is empty (0 bytes): fetch it again")
    jpeg, png = data.startswith(_JPEG_START), data.startswith(b"\x89PNG\r\n\x1a\n")
    if not jpeg and not png:
        raise BadSampleError("format_not_allowed", file, f"starts with {data[:8]!r}; expected a JPEG or a PNG file")
    if data.rfind(b"\xff\xd9" if jpeg else b"IEND", -65536) < 0:
        raise BadSampleError("truncated", file, f"no end marker in its {len(data)} bytes: fetch the file again")
    return "JPEG" if jpeg else "PNG"


def _quick_header(data: bytes, file: str, max_pixels: int) -> ImageHeader | None:
    """The header of a plain file, in a tenth of the time that Pillow takes to open it.

    None for all else (EXIF, CMYK, 16-bit grey, damage), which Pillow has to look at.
    """
    if data.startswith(_JPEG_START):
        size, container = _plain_jpeg(data), "JPEG"
    else:
        size, container = _plain_png(data), "PNG"
    if size is None:
        return None
    _limit(*size, file, max_pixels)
    return ImageHeader(*size, container, 1)


def _plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height, by libjpeg-turbo, where no segment before the pixels may hold EXIF (APP1)."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xe1", b"\xda"):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if data[at : at + 2] != b"\xff\xda":  # the pixels begin
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    except ValueError:
        return None
    return (width, height) if colours in ("Gray", "YCbCr", "RGB") else None


def _plain_png(data: bytes) -> tuple[int, int] | None:
    """Width and height, where the first chunk is whole and none before the pixels holds EXIF."""
    at, seen = 8, []
    while (chunk := data[at + 4 : at + 8]) and chunk not in (b"IDAT", b"eXIf"):
        seen.append(chunk)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    if chunk != b"IDAT" or seen[:1] != [b"IHDR"] or zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        return None
    width, height, depth, colour_type = struct.unpack(">IIBB", data[16:26])
    return None if (depth, colour_type) == (16, 0) else (width, height)


def _limit(width: int, height: int, file: str, max_pixels: int) -> None:
    if not 0 < width * height <= max_pixels:
        raise BadSampleError(
            "too_large", file, f"{width}x{height} pixels; allowed are 1 to {max_pixels}: scale it down"
        )


def _photograph(data: bytes, file: str, max_pixels: int) -> tuple[Image.Image, ImageHeader]:
    image, header = _open(data, file, max_pixels)
    if image.mode not in IMAGE_MODES:
        raise BadSampleError(
            "format_not_allowed", file, f"pixel mode {image.mode}; expected 8 bits a channel, grey or RGB: convert it"
        )
    _require_upright(header.orientation, file)
    refuse_empty_vastness(data, header.width * header.height, image.mode, file)
    return image, header


def _require_8_bit_colours(image: Image.Image, depth: int, file: str) -> None:
    # Pillow drops the lower byte of each channel of 16 bits, and so would make other ids.
    if image.mode == "RGB" and depth != 8:
        raise BadSampleError("mask_mode", file, f"an RGB mask of {depth} bits a channel; expected 8: save it as such")


def _require_upright(orientation: int, file: str) -> None:
    if orientation != 1:
        raise BadSampleError(
            "exif_rotated",
            file,
            f"EXIF orientation {orientation}; expected 1: rotate the pixels and drop the tag "
            "(e.g. PIL.ImageOps.exif_transpose), and check that the mask matches",
        )


def _orientation(image: Image.Image) -> int:
    # Not image.getexif(): for a PNG it decodes every pixel to look for EXIF behind them, and it remembers its answer.
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    value = exif.get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


@contextmanager
def decoding(file: str) -> Iterator[None]:
    """Turns what Pillow raises on damaged bytes into BadSampleError; for the readers of this room."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only pixels matter here
            yield
    except _DAMAGE as error:
        raise _damaged(error, file) from error


def _damaged(error: Exception, file: str) -> BadSampleError:
    reason = "truncated" if "truncated" in str(error) else "unreadable"
    return BadSampleError(reason, file, f"{error}: the bytes are damaged, fetch the file again")
