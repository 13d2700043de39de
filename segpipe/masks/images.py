"""Encoded photographs and label images at the border: JPEG and PNG, checked before a model sees them.

The header was checked (`headers`), then comes a full decode; label images keep every id. Part of the room `masks`.
Letter legend: H W image size in pixels; arrays are row-major, pixel (x, y) is array[y, x].
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, JpegImagePlugin, PngImagePlugin

from segpipe.errors import BadSampleError
from segpipe.masks.headers import (
    DAMAGE,
    MAX_PIXELS,
    damaged,
    decoding,
    open_image,
    open_photograph,
    orientation_of,
    read_image_header,
    require_upright,
)
from segpipe.masks.jpeg import JPEG_START
from segpipe.masks.looks import look_at
from segpipe.types import IGNORE_8BIT, ImageLook

Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
# EXIF's orientations (version 2.32, tag 274): which way rows and columns are read, and whether exchanged before.
_TURNS = {
    2: (1, -1, False),
    3: (-1, -1, False),
    4: (-1, 1, False),
    5: (1, 1, True),
    6: (1, -1, True),
    7: (-1, -1, True),
    8: (-1, 1, True),
}


def check_image(data: bytes, *, file: str, max_pixels: int = MAX_PIXELS) -> ImageLook:
    """Decodes a photograph fully, once, and says what it looks like. Raises BadSampleError as `check_header`."""
    image, _ = open_photograph(data, file, max_pixels)
    with decoding(file):
        image.load()
        require_upright(orientation_of(image), file)  # a PNG may carry its EXIF behind the pixels
        return look_at(image)


def read_rgb(data: bytes, *, file: str) -> npt.NDArray[np.uint8]:
    """The pixels (H, W, 3) of a JPEG or PNG that `check_image` let pass; grey spread over the three, alpha dropped.

    Unlike the checks, it may be called from several threads at once. Raises BadSampleError(truncated | unreadable).
    """
    reader = JpegImagePlugin.JpegImageFile if data.startswith(JPEG_START) else PngImagePlugin.PngImageFile
    try:
        if reader is JpegImagePlugin.JpegImageFile and (pixels := _jpeg_rgb(data)) is not None:
            return pixels
        with reader(io.BytesIO(data)) as image:
            image.info.pop("transparency", None)  # of a palette, Pillow would warn that RGB cannot say it
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except DAMAGE as error:
        raise damaged(error, file) from error


def read_upright(data: bytes, *, file: str) -> npt.NDArray[np.uint8]:
    """The pixels (H, W, 3) of a JPEG or PNG as it is shown: what `read_rgb` gives, turned once as its header says.

    For images without a mask, which a `turned` check let pass: whoever took them with a telephone wants their answers
    as they see them. Raises as `read_rgb`.
    """
    pixels_HW3 = read_rgb(data, file=file)
    orientation = read_image_header(data, file=file).orientation
    if orientation == 1:
        return pixels_HW3
    rows, columns, is_on_its_side = _TURNS[orientation]
    turned = pixels_HW3.swapaxes(0, 1) if is_on_its_side else pixels_HW3
    return np.ascontiguousarray(turned[::rows, ::columns])


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
    RGB through `palette` (colour -> raw id) as uint16. An empty palette is one that its user may still fill.

    Raises BadSampleError(mask_mode | label_out_of_range | format_not_allowed | truncated | unreadable | too_large).
    """
    image, header = open_image(data, file, max_pixels)
    if header.format != "PNG":
        raise BadSampleError(
            "format_not_allowed", file, f"the mask is a {header.format}, which loses ids; expected a PNG"
        )
    depth, colour_type = data[24], data[25]
    _require_8_bit_colours(image, depth, file)
    if image.mode not in ("1", "L", "P", "I;16") and not (image.mode == "RGB" and palette):
        coloured = (
            ", or give each class its `colour` in classes.json" if image.mode == "RGB" and palette is not None else ""
        )
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
    image, header = open_image(data, file, max_pixels)
    if header.format != "PNG" or image.mode != "RGB":
        raise BadSampleError("mask_mode", file, f"a {header.format} of mode {image.mode}; expected an RGB PNG of ids")
    _require_8_bit_colours(image, data[24], file)
    with decoding(file):
        pixels = np.asarray(image)
    return pixels.astype(np.uint32) @ np.array([1, 256, 65536], dtype=np.uint32)


def map_labels(labels: Labels, table: Mapping[int, int], *, file: str, own: str = "") -> Labels:
    """Raw ids (H, W) -> class ids by `table`; uint8 where every class id fits, else uint16.

    `own` names the file in which the user says what the labels are, beside the options ignore and reduce_zero; without
    it the labels are those of a published format.

    Raises BadSampleError(label_out_of_range) naming the first value that is not in the table, its count and its place.
    """
    # One byte a pixel each, where one table of both would take four: masks can be large.
    known = np.zeros(256 if labels.dtype == np.uint8 else 65536, dtype=np.bool_)
    lookup: npt.NDArray[Any] = np.zeros(known.size, np.uint8 if max(table.values(), default=0) <= 255 else np.uint16)
    for raw, class_id in table.items():
        if 0 <= raw < lookup.size:
            known[raw], lookup[raw] = True, class_id
    if not (fits := _looked_up(known, labels)).all():
        y, x = divmod(int(fits.argmin()), labels.shape[1])
        value, raws = labels[y, x], sorted(table)
        classes = [raw for raw in raws if raw != IGNORE_8BIT]
        # The commonest mistake of all, and to ignore the value instead would give every pixel the class beside its own.
        shifted = value == len(classes) and classes == list(range(len(classes))) and not (labels == 0).any()
        remedy = "mend the mask (labels of your own are for the source folder)"
        if own:
            hint = "it counts from 1 (option reduce_zero=true), or " if shifted else ""
            remedy = f"{hint}add it to {own}, or have it ignored (option ignore)"
        raise BadSampleError(
            "label_out_of_range",
            file,
            f"label {int(value)} in {int((labels == value).sum())} pixels, first at x={x}, y={y}; known raw labels are "
            f"{raws if len(raws) <= 12 else _runs(raws)}: {remedy}",
        )
    return _looked_up(lookup, labels)


def _looked_up(table: npt.NDArray[Any], labels: Labels) -> npt.NDArray[Any]:
    """`table[labels]`. Of bytes to bytes in a third of NumPy's time, which makes indices of eight bytes first."""
    if table.itemsize == labels.itemsize == 1:
        found = bytearray(np.ascontiguousarray(labels)).translate(table.tobytes())
        return np.frombuffer(found, table.dtype).reshape(labels.shape)
    return table.take(labels)


def _runs(values: Sequence[int]) -> str:
    """`0..20, 255`: sorted values with runs of neighbours drawn together, and no more than four of those."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:3], f"and so on to {values[-1]}"])


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


def _require_8_bit_colours(image: Image.Image, depth: int, file: str) -> None:
    # Pillow drops the lower byte of each channel of 16 bits, and so would make other ids.
    if image.mode == "RGB" and depth != 8:
        raise BadSampleError("mask_mode", file, f"an RGB mask of {depth} bits a channel; expected 8: save it as such")
