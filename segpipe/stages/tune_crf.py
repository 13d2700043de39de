"""A search after training: which DenseCRF makes a model's labels better, on a validation split. Beside `evaluate`.

The model looks at each image once; every field of the grid then refines the same probabilities, and its labels are
scored by the meter of the task. The answer's folder is named by what decides it (weights, views, dataset version,
split, grid, code), so that searching again is reading. A search that was killed begins anew: it keeps nothing but
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segpipe import checkpoint, models, reports, storage
from segpipe.config import CrfGrid, digest
from segpipe.cores import usable_cores
from segpipe.crf_search import count_crfs
from segpipe.errors import ConflictError, InputError
from segpipe.evaluate import Share
from segpipe.models.spec import DenseOutput
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import at_work, datasets, layout
from segpipe.tasks import TaskOps
from segpipe.types import CrfSettings, ModelBundle, Task
from segpipe.version import code_version

SEARCH = "search.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfTried:
    """One field and the primary metric with it."""

    settings: CrfSettings
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfSearch:
    """What a search came to: `search.json` at `uri`. `without` is the primary metric without a field; `best` is the
    first of the best fields `tried`, None where none is better than that."""

    uri: str
    checkpoint: str
    weights_sha256: str
    dataset: str
    dataset_version: str
    split: str
    num_samples: int
    primary: str
    protocol: str
    without: float
    best: CrfSettings | None
    tried: tuple[CrfTried, ...]
    code_version: str


def tune_crf(
    model_uri: str,
    *,
    data: str,
    version: str,
    to: str,
    grid: CrfGrid,
    split: str = "val",
    label: str = "model",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CrfSearch:
    """Tries every field of `grid` on a split, in this process, with a thread a core.

    Writes `<to>/<version>/<label>-<key>/search.json`. `on_progress(done, total)` counts images. A CRF that the model
    has already is left out of account. Raises InputError for a model without class probabilities of pixels.
    """
    model_uri, data = layout.absolute(model_uri), datasets.found(data)
    bundle, dataset = checkpoint.load_bundle(model_uri), open_dataset(data, version=version)
    if bundle.task is not Task.SEMANTIC or models.spec(bundle.arch).output is not DenseOutput:
        raise InputError(
            f"{model_uri}: {bundle.arch} of task {bundle.task} does not say how probable each class is at each pixel, "
            "which is what a CRF refines; give a model of task semantic with logits for every pixel"
        )
    uri = location(bundle.weights_sha256, label=label, version=dataset.version, split=split, grid=grid, to=to)
    place = storage.join(uri, SEARCH)
    if storage.exists(place):
        return _load(place)
    share = Share(
        checkpoint=model_uri, data=data, version=dataset.version, split=split, batch_size=1, rank=0, world_size=1
    )
    with at_work.reading(data, dataset.version):
        ops, meters = count_crfs(share, grid.settings, threads=usable_cores(), on_progress=on_progress)
    search = _search(ops, meters, grid.settings, uri=place, share=share, bundle=bundle, dataset=dataset)
    try:
        storage.write_json_once(place, reports.to_plain(search))
    except ConflictError:  # somebody searched the same just now, on another device
        return _load(place)
    return search


def location(weights_sha256: str, *, label: str, version: str, split: str, grid: CrfGrid, to: str) -> str:
    """The folder that this search has, or will have. (The hash of the weights names their views, too.)"""
    name = layout.key(weights_sha256, split, digest(grid.model_dump(mode="json")), code_version())
    return storage.join(layout.absolute(to), version[:12], f"{label}-{name}")


def _search(
    ops: TaskOps,
    meters: Sequence[Any],
    settings: Sequence[CrfSettings],
    *,
    uri: str,
    share: Share,
    bundle: ModelBundle,
    dataset: Dataset,
) -> CrfSearch:
    scores = [ops.scores(meter) for meter in meters]
    if ops.primary not in scores[0]:
        raise InputError(
            f"{share.data}: {ops.primary} of split {share.split!r} is undefined, since nothing in it is labelled; "
            "choose another"
        )
    without, *others = [each[ops.primary] for each in scores]
    highest = max(others)
    return CrfSearch(
        uri=uri,
        checkpoint=share.checkpoint,
        weights_sha256=bundle.weights_sha256,
        dataset=dataset.manifest.dataset,
        dataset_version=dataset.version,
        split=share.split,
        num_samples=len(dataset.sample_ids(share.split)),
        primary=ops.primary,
        protocol=ops.protocol,
        without=without,
        best=settings[others.index(highest)] if highest > without else None,
        tried=tuple(CrfTried(settings=crf, value=value) for crf, value in zip(settings, others, strict=True)),
        code_version=code_version(),
    )


def _load(place: str) -> CrfSearch:
    return reports.from_plain(CrfSearch, storage.read_json(place), origin=place)
