"""What a model card says of a model beside its scores and pictures: its data, how it is used, what it takes, how it was
trained. Below `card.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress

from segpipe import checkpoint, reports, storage
from segpipe.answers import form_of
from segpipe.errors import CorruptError, InputError
from segpipe.report.card import DataFacts, Shown, SplitFacts, UseFacts
from segpipe.shards import Dataset
from segpipe.stages import costs, fingerprint, layout
from segpipe.stages.numbers import file_size, split_order
from segpipe.stages.origins import Training, origin_of, run_folder
from segpipe.tasks import TASKS
from segpipe.types import EvalReport, Fingerprint, ModelBundle, TrainResult

_log = logging.getLogger(__name__)
TRAINING = "training"


def training_of(report: EvalReport) -> TrainResult | None:
    """How the model's training went; None of a bundle that lies in no run."""
    path = storage.join(run_folder(report.checkpoint), layout.RUN_RESULT)
    if not storage.exists(path):
        return None
    return reports.from_plain(TrainResult, storage.read_json(path), origin=path)


def fingerprint_of(dataset: Dataset) -> Fingerprint | None:
    """The version's fingerprint; None where there is none that can be read: whoever makes a page mends no dataset."""
    try:
        return fingerprint.load(dataset.uri, dataset.version)
    except (InputError, CorruptError) as error:
        _log.info("a card is made without the fingerprint of its data: %s", error)
        return None


def data_of(
    dataset: Dataset,
    bundle: ModelBundle,
    seen: Fingerprint | None,
    uses: Mapping[str, Sequence[str]],
    previews: Sequence[Shown],
) -> DataFacts:
    """The dataset version with its splits, and `previews` of the split that `previewed` names."""
    manifest = dataset.manifest
    splits = tuple(
        SplitFacts(
            name=name,
            samples=manifest.splits[name].samples,
            shares=_shares(manifest.splits[name].class_pixels),
            use=", ".join(uses.get(name, ())),
        )
        for name in split_order(manifest.splits)
    )
    return DataFacts(
        name=manifest.dataset,
        version=dataset.version,
        trained_on=bundle.dataset_version,
        source=manifest.source,
        licence=manifest.licence,
        splits=splits,
        quarantined=sum(manifest.quarantined.values()),
        warnings=() if seen is None else seen.warnings,
        previews=tuple(previews),
    )


def uses_of(report: EvalReport, bundle: ModelBundle, dataset: Dataset) -> dict[str, list[str]]:
    """What each split was used for: by all trainings behind the model, of an ensemble by those of its members.

    A model that learnt from another dataset, or that came without the recipe of its run, says nothing about the splits
    of this one. Raises CorruptError where the recipe is damaged.
    """
    trainings: tuple[Training, ...] = ()
    if bundle.dataset == dataset.manifest.dataset:
        with suppress(InputError):
            trainings = origin_of(report.checkpoint).trainings
    uses: dict[str, list[str]] = {}
    for split, use in (
        *((each.train_split, TRAINING) for each in trainings),
        *((each.validation_split, "validation") for each in trainings),
        (report.split, "the scores of this card"),
    ):
        told = uses.setdefault(split, [])
        if use not in told:
            told.append(use)
    return uses


def previewed(report: EvalReport, uses: Mapping[str, Sequence[str]], dataset: Dataset) -> str:
    """The split whose images show what the data looks like: that of the training, where it is there."""
    trained_on = (name for name, found in uses.items() if TRAINING in found and name in dataset.manifest.splits)
    return next(trained_on, report.split)


def _shares(class_pixels: Sequence[int]) -> tuple[float, ...]:
    total = sum(class_pixels)
    return tuple(pixels / total for pixels in class_pixels) if total else ()


def use_of(report: EvalReport, bundle: ModelBundle) -> UseFacts:
    """How the model is loaded, asked and served."""
    task = TASKS[bundle.task]
    sampled = bool(bundle.inference.samples)
    form = form_of(task.prediction, len(bundle.classes), told=task.told(bundle), sampled=sampled)
    name = f"models:/{report.experiment}@champion"
    return UseFacts(
        python=(
            "# this very model\nfrom segpipe.checkpoint import load_model\n\n"
            f'model, bundle = load_model("{report.checkpoint}")\n\n'
            "# the champion of its experiment, whichever that is by then\nimport mlflow\n\n"
            f'model = mlflow.pyfunc.load_model("{name}")\n{form.usage}'
        ),
        serving=(
            f"mlflow models serve -m {name} --env-manager local --port 5001\n"
            "curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\\n"
            f"  -d '{form.request}'"
        ),
    )


def costs_of(report: EvalReport, bundle: ModelBundle, seen: Fingerprint | None) -> dict[str, str]:
    """What a model takes, as far as it can be counted without running it: of images as the fingerprint has most."""
    told = {"parameters": f"{report.parameters / 1e6:.2f} M"}
    told["weights"] = file_size(storage.size(storage.join(report.checkpoint, checkpoint.WEIGHTS)))
    if seen is not None:
        told |= _counted(report, costs.looks_of(bundle, seen, report.split), bundle)
    if report.latency is not None:
        told["time for an image"] = f"{1000 * report.latency:.3g} ms on {report.timed_on}"
    return told | {"time of the evaluation": f"{report.seconds:.1f} s"}


def _counted(report: EvalReport, looks: costs.Looks, bundle: ModelBundle) -> dict[str, str]:
    told = {"size of an image": "{} x {}".format(*looks.image)}
    try:
        found = costs.account_of(bundle, looks)
    except Exception as error:  # noqa: BLE001 - torch raises all kinds, and a card without these numbers is a card
        _log.info("the cost of %s is not counted for its card: %s", report.label, error)
        return told
    if found.prediction_multiply_adds is not None:
        of = "an object" if looks.by_object else "an image"
        gflops = 2 * found.prediction_multiply_adds / costs.GIGA
        told[f"GFLOP for {of}"] = f"{gflops:.3g}{', without its CRF' * looks.crf}"
    if found.pass_bytes is not None:
        told["memory of a pass"] = file_size(found.pass_bytes)
    if found.fields is not None and found.fields.receptive_field is not None:
        told["receptive field"] = "{} x {} pixels".format(*found.fields.receptive_field)
    return told
