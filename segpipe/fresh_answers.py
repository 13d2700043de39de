"""A process of its own that loads a model from its bytes and answers about a few images, as a server would.

    python -m segpipe.fresh_answers FOLDER

FOLDER holds `model/` (the bundle), `000.npy`, `001.npy` ... (images, uint8 (H, W, 3) RGB) and `request.json`: of each
image what is told beside it. The last thing that it writes is `answers.json`: of each image what the model says, as
plain data. Started by `stages/smoke.py`; what it says on standard error is for people. Nothing that lies beside the
weights is executed: they are loaded by `serving`, the loader module of every registered model, from this code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.serving import _load_pyfunc

MODEL, REQUEST, ANSWERS = "model", "request.json", "answers.json"


def image_name(at: int) -> str:
    """The file of one image."""
    return f"{at:03d}.npy"


def write_request(folder: Path, asked: Sequence[tuple[npt.NDArray[np.uint8], Mapping[str, Any]]]) -> None:
    """Writes down images, each with what is told beside it."""
    for at, (image_HW3, _) in enumerate(asked):
        np.save(folder / image_name(at), image_HW3, allow_pickle=False)
    (folder / REQUEST).write_text(json.dumps([told for _, told in asked]))


def answer(folder: Path) -> None:
    """Asks the model in `folder` about each image by itself, and writes down what it says."""
    predictor = _load_pyfunc(str(folder / MODEL))
    answers = []
    for at, told in enumerate(json.loads((folder / REQUEST).read_text())):
        images_1HW3 = np.load(folder / image_name(at), allow_pickle=False)[None]
        asked = {"images": images_1HW3, **{name: [value] for name, value in told.items()}} if told else images_1HW3
        answers.append(plain(predictor.predict(asked)[0]))
    (folder / ANSWERS).write_text(json.dumps(answers))


def plain(found: Any) -> Any:
    """What a model says of an image (`answers.answer_of`) with its arrays as the lists that JSON has."""
    if isinstance(found, np.ndarray):
        return found.tolist()
    return {name: plain(value) for name, value in found.items()} if isinstance(found, dict) else found


if __name__ == "__main__":
    answer(Path(sys.argv[1]))
