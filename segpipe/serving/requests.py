"""What a request holds: images as arrays or as encoded files, and the objects that are told beside them.

All of it comes from outside, so that each part is checked before anything is made of it; what is wrong is refused with
a sentence. Encoded images are decoded one after the other, when the model comes to them: a request of some megabytes
may hold images of many gigabytes.

Legend: N images, H W size in pixels, M objects of an image.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from segpipe import masks
from segpipe.data.batch import GivenObjects
from segpipe.errors import BadSampleError

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

MAX_IMAGE_PIXELS = 2**25
# A box is a few bytes of a request and costs a look. All pixels of what is cut out for it are averaged: a side of
# 8,192 (the width of the largest image of 2:1) took 4 s of one core and 4.4 GiB, and both grow with its square.
MAX_BOX_SIDE = 2**13
MAX_BOXES = 512


def refusal(message: str) -> MlflowException:
    """A wrong request: HTTP 400 with this sentence when served."""
    return _refusal_type()(message)


@functools.cache
def _refusal_type() -> type[MlflowException]:
    # Where MLflow serves it is there. A process that only answers need not pay the seconds of CPU that it imports for.
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    class Refusal(MlflowException):
        def __init__(self, message: str) -> None:
            self._sentence = message
            super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

        @property
        def message(self) -> str:
            return self._sentence

        @message.setter
        def message(self, _: str) -> None:
            """Stays: MLflow's server would put the whole request before the sentence, megabytes of an image."""

    return Refusal


class Part(NamedTuple):
    """Images of one `size` (H, W), which `read` gives as uint8 (number, H, W, 3)."""

    number: int
    size: tuple[int, int]
    read: Callable[[], Tensor]


class Images(NamedTuple):
    """The images of a request, in order. `of_sizes`: they came one by one, and may be of several sizes; `encoded`:
    as files."""

    parts: tuple[Part, ...]
    of_sizes: bool
    encoded: bool

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each image."""
        return [part.size for part in self.parts for _ in range(part.number)]


def images_of(value: Any) -> Images:
    """The images of an array, of a list of arrays, of one encoded image or a list of such. Raises MlflowException."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, str | bytes):
        value = [value]
    if not isinstance(value, list) and not _is_list_of_images(value):
        return Images((_array_part(value, 4),), of_sizes=False, encoded=False)
    is_text = [isinstance(each, str | bytes) for each in value]
    if any(is_text) and not all(is_text):
        raise refusal("images both as base64 text and as arrays; expected one or the other in a request")
    parts = [_encoded_part(at, each) if any(is_text) else _array_part(each, 3) for at, each in enumerate(value)]
    return Images(tuple(parts), of_sizes=True, encoded=any(is_text))


def _is_list_of_images(value: Any) -> bool:
    """Whether an array is one of objects: MLflow makes such of JSON, also where images are of one height alone."""
    return isinstance(value, np.ndarray) and (
        value.ndim == 1 or (value.dtype == object and value.size > 0 and isinstance(value.flat[0], list))
    )


def _array_part(value: Any, dimensions: int) -> Part:
    """The images of `value`, an array with `dimensions` axes whose last one is RGB."""
    expected = f"expected uint8 of shape {'(N, H, W, 3)' if dimensions == 4 else '(H, W, 3)'}, RGB from 0 to 255"
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == object):
        value = _of_json(value, expected)
    shape, dtype = getattr(value, "shape", None), str(getattr(value, "dtype", type(value).__name__))
    if shape is None or dtype != "uint8":
        raise refusal(
            f"images of type {dtype}; {expected}, or base64 text of JPEG or PNG files. Do not scale or normalise them: "
            "the model does that"
        )
    if len(shape) != dimensions or shape[-1] != 3:
        raise refusal(f"images of shape {tuple(shape)}; {expected}")
    height, width = shape[-3:-1]
    _require_size(height, width, "images")
    images_NHW3 = value if dimensions == 4 else value[None]
    if not images_NHW3.flags.writeable:
        images_NHW3 = images_NHW3.copy()  # torch would warn
    return Part(len(images_NHW3), (height, width), functools.partial(torch.as_tensor, images_NHW3))


def _of_json(value: Any, expected: str) -> Any:
    """Nested lists of whole numbers from 0 to 255 as an array of bytes; every other array as it is."""
    try:
        found = np.array(value.tolist() if isinstance(value, np.ndarray) else value)
    except ValueError:
        raise refusal(f"an image whose rows are of several lengths; {expected}") from None
    if found.dtype.kind not in "iu":
        return found
    low, high = int(found.min(initial=0)), int(found.max(initial=0))
    if low < 0 or high > 255:
        raise refusal(f"a pixel of {low if low < 0 else high}; {expected}")
    return found.astype(np.uint8)


