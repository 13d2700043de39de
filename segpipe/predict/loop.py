"""The one prediction loop: images of any size and number -> what a model says of each, in order.

Reading and decoding run in threads, a few images ahead; neighbours of one size share a batch. What cannot be read or
would not fit into memory is given back with its reason, and its neighbours go on.

Legend: N images of a batch, H W size in pixels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from segpipe import drift, masks, models
from segpipe.checkpoint import load_model
from segpipe.data.batch import Batch, collate
from segpipe.data.decode import DecodedSample, decode
from segpipe.errors import BadSampleError, CorruptError, InputError
from segpipe.models.spec import DenseOutput
from segpipe.predictions import Beside, Prediction
from segpipe.tasks import TASKS, TaskOps
from segpipe.tasks.memory import numbers_of_image
from segpipe.types import ImageLook, ModelBundle, Sample, Task, Window

T = TypeVar("T")
NUMBERS_PER_PASS = 2**28  # of 4 bytes, as a served request's pass: more images at once are no faster
_THREADS, _AHEAD = 2, 4  # images that are decoded before they are needed, beside those of a batch
WINDOW_OVERLAP = 0.5  # as a recipe's `train.inference.window` has it where it says nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One encoded image: `file` is what messages call it, `sample` the stored row where it comes from a dataset."""

    file: str
    image: bytes
    sample: Sample | None = None


class Asked(NamedTuple):
    """One image, uint8 RGB, and what the model says of it."""

    picture: Picture
    image_HW3: npt.NDArray[np.uint8]
    prediction: Prediction


class Refused(NamedTuple):
    """Why nothing is said of an image: the fields of a `QuarantineEntry`."""

    file: str
    reason: str
    detail: str


class Model(NamedTuple):
    """A loaded model with what it takes to ask it, and what it is to tell beside its answers. `most_numbers`, of 4
    bytes each, is what an image may take."""

    network: nn.Module
    bundle: ModelBundle
    ops: TaskOps
    most_numbers: float
    is_told: bool
    beside: tuple[Beside, ...]


class _Ready(NamedTuple):
    picture: Picture
    decoded: DecodedSample


class Answer(NamedTuple, Generic[T]):
    """What became of one request; None where `read` said that nothing is to be done."""

    request: T
    outcome: Asked | Refused | None


def tells_doubt(bundle: ModelBundle) -> bool:
    """Whether a model can say how unsure it is of each pixel: of its class, or of the object there."""
    return bundle.task in (Task.SEMANTIC, Task.INSTANCE)


def tells_probabilities(bundle: ModelBundle) -> bool:
    """Whether a model says how probable each class is at a pixel."""
    return bundle.task is Task.SEMANTIC and models.spec(bundle.arch).output is DenseOutput


def check_model(bundle: ModelBundle, *, window: tuple[int, int] | None, from_dataset: bool) -> None:
    """Raises InputError where a model cannot be asked in this way."""
    if window is not None and (bundle.task is not Task.SEMANTIC or models.spec(bundle.arch).learns_by == "counting"):
        raise InputError(
            f"a window is set, and {bundle.arch} of task {bundle.task} is asked about whole images: only a network "
            "that gives each pixel a class can be asked window by window; leave it out"
        )
    told = TASKS[bundle.task].told(bundle)
    if told and not from_dataset:
        raise InputError(
            f"{bundle.arch} of task {bundle.task} looks at objects that it is told of ({', '.join(told)}), and files "
            "of images tell none; ask it about a dataset version with such annotations"
        )


