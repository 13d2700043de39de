"""What a registered model does when MLflow loads it: the loader module named in its `MLmodel` file.

MLflow imports this module (where segpipe is not installed, from the copy that was logged with the model) and calls
`_load_pyfunc` with the folder of the bundle: `weights.safetensors` and a strict `model.json`. Nothing is unpickled.

Legend: N images, H W size in pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from torch import Tensor, nn

from segpipe.answers import answer_of
from segpipe.checkpoint import load_model
from segpipe.data.batch import Batch
from segpipe.errors import InputError
from segpipe.predictions import LabelMap, Prediction
from segpipe.tasks import TASKS
from segpipe.types import IGNORE_8BIT, ModelBundle

# Bounds what one request may take: what one forward pass holds at once (1 GiB as float32), and the size of one image.
NUMBERS_PER_PASS = 2**28
# Beside the logits, for each pixel that enters: 111 (RetinaNet) to 463 (Mask R-CNN) were seen, most of them below 192.
NUMBERS_PER_PIXEL = 192
MAX_IMAGE_PIXELS = 2**25


class Predictor:
    """A loaded model behind MLflow's `predict`."""

    def __init__(self, model: nn.Module, bundle: ModelBundle) -> None:
        self._model, self._bundle = model, bundle
        self._ops = TASKS[bundle.task](bundle.classes, bundle.ignore_index)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """What the model says of images: uint8 array (N, H, W, 3), RGB 0..255, any N, H, W.

        Class ids of a semantic model go back as uint8 (N, H, W), int32 if K > 255; every other task answers with a list
        of one dict an image (`answers.py`). Images of several sizes come as a one-dimensional object array or a list of
        (H, W, 3) arrays, and their answers go back as a list. Raises MlflowException (HTTP 400 when served) for any
        other shape or type.
        """
        if params:
            raise _refusal(f"unknown parameters {sorted(params)}; this model takes none")
        if isinstance(model_input, list) or getattr(model_input, "ndim", 0) == 1:
            return [answer_of(self._predictions(_images_NHW3(image, 3)[None])[0]) for image in model_input]
        images_NHW3 = _images_NHW3(model_input, 4)
        answers = [answer_of(found) for found in self._predictions(images_NHW3)]
        if self._ops.prediction is not LabelMap:
            return answers
        ids = np.uint8 if len(self._bundle.classes) <= IGNORE_8BIT else np.int32
        return np.stack(answers) if answers else np.empty((0, *images_NHW3.shape[1:3]), dtype=ids)

    def _predictions(self, images_NHW3: Tensor) -> list[Prediction]:
        num_images, height, width, _ = images_NHW3.shape
        scale = self._bundle.input_scale * max(self._bundle.inference.scales)
        per_pixel = len(self._bundle.classes) + NUMBERS_PER_PIXEL * scale**2
        per_pass = max(1, int(NUMBERS_PER_PASS / (height * width * per_pixel)))
        found: list[Prediction] = []
        with torch.inference_mode():
            for start in range(0, num_images, per_pass):
                part = images_NHW3[start : start + per_pass]
                batch = Batch(
                    images_N3HW=part.permute(0, 3, 1, 2),
                    labels_NHW=None,
                    sample_ids=tuple(str(start + i) for i in range(len(part))),
                    original_sizes=((height, width),) * len(part),
                )
                try:
                    found += self._ops.predict(self._model, batch, self._bundle)
                except InputError as error:
                    raise _refusal(str(error)) from None
        return found


def _load_pyfunc(data_path: str) -> Predictor:
    """Called by MLflow with the bundle's folder. Raises CorruptError when the weights are not the registered ones."""
    model, bundle = load_model(data_path, device="cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(model, bundle)


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


def _refusal(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
