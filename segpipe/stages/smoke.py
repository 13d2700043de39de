"""Do the bytes that are about to serve say what was scored? A few images of the evaluation split, asked twice.

Once of the checkpoint that the evaluation scored, by the evaluation's own code in this process, and once of the
registered bytes, by a process that knows nothing of it (`fresh_answers.py`). Both look at one image at a time in one
thread of a CPU, where no order of sums is left to chance: equal is equal to the last bit and digit, and a model that a
GPU scored is held to what a CPU makes of it, on both sides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe import serving, storage
from segpipe.answers import answer_of
from segpipe.checkpoint import load_bundle
from segpipe.errors import SegpipeError
from segpipe.evaluate import look_at
from segpipe.fresh_answers import ANSWERS, MODEL, plain, write_request
from segpipe.report import choosing
from segpipe.shards import Dataset
from segpipe.tasks import TASKS
from segpipe.types import ModelBundle

IMAGES = 3
# From the start of Python to the last answer. Seconds are usual; ten minutes are what three large images may take a
# large model on one slow core.
LIMIT_SECONDS = 600.0
_ONE_CPU_THREAD = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]),
}
_LIMIT = "SEGPIPE_REQUEST_GIB"  # of who serves here: no matter of the bytes
_TOLD_CHARACTERS = 300


class SmokeError(SegpipeError):
    """The registered bytes do not answer, or say something else than what was scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One image of the evaluation split, uint8 RGB, what is told beside it, and what the scored checkpoint says."""

    sample_id: str
    image_HW3: Any
    told: dict[str, Any]
    expected: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """Who was asked about, and the hash of what was said of them, as canonical JSON."""

    images: tuple[str, ...]
    answers_sha256: str


def smoke(checkpoint_uri: str, registered: Path, dataset: Dataset, split: str) -> Answered:
    """Asks the bundle in the local folder `registered` what the checkpoint says.

    Raises SmokeError where it cannot be loaded, crashes, does not answer within LIMIT_SECONDS or says something else;
    the same fault gives the same words.
    """
    asked = list(_asked(checkpoint_uri, dataset, split))
    if not asked:
        raise SmokeError(
            f"none of the images of {split!r} that were tried may be sent to a served model: they are too large, or "
            "boxes in them have no extent, or are too many"
        )
    answers = _fresh_answers(registered, asked)
    for each, found in zip(asked, answers, strict=True):
        if found != each.expected:
            raise SmokeError(
                f"of {split}/{each.sample_id} the registered bytes, loaded by a fresh process, say something else than "
                f"the checkpoint that was scored{_difference(each.expected, found)}"
            )
    said = storage.sha256_bytes(storage.canonical_json(answers))
    return Answered(images=tuple(each.sample_id for each in asked), answers_sha256=said)


def _asked(checkpoint_uri: str, dataset: Dataset, split: str) -> Iterator[Asked]:
    """Some images that lie evenly over the split, with what the evaluation's own code makes of them.

    Of those that may be served: an evaluation takes larger images, more boxes, and some without extent, which no
    request has. Of a larger image the model is asked about its first lines; with boxes in it that would be another
    question.
    """

    def height_of(bundle: ModelBundle, size: tuple[int, int]) -> int:
        height, width = size
        while height > 1 and not serving.may_be_asked(bundle, (height, width)):
            height //= 2
        return height

    bundle = load_bundle(checkpoint_uri)
    is_told = bool(TASKS[bundle.task].told(bundle))
    sizes = dataset.sizes(split)
    rows = [row for row, size in enumerate(sizes) if not is_told or serving.may_be_asked(bundle, size)]
    for look in look_at(checkpoint_uri, dataset, split, choosing.evenly(rows, IMAGES), height_of=height_of):
        expected = plain(answer_of(look.prediction))
        told = {name: expected[name] for name in look.told}
        height, width, _ = look.image_HW3.shape
        if not serving.may_be_asked(bundle, (height, width), told.get("boxes", ())):
            continue
        yield Asked(sample_id=look.sample_id, image_HW3=look.image_HW3, told=told, expected=expected)


def _fresh_answers(registered: Path, asked: Sequence[Asked]) -> list[Any]:
    """What a new process says when it has loaded the bundle. Raises SmokeError."""
    with storage.scratch() as folder:
        (folder / MODEL).symlink_to(registered.absolute(), target_is_directory=True)
        write_request(folder, [(each.image_HW3, each.told) for each in asked])
        command = [sys.executable, "-m", "segpipe.fresh_answers", str(folder)]
        # Into a file: a process that it leaves behind would hold a pipe open, and who reads that waits for ever.
        with (folder / "log").open("wb") as log:
            try:
                status = subprocess.run(
                    command,
                    cwd=folder,
                    env={name: value for name, value in os.environ.items() if name != _LIMIT} | _ONE_CPU_THREAD,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=LIMIT_SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise SmokeError(
                    f"a fresh process that loads the registered bytes did not answer about {len(asked)} images within "
                    f"{LIMIT_SECONDS:g} s; see what keeps this machine busy, and judge it again"
                ) from None
        if status != 0 or not (folder / ANSWERS).exists():
            raise SmokeError(
                f"a fresh process that loads the registered bytes ended with status {status}: "
                f"{_last_line(folder / 'log').replace(str(folder), 'the registered bundle')}"
            )
        answers: list[Any] = json.loads((folder / ANSWERS).read_text())
    return answers


def _difference(expected: Any, found: Any) -> str:
    """How many pixels differ, where the answers are maps of one size."""
    rows = list(zip(expected, found, strict=False)) if isinstance(expected, list) and isinstance(found, list) else []
    if not rows or len(expected) != len(found) or any(len(ours) != len(theirs) for ours, theirs in rows):
        return ""
    pixels = [ours != theirs for row in rows for ours, theirs in zip(*row, strict=True)]
    return f" in {sum(pixels)} of {len(pixels)} pixels"


def _last_line(log: Path) -> str:
    lines = log.read_bytes().decode(errors="replace").strip().splitlines()
    return lines[-1][:_TOLD_CHARACTERS] if lines else "it said nothing"