def _encoded_part(at: int, text: str | bytes) -> Part:
    """One image: base64 of a JPEG or PNG file, whose header is read now and whose pixels are when they are needed."""
    name = f"image {at}"
    data = text if isinstance(text, bytes) else _file_of(text, name)
    try:
        header = masks.check_header(data, file=name, max_pixels=MAX_IMAGE_PIXELS, turned=True)
    except BadSampleError as error:
        raise refusal(str(error)) from None
    return Part(1, header.upright_size, functools.partial(_decoded, data, name))


def _file_of(text: str, name: str) -> bytes:
    """The bytes that base64 text stands for; also as browsers write it, `data:image/png;base64,...`, and in lines."""
    coded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(coded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise refusal(
            f"{name}: {text[:40]!r}{'...' * (len(text) > 40)} is no base64; expected that of a JPEG or PNG file "
            "(base64 -w0 FILE)"
        ) from None


def _decoded(data: bytes, name: str) -> Tensor:
    try:
        return torch.from_numpy(masks.read_upright(data, file=name))[None]
    except BadSampleError as error:
        raise refusal(str(error)) from None


def _require_size(height: int, width: int, what: str) -> None:
    if not 1 <= height * width <= MAX_IMAGE_PIXELS:
        raise refusal(
            f"{what} of {height} x {width} pixels; expected 1 to {MAX_IMAGE_PIXELS} pixels: send smaller tiles"
        )


def parted(value: Any, told: Sequence[str]) -> list[Any]:
    """The images of a request and what it tells of them, in the order of `told`. Raises MlflowException."""
    names = ("images", *told)
    if not isinstance(value, Mapping) or set(value) != set(names):
        found = f"the keys {sorted(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
        raise refusal(
            f"input of {found}; this model is told which objects to look at: expected the keys {', '.join(names)}"
        )
    return [value[name] for name in names]


def given_objects(told: Sequence[Any], sizes: Sequence[tuple[int, int]], num_classes: int) -> list[GivenObjects]:
    """What a request tells of images of `sizes` (H, W): boxes, and class ids where it must. Raises MlflowException."""
    boxes, *class_ids = (_plain(each) for each in told)
    for name, lists in (("boxes", boxes), *(("class_ids", each) for each in class_ids)):
        if not isinstance(lists, list) or len(lists) != len(sizes):
            found = f"{len(lists)} lists" if isinstance(lists, list) else f"{lists!r:.80}"
            raise refusal(f"{name}: {found} for {len(sizes)} images; expected a list for each image, empty or not")
    num_boxes = sum(len(each) for each in boxes if isinstance(each, list))
    if num_boxes > MAX_BOXES:
        raise refusal(f"boxes: {num_boxes} in one request; expected at most {MAX_BOXES}: send fewer images at a time")
    made = []
    for at, (size, boxes_M4) in enumerate(zip(sizes, boxes, strict=True)):
        is_list = isinstance(boxes_M4, list)
        wrong = [box for box in boxes_M4 if not _is_box(box, size)] if is_list else [boxes_M4]
        if wrong:
            height, width = size
            raise refusal(
                f"boxes of image {at}: {wrong[0]!r:.80}; expected [x0, y0, x1, y1] of each object in pixels, x0 < x1 "
                f"and y0 < y1, not outside of its {height} x {width} pixels, x from {-width} to {2 * width}, y from "
                f"{-height} to {2 * height}, and no side above {MAX_BOX_SIDE}"
            )
        ids_M = class_ids[0][at] if class_ids else None
        if ids_M is not None and not _are_classes(ids_M, len(boxes_M4), num_classes):
            raise refusal(
                f"class_ids of image {at}: {ids_M!r:.80}; expected one for each of its {len(boxes_M4)} boxes, from 0 "
                f"to {num_classes - 1}"
            )
        made.append(
            GivenObjects(
                boxes_M4=torch.tensor(boxes_M4, dtype=torch.float64).reshape(-1, 4),
                class_ids_M=None if ids_M is None else torch.tensor(ids_M, dtype=torch.int64),
            )
        )
    return made


def _plain(value: Any) -> Any:
    """Arrays, and tuples, as the lists that JSON has; all else as it is."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _is_box(box: Any, size: tuple[int, int]) -> bool:
    height, width = size
    if not isinstance(box, list) or len(box) != 4 or any(type(side) not in (int, float) for side in box):
        return False
    x0, y0, x1, y1 = box
    return all(  # NaN is nowhere
        -extent <= low < high <= 2 * extent and low < extent and high > 0 and high - low <= MAX_BOX_SIDE
        for low, high, extent in ((x0, x1, width), (y0, y1, height))
    )


def _are_classes(ids_M: Any, num_boxes: int, num_classes: int) -> bool:
    fits = isinstance(ids_M, list) and len(ids_M) == num_boxes
    return fits and all(type(k) is int and 0 <= k < num_classes for k in ids_M)
