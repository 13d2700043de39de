"""The one evaluation loop: a model over a split, every image exactly once, at original resolution.

`count` is the loop; training's validation runs it too. `evaluate_share` is what one worker does of an evaluation, and
`assemble` merges the workers' meters into the `EvalReport`; `count_crfs` is several evaluations on one look. Their
scores are bit-equal for any number of workers: batches are fixed before they are dealt out, and on CPU each forward
pass runs in one thread, because the order in which several threads add floats may differ.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segpipe.checkpoint import load_bundle, load_model
from segpipe.data.batch import Batch
from segpipe.data.loader import EvalBatches
from segpipe.errors import IncomparableError, InputError
from segpipe.predictions import LabelMap, Prediction
from segpipe.shards import open_dataset
from segpipe.tasks import TASKS, TaskOps
from segpipe.tasks.refusals import unfilled
from segpipe.tasks.semantic import SemanticOps, label_maps, probabilities, refined
from segpipe.types import ClassInfo, CrfSettings, EvalReport, Manifest, ModelBundle
from segpipe.version import code_version


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One worker's part of an evaluation; picklable. `keep` names the samples whose predictions come back too."""

    checkpoint: str
    data: str
    version: str
    split: str
    batch_size: int
    rank: int
    world_size: int
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """What one share comes to: the task's meter, kept predictions by sample id, and how long it took."""

    meter: Any
    predictions: dict[str, Prediction]
    parameters: int
    seconds: float


@torch.inference_mode()
def count(
    model: nn.Module, ops: TaskOps, bundle: ModelBundle, batches: Iterable[Batch], *, keep: Collection[str] = ()
) -> tuple[Any, dict[str, Prediction]]:
    """The task's meter after every batch, and the predictions of the samples in `keep`."""
    meter = ops.meter()
    kept: dict[str, Prediction] = {}
    for batch in batches:
        predictions = ops.predict(model, batch, bundle)
        ops.measure(meter, predictions, batch)
        kept |= {name: found for name, found in zip(batch.sample_ids, predictions, strict=True) if name in keep}
    return meter, kept


def evaluate_share(share: Share) -> Counted:
    """Counts one share on this machine's accelerator, or in one thread of its CPU."""
    started = time.perf_counter()
    model, bundle, ops, batches = _open(share)
    with _one_thread():
        meter, kept = count(model, ops, bundle, batches, keep=frozenset(share.keep))
    parameters = sum(p.numel() for p in model.parameters())
    return Counted(meter=meter, predictions=kept, parameters=parameters, seconds=time.perf_counter() - started)


def count_crfs(
    share: Share, settings: Sequence[CrfSettings], *, threads: int, on_progress: Callable[[int, int], None]
) -> tuple[SemanticOps, list[Any]]:
    """The task and its meters: without a CRF, then with each of `settings`, on one look of the model at each image.

    Each meter is that of an evaluation with this CRF, to the last bit: fields work side by side in `threads`, each in
    one alone. For models of task semantic. `on_progress(done, total)` counts batches.
    """
    model, bundle, ops, batches = _open(share)
    assert isinstance(ops, SemanticOps)
    meters = [ops.meter() for _ in range(1 + len(settings))]

    @torch.inference_mode()
    def refine(batch: Batch, given_NKHW: Tensor, crf: CrfSettings | None) -> list[LabelMap]:
        return label_maps(given_NKHW if crf is None else refined(batch, given_NKHW, crf))

    # The number of threads of an operation is one of the thread that calls it.
    with _one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done, batch in enumerate(batches):
            on_progress(done, len(batches))
            with torch.inference_mode():
                given_NKHW = probabilities(model, batch, bundle)
            waiting = [pool.submit(refine, batch, given_NKHW, crf) for crf in (None, *settings)]
            for meter, found in zip(meters, waiting, strict=True):
                ops.measure(meter, found.result(), batch)
        on_progress(len(batches), len(batches))
    return ops, meters


def _open(share: Share) -> tuple[nn.Module, ModelBundle, TaskOps, EvalBatches]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = open_dataset(share.data, version=share.version)
    model, bundle = load_model(share.checkpoint, device=device)
    ops = task_of(bundle, dataset.manifest, origin=share.checkpoint)
    batches = EvalBatches(
        dataset,
        share.split,
        batch_size=share.batch_size,
        rank=share.rank,
        world_size=share.world_size,
    )
    return model, bundle, ops, batches


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def task_of(bundle: ModelBundle, manifest: Manifest, *, origin: str) -> TaskOps:
    """The operations of the model's task, after checking that model and dataset speak of the same classes and, where
    the task tells them apart, of the same things."""
    ours, theirs = [c.name for c in bundle.classes], [c.name for c in manifest.classes]
    if ours != theirs:
        raise IncomparableError(
            f"{origin}: the model knows the classes {ours}, dataset {manifest.dataset!r} has {theirs}; "
            "a model is evaluated on the classes that it was trained for"
        )
    ops = TASKS[bundle.task](manifest.classes, manifest.ignore_index)
    turned = [
        f"{old.name!r} was {_kind(old)} and is {_kind(new)}"
        for old, new in zip(bundle.classes, manifest.classes, strict=True)
        if old.is_thing != new.is_thing
    ]
    if turned and ops.tells_things_from_stuff:
        raise IncomparableError(
            f"{origin}: of the model's classes, {', '.join(turned)} in dataset {manifest.dataset!r}; a model of task "
            f"{bundle.task} is evaluated on the things and the stuff that it was trained for"
        )
    missing = unfilled(bundle.task, ops.needs, manifest.annotations, where=f"dataset {manifest.dataset!r}")
    if missing:
        raise InputError(missing)
    return ops


def _kind(info: ClassInfo) -> str:
    return "a thing" if info.is_thing else "stuff"


def assemble(
    counted: Sequence[Counted],
    *,
    share: Share,
    experiment: str,
    label: str,
) -> EvalReport:
    """One report from all shares. Raises InputError unless every sample of the split was counted exactly once."""
    dataset = open_dataset(share.data, version=share.version)
    bundle = load_bundle(share.checkpoint)
    ops = task_of(bundle, dataset.manifest, origin=share.checkpoint)
    meter = ops.meter()
    for part in counted:
        meter.merge(part.meter)
    sample_ids = dataset.sample_ids(share.split)
    groups = dataset.groups(share.split)
    return EvalReport(
        experiment=experiment,
        arch=bundle.arch,
        label=label,
        task=bundle.task,
        dataset=dataset.manifest.dataset,
        dataset_version=dataset.version,
        split=share.split,
        classes=tuple(c.name for c in bundle.classes),
        sample_ids=tuple(sample_ids),
        groups=tuple(groups),
        num_samples=len(sample_ids),
        parameters=counted[0].parameters,
        checkpoint=share.checkpoint,
        weights_sha256=bundle.weights_sha256,
        config_digest=bundle.config_digest,
        code_version=bundle.code_version,
        scored_by=code_version(),
        seconds=sum(part.seconds for part in counted),
        **ops.report_fields(meter, sample_ids, groups),
    )
