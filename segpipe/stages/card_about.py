"""What a model card says of a model beside its scores and pictures: its data, how it is used, what it takes, how it was
trained. Below `card.py`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cache

from segpipe import checkpoint, reports, storage
from segpipe.answers import form_of
from segpipe.profiles import Account, account
from segpipe.report.card import DataFacts, Shown, SplitFacts, UseFacts
from segpipe.shards import Dataset
from segpipe.stages import fingerprint, layout
from segpipe.stages.numbers import file_size, split_order
from segpipe.tasks import TASKS
from segpipe.tasks.views import passes
from segpipe.types import EvalReport, ModelBundle, TrainResult

_log = logging.getLogger(__name__)
GIGA = 1e9


def training_of(report: EvalReport) -> TrainResult | None:
    """How the model's training went; None of a bundle that lies in no run."""
    path = storage.join(_run_uri(report), layout.RUN_RESULT)
    if not storage.exists(path):
        return None
    return reports.from_plain(TrainResult, storage.read_json(path), origin=path)


def data_of(report: EvalReport, dataset: Dataset, bundle: ModelBundle, previews: Sequence[Shown]) -> DataFacts:
    """The dataset version with its splits, and `previews` of the split that `previewed` names."""
    manifest, uses = dataset.manifest, _uses(report)
    splits = tuple(
        SplitFacts(
            name=name,
            samples=manifest.splits[name].samples,
            shares=_shares(manifest.splits[name].class_pixels),
            use=uses.get(name, ""),
        )
        for name in split_order(manifest.splits)
    )
    has_look = fingerprint.is_whole(dataset.uri, dataset.version)
    return DataFacts(
        name=manifest.dataset,
        version=dataset.version,
        trained_on=bundle.dataset_version,
        source=manifest.source,
        licence=manifest.licence,
        splits=splits,
        quarantined=sum(manifest.quarantined.values()),
        warnings=fingerprint.load(dataset.uri, dataset.version).warnings if has_look else (),
        previews=tuple(previews),
    )


def previewed(report: EvalReport, dataset: Dataset) -> str:
    """The split whose images show what the data looks like: that of the training, where it is there."""
    trained_on = [name for name, use in _uses(report).items() if use.startswith("training")]
    return next((name for name in trained_on if name in dataset.manifest.splits), report.split)


def _uses(report: EvalReport) -> dict[str, str]:
    """What each split was used for, as far as the run's config tells."""
    path = storage.join(_run_uri(report), layout.RUN_CONFIG)
    told = storage.read_json(path).get("train", {}) if storage.exists(path) else {}
    uses = {told.get("train_split"): "training", told.get("validation_split"): "validation"}
    known = {str(name): use for name, use in uses.items() if name}
    return {**known, report.split: ", ".join(filter(None, (known.get(report.split), "the scores of this card")))}


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


def costs_of(report: EvalReport, bundle: ModelBundle, dataset: Dataset) -> dict[str, str]:
    """What a model takes, as far as it can be counted without running it."""
    costs = {"parameters": f"{report.parameters / 1e6:.2f} M"}
    costs["weights"] = file_size(storage.size(storage.join(report.checkpoint, checkpoint.WEIGHTS)))
    sizes = dataset.sizes(report.split)
    height, width = image = max(set(sizes), key=sizes.count)
    costs["size of an image"] = f"{height} x {width}"
    try:
        outputs = 1 if bundle.sigmoid else len(bundle.classes)
        looks = tuple(passes(bundle, image).items())
        found = _account(bundle.arch, outputs, json.dumps(bundle.options, sort_keys=True, default=str), looks)
        if found.prediction_multiply_adds is not None:
            of = "an object" if TASKS[bundle.task].told(bundle) else "an image"
            costs[f"GFLOP for {of}"] = f"{2 * found.prediction_multiply_adds / GIGA:.3g}"
        if found.pass_bytes is not None:
            costs["memory of a pass"] = file_size(found.pass_bytes)
        if found.fields is not None and found.fields.receptive_field is not None:
            costs["receptive field"] = "{} x {} pixels".format(*found.fields.receptive_field)
    except Exception as error:  # noqa: BLE001 - torch raises all kinds, and a card without these numbers is a card
        _log.info("the cost of %s is not counted for its card: %s", report.label, error)
    if report.latency is not None:
        costs["time for an image"] = f"{1000 * report.latency:.3g} ms on {report.timed_on}"
    costs["time of the evaluation"] = f"{report.seconds:.1f} s"
    return costs


@cache
def _account(arch: str, outputs: int, options: str, looks: tuple[tuple[tuple[int, int], int], ...]) -> Account:
    """Counted once in a process: the card of a challenger is made twice."""
    return account(arch, outputs, json.loads(options), passes=dict(looks), crops=None)


def _run_uri(report: EvalReport) -> str:
    return report.checkpoint.rpartition("/")[0]
