"""What a registered model does when MLflow loads it: the loader module named in its `MLmodel` file.

MLflow imports this module (where segpipe is not installed, from the copy that was logged with the model) and calls
`_load_pyfunc` with the folder of the bundle: `weights.safetensors` and a strict `model.json`. Nothing is unpickled.

    requests.py   what comes: arrays, encoded images, boxes; checked, and refused with a sentence
    replies.py    what goes: masks as PNG or run lengths, classes, areas, confidences

Legend: N images, H W size in pixels, K classes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segpipe.answers import AUTO, MASK, UNCERTAINTY, answer_of
from segpipe.checkpoint import load_model
from segpipe.data.batch import Batch, GivenObjects
from segpipe.errors import InputError
from segpipe.predictions import Beside, LabelMap, Prediction
from segpipe.serving.replies import reply_of
from segpipe.serving.requests import MAX_IMAGE_PIXELS, Images, are_boxes, given_objects, images_of, parted
from segpipe.tasks import TASKS
from segpipe.tasks.memory import numbers_of_image
from segpipe.types import IGNORE_8BIT, ModelBundle

__all__ = ["MAX_IMAGE_PIXELS", "Predictor", "may_be_asked"]
# Bounds what one request may take, in numbers of 4 bytes as `tasks/memory.py` counts them: a pass of several images
# (1 GiB), and one image, which may have a pass to itself (32 GiB: the largest one, by a network of 48 classes).
NUMBERS_PER_PASS, MAX_NUMBERS = 2**28, 2**33


class Predictor:
    """A loaded model behind MLflow's `predict`."""

    def __init__(self, model: nn.Module, bundle: ModelBundle, *, most_numbers: float = math.inf) -> None:
        """`most_numbers`, of 4 bytes each: what an image of a request may take at most, where that is less than
        `MAX_NUMBERS`."""
        self._model, self._bundle, self._most_numbers = model, bundle, most_numbers
        self._ops = TASKS[bundle.task](bundle.classes, bundle.ignore_index)
        self._told = self._ops.told(bundle)
        self._known_params = {MASK, UNCERTAINTY} if bundle.inference.samples else {MASK}

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """What the model says of images, of any number and size: JPEG or PNG files as base64 text, one or a list, or a
        uint8 array (N, H, W, 3), RGB 0..255; arrays of several sizes come as a one-dimensional object array or a list
        of (H, W, 3).

        `params` {"mask": "png"} or {"mask": "rle"} asks for a list of one dict an image, with masks as PNG or run
        lengths, classes, areas and confidences (`replies.py`); encoded images are answered so by themselves, with PNG.
        {"mask": "ids"} asks for plain numbers, as arrays are answered by themselves: class ids of a semantic model as
        uint8 (N, H, W), int32 if K > 255, as a list where images came one by one; every other task answers with a list
        of one dict an image (`answers.py`).

        A model that must be told of objects takes a dict of "images", "boxes" ([x0, y0, x1, y1] in pixels of each
        object, a list an image) and, where it knows objects of several classes, "class_ids". A box shares pixels with
        its image, reaches at most once the image's size beyond each edge and has no side above MAX_BOX_SIDE; a request
        has at most MAX_BOXES of them.

        A model that looks several times with dropout on takes `params` {"uncertainty": True} and then answers with a
        list of one dict an image, "uncertainty" in it, float32 (H, W) in 0..0.25, beside its class ids as "labels" or
        what "mask" asks for.

        Raises serving.refusal.Refusal, an MlflowException (HTTP 400 when served), for any other shape, type or file.
        """
        try:
            return self._answered(model_input, params or {})
        except InputError as error:
            from segpipe.serving.refusal import Refusal  # mlflow: there where MLflow asks, seconds to import elsewhere

            raise Refusal(str(error)) from None

    def _answered(self, model_input: Any, params: Mapping[str, Any]) -> Any:
        """`predict`, by whatever it is asked. Raises InputError."""
        form, unsure = self._asked(params)
        value, *told = parted(model_input, self._told) if self._told else (model_input,)
        images = images_of(value)
        if form == AUTO:
            form = "png" if images.encoded else "ids"
        answers = self._answers(images, told, form, unsure)
        if form != "ids" or images.of_sizes or unsure or self._ops.prediction is not LabelMap:
            return answers
        ids = np.uint8 if len(self._bundle.classes) <= IGNORE_8BIT else np.int32
        return np.stack(answers) if answers else np.empty((0, *images.parts[0].size), dtype=ids)

    def _asked(self, params: Mapping[str, Any]) -> tuple[str, bool]:
        """The form of masks, and whether the uncertainty is asked for."""
        if unknown := sorted(set(params) - self._known_params):
            raise InputError(f"unknown parameters {unknown}; this model takes {', '.join(sorted(self._known_params))}")
        form, unsure = params.get(MASK, AUTO), params.get(UNCERTAINTY, False)
        if form not in (AUTO, "png", "rle", "ids"):
            raise InputError(f"parameter {MASK}: {form!r:.80}; expected png, rle, ids or {AUTO}")
        if not isinstance(unsure, bool | np.bool_):
            raise InputError(f"parameter {UNCERTAINTY}: {unsure!r:.80}; expected true or false")
        return str(form), bool(unsure)

    def _answers(self, images: Images, told: Sequence[Any], form: str, unsure: bool) -> list[Any]:
        """One an image. What is wrong with any of them is found before the first is looked at."""
        sizes, classes = images.sizes, self._bundle.classes
        given = given_objects(told, sizes, len(classes)) if self._told else None
        taken = [self._numbers(size, None if given is None else given[at]) for at, size in enumerate(sizes)]
        # Of a map of plain ids nobody is told how sure it is.
        beside: tuple[Beside, ...] = () if form == "ids" else ("confidence",)
        answers: list[Any] = []
        for part in images.parts:
            of_part = slice(len(answers), len(answers) + part.number)
            own = None if given is None else given[of_part]
            found = self._predictions(part.read(), own, max(taken[of_part], default=1), beside)
            for each in found:
                if form == "ids":
                    answers.append(answer_of(each, uncertainty=unsure))
                else:
                    more = {UNCERTAINTY: each.uncertainty_HW} if unsure and isinstance(each, LabelMap) else {}
                    answers.append(reply_of(each, classes, "rle" if form == "rle" else "png") | more)
        return answers

    def _numbers(self, size: tuple[int, int], given: GivenObjects | None) -> float:
        """What an image takes of `NUMBERS_PER_PASS`. Raises InputError where no machine is expected to have it."""
        num_boxes = 0 if given is None else len(given.boxes_M4)
        numbers = numbers_of_image(self._bundle, *size, num_boxes=num_boxes)
        most = min(MAX_NUMBERS, self._most_numbers)
        if numbers > most:
            boxes = f" with {num_boxes} boxes" if num_boxes else ""
            raise InputError(
                f"an image of {size[0]} x {size[1]} pixels{boxes}: this model, as it looks at images, would take about "
                f"{numbers / 2**28:.3g} GiB for it; expected at most {most / 2**28:.3g}: send smaller tiles"
                f"{', or fewer boxes at a time' if num_boxes else ''}"
            )
        return numbers

    def _predictions(
        self, images_NHW3: Tensor, given: Sequence[GivenObjects] | None, numbers: float, beside: Collection[Beside]
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
                found += self._ops.predict(self._model, batch, self._bundle, beside=beside)
        return found


def may_be_asked(bundle: ModelBundle, size: tuple[int, int], boxes: Sequence[Sequence[float]] = ()) -> bool:
    """Whether a request to a served model may hold an image of this size (H, W) and these boxes, were it not for
    `$SEGPIPE_REQUEST_GIB`."""
    return (
        1 <= size[0] * size[1] <= MAX_IMAGE_PIXELS
        and are_boxes(boxes, size)
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
