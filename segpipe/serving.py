"""What a registered model does when MLflow loads it: the loader module named in its `MLmodel` file.

MLflow imports this module (where segpipe is not installed, from the copy that was logged with the model) and calls
`_load_pyfunc` with the folder of the bundle: `weights.safetensors` and a strict `model.json`. Nothing is unpickled.

Legend: N images, H W size in pixels, K classes, M objects of an image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from torch import Tensor, nn

from segpipe.answers import UNCERTAINTY, answer_of
from segpipe.checkpoint import load_model
from segpipe.data.batch import Batch, GivenObjects
from segpipe.errors import InputError
from segpipe.predictions import LabelMap, Prediction
from segpipe.tasks import TASKS
from segpipe.tasks.memory import numbers_of_image
from segpipe.types import IGNORE_8BIT, ModelBundle

# Bounds what one request may take, in numbers of 4 bytes as `tasks/memory.py` counts them: a pass of several images
# (1 GiB), and one image, which may have a pass to itself (32 GiB: the largest one, by a network of 48 classes).
NUMBERS_PER_PASS, MAX_NUMBERS = 2**28, 2**33
MAX_IMAGE_PIXELS = 2**25
# A box is a few bytes of a request and costs a look. All pixels of what is cut out for it are averaged: a side of
# 8,192 (the width of the largest image of 2:1) took 4 s of one core and 4.4 GiB, and both grow with its square.
MAX_BOX_SIDE = 2**13
MAX_BOXES = 512


class Predictor:
    """A loaded model behind MLflow's `predict`."""

    def __init__(self, model: nn.Module, bundle: ModelBundle, *, most_numbers: float = math.inf) -> None:
        """`most_numbers`, of 4 bytes each: what an image of a request may take at most, where that is less than
        `MAX_NUMBERS`."""
        self._model, self._bundle, self._most_numbers = model, bundle, most_numbers
        self._ops = TASKS[bundle.task](bundle.classes, bundle.ignore_index)
        self._told = self._ops.told(bundle)
        self._known_params = {UNCERTAINTY} if bundle.inference.samples else set[str]()

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """What the model says of images: uint8 array (N, H, W, 3), RGB 0..255, any N, H, W.

        Class ids of a semantic model go back as uint8 (N, H, W), int32 if K > 255; every other task answers with a list
        of one dict an image (`answers.py`). Images of several sizes come as a one-dimensional object array or a list of
        (H, W, 3) arrays, and their answers go back as a list. A model that must be told of objects takes a dict of
        "images", "boxes" ([x0, y0, x1, y1] in pixels of each object, a list an image) and, where it knows objects of
        several classes, "class_ids". A box shares pixels with its image, reaches at most once the image's size beyond
        each edge and has no side above MAX_BOX_SIDE; a request has at most MAX_BOXES of them.

        A model that looks several times with dropout on takes `params` {"uncertainty": True} and then answers with a
        list of one dict an image: its class ids as "labels", and "uncertainty", float32 (H, W) in 0..0.25.

        Raises MlflowException (HTTP 400 when served) for any other shape or type.
        """
        unsure = self._asks_uncertainty(params or {})
        images, *told = _parted(model_input, self._told) if self._told else (model_input,)
        of_sizes = isinstance(images, list) or getattr(images, "ndim", 0) == 1
        parts = [_images_NHW3(image, 3)[None] for image in images] if of_sizes else [_images_NHW3(images, 4)]
        sizes = [(part.shape[1], part.shape[2]) for part in parts for _ in part]
        given = _given(told, sizes, len(self._bundle.classes)) if self._told else None
        taken = [self._numbers(size, None if given is None else given[at]) for at, size in enumerate(sizes)]
        answers: list[Any] = []
        for part in parts:
            of_part = slice(len(answers), len(answers) + len(part))
            own = None if given is None else given[of_part]
            found = self._predictions(part, own, max(taken[of_part], default=1))
            answers += [answer_of(each, uncertainty=unsure) for each in found]
        if of_sizes or unsure or self._ops.prediction is not LabelMap:
            return answers
        ids = np.uint8 if len(self._bundle.classes) <= IGNORE_8BIT else np.int32
        return np.stack(answers) if answers else np.empty((0, *parts[0].shape[1:3]), dtype=ids)

    def _asks_uncertainty(self, params: Mapping[str, Any]) -> bool:
        if unknown := sorted(set(params) - self._known_params):
            known = f"takes {', '.join(self._known_params)}" if self._known_params else "takes none"
            raise _refusal(f"unknown parameters {unknown}; this model {known}")
        asked = params.get(UNCERTAINTY, False)
        if not isinstance(asked, bool | np.bool_):
            raise _refusal(f"parameter {UNCERTAINTY}: {asked!r:.80}; expected true or false")
        return bool(asked)

    def _numbers(self, size: tuple[int, int], given: GivenObjects | None) -> float:
        """What an image takes of `NUMBERS_PER_PASS`. Raises MlflowException where no machine is expected to have it."""
        num_boxes = 0 if given is None else len(given.boxes_M4)
        numbers = numbers_of_image(self._bundle, *size, num_boxes=num_boxes)
        most = min(MAX_NUMBERS, self._most_numbers)
        if numbers > most:
            boxes = f" with {num_boxes} boxes" if num_boxes else ""
            raise _refusal(
                f"an image of {size[0]} x {size[1]} pixels{boxes}: this model, as it looks at images, would take about "
                f"{numbers / 2**28:.3g} GiB for it; expected at most {most / 2**28:.3g}: send smaller tiles"
                f"{', or fewer boxes at a time' if num_boxes else ''}"
            )
        return numbers

    def _predictions(
        self, images_NHW3: Tensor, given: Sequence[GivenObjects] | None, numbers: float
    ) -> list[Prediction]:
        """Of images of one size, each of which takes at most `numbers`."""
        num_images, height, width, _ = images_NHW3.shape
        per_pass = max(1, int(min(NUMBERS_PER_PASS, self._most_numbers) / numbers))
        found: list[Prediction] = []
        with torch.inference_mode():
            for start in range(0, num_images, per_pass):
                part = images_NHW3[start : start + per_pass]
                batch = Batch(
                    images_N3HW=part.permute(0, 3, 1, 2),
                    labels_NHW=None,
                    sample_ids=tuple(str(start + i) for i in range(len(part))),
                    original_sizes=((height, width),) * len(part),
                    given=None if given is None else tuple(given[start : start + per_pass]),
                )
                try:
                    found += self._ops.predict(self._model, batch, self._bundle)
                except InputError as error:
                    raise _refusal(str(error)) from None
        return found


