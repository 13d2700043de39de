"""What speaks against a challenger that has won: images that it was trained on and is scored by, registered bytes that
say something else. And what speaks for a champion without being its merit: the same images. Called through the ledger
by `promote.py`, after the comparison and before anything moves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from segpipe import checkpoint, storage
from segpipe.errors import CorruptError, InputError, UnreachableError
from segpipe.promotion import Proof
from segpipe.shards import Dataset
from segpipe.stages import mirror
from segpipe.stages.leaks import leak
from segpipe.stages.origins import find_dataset, origin_of
from segpipe.stages.smoke import SmokeError, smoke
from segpipe.types import EvalReport

_log = logging.getLogger(__name__)


def prover(experiment: str, *, data: str) -> Callable[[EvalReport], Proof]:
    """A function that finds what speaks against a challenger of an experiment, which was scored on the dataset `data`.

    It raises where a store does not answer: then nothing is known, and nothing is decided.
    """

    def prove(report: EvalReport) -> Proof:
        unproven = Proof(objection=None, data=data, bytes_of=None)
        try:
            dataset = find_dataset(report.dataset_version, [data])
            objection = _of_origin(report, dataset)
            if objection is not None:
                return replace(unproven, objection=objection)
            return _of_bytes(experiment, report, dataset, unproven)
        except UnreachableError:
            raise
        except (InputError, CorruptError) as error:
            return replace(unproven, objection=f"{report.label} cannot be proven: {error}")

    return prove


def doubter(*, data: str) -> Callable[[EvalReport], str]:
    """A function that says why the score of a champion on the dataset `data` is too good: it has seen some of its
    images. "" where it has not, and where nobody can tell any more, which is logged.

    It raises where a store does not answer.
    """

    def doubted(report: EvalReport) -> str:
        try:
            dataset = find_dataset(report.dataset_version, [data])
            found = leak(origin_of(report.checkpoint), dataset, report.split)
        except (InputError, CorruptError) as error:
            _log.warning("whether the champion %s has seen evaluation images is not known: %s", report.label, error)
            return ""
        if found is None:
            return ""
        return (
            f"the champion {report.label} was trained on {found}, so that its score is too good: keep each image in "
            "one split, or let a person decide (`segpipe promote --force --why ...`)"
        )

    return doubted


def _of_origin(report: EvalReport, dataset: Dataset) -> str | None:
    """What a model's training says against its score. Raises as `origin_of` and `leak`."""
    origin = origin_of(report.checkpoint)
    if origin.bundle.weights_sha256 != report.weights_sha256:
        return (
            f"{report.checkpoint} holds other weights ({origin.bundle.weights_sha256[:12]}) than were scored "
            f"({report.weights_sha256[:12]}): evaluate it again"
        )
    found = leak(origin, dataset, report.split)
    if found is None:
        return None
    return (
        f"{report.label} was trained on {found}. A score on those says nothing of images that are new: keep each in "
        "one split, ingest again and train anew, or choose another evaluate.split"
    )


def _of_bytes(experiment: str, report: EvalReport, dataset: Dataset, unproven: Proof) -> Proof:
    """Whether the bytes that will serve say what was scored: those of the registry or, while MLflow is down, those of
    the run's folder; then the alias waits until the registered ones have the same hash (`registration.py`)."""
    with mirror.registered_bundle(experiment, report) as (folder, bytes_of):
        proof = replace(unproven, bytes_of=bytes_of)
        found = storage.sha256_file(str(folder / checkpoint.WEIGHTS))
        if found != report.weights_sha256:
            return replace(
                proof,
                objection=f"the bytes of {report.label} in the {bytes_of} have SHA-256 {found[:12]}, and "
                f"{report.weights_sha256[:12]} were scored: delete its version in MLflow, and it is registered anew",
            )
        try:
            answered = smoke(report.checkpoint, folder, dataset, report.split)
        except SmokeError as error:
            return replace(proof, objection=f"{report.label} failed its smoke prediction: {error}")
    return replace(proof, images=answered.images, answers_sha256=answered.answers_sha256)
