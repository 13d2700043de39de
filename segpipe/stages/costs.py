"""What a trained model costs, as its run in MLflow tells it: beside its parameters, once. Below `display.py`; what it
counts, a model card tells, too (`card_about.py`).

Counted from the run's config and the dataset, without computing anything; seconds are measured by the evaluation, and
stand in its report. Nothing decides by these numbers, and no fault of theirs ends a night.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segpipe import checkpoint, models, tracking
from segpipe.config import RunConfig
from segpipe.errors import SegpipeError, UnreachableError
from segpipe.profiles import Account, account
from segpipe.stages.fingerprint import load, usual_size
from segpipe.stages.numbers import counted
from segpipe.tasks import TASKS
from segpipe.tasks.views import passes
from segpipe.types import EvalReport, Fingerprint, ModelBundle

_log = logging.getLogger(__name__)
PREFIX = "cost"
GIGA = 1e9


def show(child: tracking.RunRef, run: RunConfig, report: EvalReport, *, data: str) -> None:
    """Counts what the model of a run costs, unless MLflow has it, and shows it there. Raises as MLflow does, and
    UnreachableError where the model or the dataset cannot be reached."""
    if tracking.has_params(child, f"{PREFIX}."):
        return
    try:
        bundle = checkpoint.load_bundle(report.checkpoint)
        looks = looks_of(bundle, load(data, report.dataset_version), report.split)
        found = account_of(bundle, looks, crops=_crops(run))
    except UnreachableError:
        raise  # it may be counted when who is gone is back; what is written below stays
    except Exception as error:  # noqa: BLE001 - torch raises all kinds, and the night is done but for these numbers
        _log.warning(
            "the cost of %s is not counted: %s", run.label, error, exc_info=not isinstance(error, SegpipeError)
        )
        tracking.record_values(child, metrics={}, params={f"{PREFIX}.not_counted": f"a fault: {error}"})
        return
    if found.uncounted:
        _log.info("%s: multiply-adds and memory are not counted: %s", run.label, found.uncounted)
    tracking.record_values(child, metrics=_metrics(found, looks), params=_params(found, run, looks))


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """How the most frequent of the evaluated images, of `image` (H, W), enters the model: how often by (h, w). With
    `by_object` that is said of each object that it is asked for. A `crf` comes after it, and is not counted."""

    image: tuple[int, int]
    passes: Mapping[tuple[int, int], int]
    by_object: bool
    crf: bool


def looks_of(bundle: ModelBundle, fingerprint: Fingerprint, split: str) -> Looks:
    """How a model looks at the images of a split."""
    width, height = map(int, usual_size(fingerprint.splits[split].sizes).split("x"))
    image = height, width
    return Looks(
        image=image,
        passes=passes(bundle, image),
        by_object=bool(TASKS[bundle.task].told(bundle)),
        crf=bundle.inference.crf is not None,
    )


def account_of(bundle: ModelBundle, looks: Looks, *, crops: tuple[int, int, int] | None = None) -> Account:
    """What a model takes for these looks and, with `crops` (N, H, W), in its training. Raises what torch does where an
    operation cannot be counted."""
    outputs = 1 if bundle.sigmoid else len(bundle.classes)
    return account(bundle.arch, outputs, bundle.options, passes=looks.passes, crops=crops)


def _crops(run: RunConfig) -> tuple[int, int, int] | None:
    """A batch of its training (N, H, W); None of what has none."""
    trained = not run.members and models.spec(run.arch).learns_by == "descent"
    return (run.train.batch_size, *run.train.augment.crop) if trained else None


def _metrics(found: Account, looks: Looks) -> dict[str, float]:
    """By which a table of runs is sorted; a FLOP is a multiplication or an addition."""
    known = {
        f"{PREFIX}/parameters": found.parameters,
        f"{PREFIX}/prediction_gflops": None if looks.by_object else _scaled(found.prediction_multiply_adds, 2 / GIGA),
        f"{PREFIX}/step_gb": _scaled(found.step_bytes, 1 / GIGA),
    }
    return {name: float(value) for name, value in known.items() if value is not None}


def _params(found: Account, run: RunConfig, looks: Looks) -> dict[str, str | float | int]:
    """What the metrics are of, and the rest."""
    known: dict[str, str | float | None] = {
        f"{PREFIX}.pass": _extent(found.size, ()),
        f"{PREFIX}.pass_gflops": _scaled(found.multiply_adds, 2 / GIGA),
        f"{PREFIX}.prediction": None if found.multiply_adds is None else _prediction(looks),
        f"{PREFIX}.pass_gb": _scaled(found.pass_bytes, 1 / GIGA),
        f"{PREFIX}.crop_gflops": _scaled(found.crop_multiply_adds, 2 / GIGA),
        f"{PREFIX}.step": None if found.step_bytes is None else _step(run),
        f"{PREFIX}.not_counted": found.uncounted or None,
    }
    fields = found.fields
    if fields is not None:
        known |= {
            f"{PREFIX}.receptive_field": _extent(fields.receptive_field, fields.not_followed),
            f"{PREFIX}.field_of_view": _extent(fields.field_of_view, fields.not_followed),
        }
    return {name: value for name, value in known.items() if value is not None}


def _prediction(looks: Looks) -> str:
    """The passes of a prediction in words."""
    times = ", ".join(f"{times} of {h}x{w}" for (h, w), times in looks.passes.items())
    height, width = looks.image
    of = f"each object of an image of {height}x{width}" if looks.by_object else f"an image of {height}x{width}"
    return f"{of}: passes {times}{'; its CRF is not counted' * looks.crf}"


def _step(run: RunConfig) -> str:
    height, width = run.train.augment.crop
    return f"{counted(run.train.batch_size, 'crop')} of {height}x{width}, float32, without the optimiser's state"


def _extent(extent: tuple[int, int] | None, not_followed: Sequence[str]) -> str:
    if extent is not None:
        return f"{extent[0]}x{extent[1]}"
    return f"not known ({', '.join(not_followed)})" if not_followed else "the whole image"


def _scaled(count: int | None, factor: float) -> float | None:
    """To four digits."""
    return None if count is None else float(f"{count * factor:.4g}")