def may_be_asked(bundle: ModelBundle, size: tuple[int, int], boxes: Sequence[Sequence[float]] = ()) -> bool:
    """Whether a request to a served model may hold an image of this size (H, W) and these boxes, were it not for
    `$SEGPIPE_REQUEST_GIB`."""
    return (
        1 <= size[0] * size[1] <= MAX_IMAGE_PIXELS
        and len(boxes) <= MAX_BOXES
        and all(_is_box(list(box), size) for box in boxes)
        and numbers_of_image(bundle, *size, num_boxes=len(boxes)) <= MAX_NUMBERS
    )


def _load_pyfunc(data_path: str) -> Predictor:
    """Called by MLflow with the bundle's folder. Raises CorruptError when the weights are not the registered ones."""
    model, bundle = load_model(data_path, device="cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(model, bundle, most_numbers=_asked_limit())


def _asked_limit() -> float:
    """What `$SEGPIPE_REQUEST_GIB` allows an image of a request to take, in numbers of 4 bytes; any where it is not set.
    Raises InputError where it is no size."""
    text = os.environ.get("SEGPIPE_REQUEST_GIB") or "inf"
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit > 0:
        raise InputError(f"SEGPIPE_REQUEST_GIB={text!r}: expected GiB above 0, such as 4 or 0.5")
    return limit * 2**28


def _images_NHW3(value: Any, dimensions: int) -> Tensor:
    """A uint8 tensor of `value`, an array with `dimensions` axes whose last one is RGB. Raises MlflowException."""
    expected = f"expected uint8 of shape {'(N, H, W, 3)' if dimensions == 4 else '(H, W, 3)'}, RGB from 0 to 255"
    shape, dtype = getattr(value, "shape", None), str(getattr(value, "dtype", type(value).__name__))
    if shape is None or dtype != "uint8":
        raise _refusal(f"images of type {dtype}; {expected}. Do not scale or normalise them: the model does that")
    if len(shape) != dimensions or shape[-1] != 3:
        raise _refusal(f"images of shape {tuple(shape)}; {expected}")
    height, width = shape[-3:-1]
    if not 1 <= height * width <= MAX_IMAGE_PIXELS:
        raise _refusal(
            f"images of {height} x {width} pixels; expected 1 to {MAX_IMAGE_PIXELS} pixels: send smaller tiles"
        )
    return torch.as_tensor(value if value.flags.writeable else value.copy())


def _parted(value: Any, told: Sequence[str]) -> list[Any]:
    """The images of a request and what it tells of them, in the order of `told`. Raises MlflowException."""
    names = ("images", *told)
    if not isinstance(value, Mapping) or set(value) != set(names):
        found = f"the keys {sorted(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
        raise _refusal(
            f"input of {found}; this model is told which objects to look at: expected the keys {', '.join(names)}"
        )
    return [value[name] for name in names]


def _given(told: Sequence[Any], sizes: Sequence[tuple[int, int]], num_classes: int) -> list[GivenObjects]:
    """What a request tells of images of `sizes` (H, W): boxes, and class ids where it must. Raises MlflowException."""
    boxes, *class_ids = (_plain(each) for each in told)
    for name, lists in (("boxes", boxes), *(("class_ids", each) for each in class_ids)):
        if not isinstance(lists, list) or len(lists) != len(sizes):
            found = f"{len(lists)} lists" if isinstance(lists, list) else f"{lists!r:.80}"
            raise _refusal(f"{name}: {found} for {len(sizes)} images; expected a list for each image, empty or not")
    num_boxes = sum(len(each) for each in boxes if isinstance(each, list))
    if num_boxes > MAX_BOXES:
        raise _refusal(f"boxes: {num_boxes} in one request; expected at most {MAX_BOXES}: send fewer images at a time")
    given = []
    for at, (size, boxes_M4) in enumerate(zip(sizes, boxes, strict=True)):
        is_list = isinstance(boxes_M4, list)
        wrong = [box for box in boxes_M4 if not _is_box(box, size)] if is_list else [boxes_M4]
        if wrong:
            height, width = size
            raise _refusal(
                f"boxes of image {at}: {wrong[0]!r:.80}; expected [x0, y0, x1, y1] of each object in pixels, x0 < x1 "
                f"and y0 < y1, not outside of its {height} x {width} pixels, x from {-width} to {2 * width}, y from "
                f"{-height} to {2 * height}, and no side above {MAX_BOX_SIDE}"
            )
        ids_M = class_ids[0][at] if class_ids else None
        if ids_M is not None and not _are_classes(ids_M, len(boxes_M4), num_classes):
            raise _refusal(
                f"class_ids of image {at}: {ids_M!r:.80}; expected one for each of its {len(boxes_M4)} boxes, from 0 "
                f"to {num_classes - 1}"
            )
        given.append(
            GivenObjects(
                boxes_M4=torch.tensor(boxes_M4, dtype=torch.float64).reshape(-1, 4),
                class_ids_M=None if ids_M is None else torch.tensor(ids_M, dtype=torch.int64),
            )
        )
    return given


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


def _refusal(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
