"""The headers of encoded images, JPEG and PNG: container, size and rotation, before a pixel is decoded.

What belongs to one file ends as BadSampleError with its reason. Part of the room `masks`.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import Image, JpegImagePlugin, PngImagePlugin

from segpipe.errors import BadSampleError
from segpipe.masks.bombs import CHEAP_PIXELS, refuse_empty_vastness, refuse_endless_jpeg, refuse_endless_png
from segpipe.masks.jpeg import JPEG_START, JpegHead, read_jpeg_head

MAX_PIXELS = 200_000_000
IMAGE_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_ORIENTATION_TAG = 0x0112
_ON_ITS_SIDE = 5  # EXIF orientations from here on exchange rows and columns
# What Pillow's JPEG and PNG readers raise on damaged bytes (seen by fuzzing); anything else is a bug and may surface.
DAMAGE = (
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


class ImageHeader(NamedTuple):
    """What the header of an encoded image says: size in pixels as stored, container, EXIF orientation (1 = upright)."""

    width: int
    height: int
    format: str
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) as the image is shown: `read_upright` gives as many rows and columns."""
        return (self.width, self.height) if self.orientation >= _ON_ITS_SIDE else (self.height, self.width)


def read_image_header(data: bytes, *, file: str, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Size, format and EXIF orientation of a JPEG or PNG, without decoding a pixel. Raises BadSampleError."""
    return _quick_header(data, file, max_pixels) or open_image(data, file, max_pixels)[1]


def check_header(data: bytes, *, file: str, max_pixels: int = MAX_PIXELS, turned: bool = False) -> ImageHeader:
    """The header of a JPEG or PNG that may be a photograph, without decoding a pixel.

    Raises BadSampleError: truncated, unreadable, format_not_allowed, too_large, or exif_rotated (image bytes are stored
    as shipped, so a camera's rotation tag would turn the image away from its mask). A `turned` one has no mask, and
    passes: `read_upright` reads it.
    """
    return _quick_header(data, file, max_pixels) or open_photograph(data, file, max_pixels, turned=turned)[1]


def open_photograph(
    data: bytes, file: str, max_pixels: int, *, turned: bool = False
) -> tuple[Image.Image, ImageHeader]:
    image, header = open_image(data, file, max_pixels)
    if image.mode not in IMAGE_MODES:
        raise BadSampleError(
            "format_not_allowed", file, f"pixel mode {image.mode}; expected 8 bits a channel, grey or RGB: convert it"
        )
    if not turned:
        require_upright(header.orientation, file)
    refuse_empty_vastness(data, header.width * header.height, image.mode, file)
    return image, header


def open_image(data: bytes, file: str, max_pixels: int) -> tuple[Image.Image, ImageHeader]:
    """Parses the header with the one reader that the first bytes name (never Pillow's own guessing over 40 formats)."""
    jpeg = _is_jpeg(data, file)
    if not jpeg:
        refuse_endless_png(data, file)
    elif (head := read_jpeg_head(data)) is None or not head.one_scan:
        refuse_endless_jpeg(data, file)
    with decoding(file):
        # The classes rather than Image.open: its own pixel limit warns at 89 Mpx and is set by a global.
        stream = io.BytesIO(data)
        image = JpegImagePlugin.JpegImageFile(stream) if jpeg else PngImagePlugin.PngImageFile(stream)
        orientation = orientation_of(image)
    width, height = image.size
    _limit(width, height, file, max_pixels)
    return image, ImageHeader(width, height, "JPEG" if jpeg else "PNG", orientation)


def _is_jpeg(data: bytes, file: str) -> bool:
    """JPEG rather than PNG, by the first bytes of a file that has its last ones too. Raises BadSampleError."""
    if not data:
        raise BadSampleError("truncated", file, "the file is empty (0 bytes): fetch it again")
    jpeg = data.startswith(JPEG_START)
    if not jpeg and not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise BadSampleError("format_not_allowed", file, f"starts with {data[:8]!r}; expected a JPEG or a PNG file")
    if data.rfind(b"\xff\xd9" if jpeg else b"IEND", -65536) < 0:
        raise BadSampleError("truncated", file, f"no end marker in its {len(data)} bytes: fetch the file again")
    return jpeg


def _quick_header(data: bytes, file: str, max_pixels: int) -> ImageHeader | None:
    """The header of a plain file, in a hundredth of the time that Pillow takes to open it.

    None for all else (EXIF, several scans, CMYK, 16-bit grey, vast images, damage), which Pillow has to look at.
    """
    if jpeg := _is_jpeg(data, file):
        size = _plain_jpeg(read_jpeg_head(data))
    else:
        refuse_endless_png(data, file)
        size = _plain_png(data)
    if size is None or size[0] * size[1] > CHEAP_PIXELS:
        return None
    _limit(*size, file, max_pixels)
    return ImageHeader(*size, "JPEG" if jpeg else "PNG", 1)


def _plain_jpeg(head: JpegHead | None) -> tuple[int, int] | None:
    """Width and height, where nothing may turn the image and no further scan follows."""
    if head is None or head.app1 or not head.one_scan or head.channels not in (1, 3):
        return None
    return head.width, head.height


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


def require_upright(orientation: int, file: str) -> None:
    if orientation != 1:
        raise BadSampleError(
            "exif_rotated",
            file,
            f"EXIF orientation {orientation}; expected 1: rotate the pixels and drop the tag "
            "(e.g. PIL.ImageOps.exif_transpose), and check that the mask matches",
        )


def orientation_of(image: Image.Image) -> int:
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
    except DAMAGE as error:
        raise damaged(error, file) from error


def damaged(error: Exception, file: str) -> BadSampleError:
    reason = "truncated" if "truncated" in str(error) else "unreadable"
    return BadSampleError(reason, file, f"{error}: the bytes are damaged, fetch the file again")