def load(uri: str, *, window: tuple[int, int] | None = None, unsure: bool = False) -> Model:
    """The model of a bundle on this machine's accelerator, or its CPU.

    With `window` (height, width) it sees larger images window by window, whatever it was trained to do. With `unsure`
    one that `tells_doubt` also says how unsure it is of each pixel. Raises as `checkpoint.load_model`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, bundle = load_model(uri, device=device)
    if window is not None:
        inference = replace(bundle.inference, window=Window(size=window, overlap=WINDOW_OVERLAP))
        bundle = replace(bundle, inference=inference)
    ops = TASKS[bundle.task](bundle.classes, bundle.ignore_index)
    # Levels are what `drift.of_prediction` counts, and a choice of images to label goes by.
    beside: tuple[Beside, ...] = ("levels", "confidence") if unsure else ("levels",)
    return Model(network, bundle, ops, _numbers_there(device), bool(ops.told(bundle)), beside)


def answers(
    load_once: Callable[[], Model],
    requests: Iterable[T],
    read: Callable[[T], Picture | None],
    *,
    batch_size: int,
) -> Generator[Answer[T]]:
    """What the model says of each request's image, in the order of `requests`.

    `read` is called in threads, and gives None where nothing is to be done; its BadSampleError is an answer, too. The
    model is loaded when the first image is there: a run that has nothing left to do loads none. Closing the iterator,
    or an error, ends the threads.
    """
    model: Model | None = None
    together: list[tuple[T, _Ready]] = []
    with closing(_read_ahead(requests, read, batch_size)) as coming:
        for request, ready in coming:
            if isinstance(ready, _Ready):
                model = model or load_once()
                ready = _too_large(model, ready) or ready
            if model is not None and together and not _joins(model, ready, together, batch_size):
                yield from _answered(model, together)
                together = []
            if isinstance(ready, _Ready):
                together.append((request, ready))
            else:
                yield Answer(request, ready)
    if model is not None and together:
        yield from _answered(model, together)


def _joins(model: Model, ready: object, together: Sequence[tuple[T, _Ready]], batch_size: int) -> bool:
    """Whether an image enters the model beside those that wait: else these go first, as answers keep their order."""
    if not isinstance(ready, _Ready) or _size(ready) != _size(together[0][1]):
        return False
    most = min(NUMBERS_PER_PASS, model.most_numbers)
    return len(together) < min(batch_size, int(most / _numbers(model, ready)))


def _answered(model: Model, together: Sequence[tuple[T, _Ready]]) -> Iterator[Answer[T]]:
    batch = collate([ready.decoded for _, ready in together])
    for (request, ready), prediction in zip(together, predict(model, batch), strict=True):
        image_HW3 = ready.decoded.image_3HW.permute(1, 2, 0).numpy()
        yield Answer(request, Asked(ready.picture, image_HW3, prediction))


@torch.inference_mode()
def predict(model: Model, batch: Batch) -> Sequence[Prediction]:
    """What the model says of a batch: images of one size."""
    return model.ops.predict(model.network, batch, model.bundle, beside=model.beside)


def _read_ahead(
    requests: Iterable[T], read: Callable[[T], Picture | None], batch_size: int
) -> Generator[tuple[T, _Ready | Refused | None]]:
    def prepare(request: T) -> _Ready | Refused | None:
        try:
            picture = read(request)
            return None if picture is None else _Ready(picture, _decoded(picture))
        except BadSampleError as error:
            return Refused(error.file, error.reason, error.detail)

    waiting: deque[tuple[T, Future[_Ready | Refused | None]]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="segpipe-predict") as pool:
        try:
            for request in requests:
                waiting.append((request, pool.submit(prepare, request)))
                if len(waiting) > batch_size + _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _decoded(picture: Picture) -> DecodedSample:
    """Raises BadSampleError, also of a stored row: a damaged one must not end a night of predictions."""
    if picture.sample is not None:
        try:
            # Its own labels are not looked at, and may be of other classes.
            return decode(replace(picture.sample, label_map=None))
        except CorruptError as error:
            raise BadSampleError("unreadable", picture.file, str(error)) from error
    pixels_HW3 = masks.read_upright(picture.image, file=picture.file)
    return DecodedSample(
        sample_id=picture.file, image_3HW=torch.from_numpy(pixels_HW3).permute(2, 0, 1), labels_HW=None
    )


def _size(ready: _Ready) -> tuple[int, int]:
    return ready.decoded.image_3HW.shape[1], ready.decoded.image_3HW.shape[2]


def _numbers(model: Model, ready: _Ready) -> float:
    sample = ready.picture.sample
    boxes = len(sample.segments) if sample is not None and model.is_told else 0
    return numbers_of_image(model.bundle, *_size(ready), num_boxes=boxes)


def _too_large(model: Model, ready: _Ready) -> Refused | None:
    numbers, (height, width) = _numbers(model, ready), _size(ready)
    if numbers <= model.most_numbers:
        return None
    remedy = "scale it down, or cut it into tiles"
    if model.bundle.task is Task.SEMANTIC and model.bundle.inference.window is None:
        remedy = "ask for windows, such as --window 1024x1024"
    detail = (
        f"{width}x{height} pixels: this model, as it looks at images, would take about {numbers / 2**28:.3g} GiB for "
        f"it, and there are {model.most_numbers / 2**28:.3g}: {remedy}"
    )
    return Refused(ready.picture.file, "too_large", detail)


def _numbers_there(device: torch.device) -> float:
    """How many numbers of 4 bytes the device's memory holds."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] / 4
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 4


def look_at(asked: Asked) -> ImageLook:
    """What an image that was asked about looks like, for a dataset's fingerprint."""
    return masks.look_at(Image.fromarray(asked.image_HW3))


def levels_of(asked: Asked, look: ImageLook, bundle: ModelBundle) -> drift.Levels:
    """What an image counts as when drift is looked for: how it looks, and what the model says of it."""
    return {**drift.of_look(look), **drift.of_prediction(asked.prediction, bundle.classes)}
