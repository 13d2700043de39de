"""Stage 3: a model bundle and a dataset version -> an `EvalReport` and pictures. Between `train` and `promote`.

The report's folder is named by what decides it (weights, dataset version, split, protocol, code), so evaluating the
same model on the same data twice costs one read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from segpipe import checkpoint, masks, reports, storage
from segpipe.config import EvaluateConfig, Recipe
from segpipe.errors import ConflictError, InputError
from segpipe.evaluate import Counted, Share, assemble, evaluate_share, task_of
from segpipe.report import choosing, pictures
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import at_work, card, datasets, layout, small_maps
from segpipe.stages.evaluations import REPORT, finished_report, load_report
from segpipe.tasks import TaskOps
from segpipe.types import EvalReport
from segpipe.version import code_version


def evaluate(
    model_uri: str,
    *,
    data: str,
    version: str,
    to: str,
    config: EvaluateConfig,
    experiment: str,
    label: str,
    cpus: float = 1,
    runtime: Literal["ray", "local"] = "ray",
    with_card: bool = True,
) -> EvalReport:
    """Scores a model bundle on one split, by `config.workers` Ray tasks of one thread or in this process.

    A task asks Ray for `cpus`: beside trainings that take a part of a core, a whole one is not free until they end.
    Writes `<to>/<version>/<label>-<key>/report.json` last, with PNG pictures of `config.pictures` samples beside it,
    the small maps of all samples, and, unless nobody will read it, the model card.
    """
    model_uri, data = layout.absolute(model_uri), datasets.found(data)
    bundle, dataset = checkpoint.load_bundle(model_uri), open_dataset(data, version=version)
    folder = location(bundle.weights_sha256, label=label, version=dataset.version, config=config, to=to)
    if (known := finished_report(folder)) is not None:
        return known
    # With the pictures: one that is damaged, or was drawn by another device before a crash, would be in the way.
    storage.delete_tree(folder)
    _check_split(dataset, config.split)
    pictured = _picture_ids(dataset, config)
    shares = [
        Share(
            checkpoint=model_uri,
            data=data,
            version=dataset.version,
            split=config.split,
            batch_size=config.batch_size,
            rank=rank,
            world_size=config.workers,
            keep=pictured,
        )
        for rank in range(config.workers)
    ]
    with at_work.reading(data, dataset.version):
        counted = _count_all(shares, runtime, cpus)
        report = assemble(counted, share=shares[0], experiment=experiment, label=label)
        ops = task_of(bundle, dataset.manifest, origin=model_uri)
        for sample_id, picture in _pictures(dataset, ops, counted, config):
            storage.write_once(storage.join(folder, "pictures", f"{_file_name(sample_id)}.png"), picture)
        small = {sample_id: png for part in counted for sample_id, png in part.small.items()}
        small_maps.write(folder, small, report.sample_ids)
        if with_card:
            card.write(report, folder, data=data)
    try:
        storage.write_json_once(storage.join(folder, REPORT), reports.to_plain(report))
    except ConflictError:
        return load_report(folder)  # somebody evaluated the same just now: equal counts, other seconds
    return report


def location(weights_sha256: str, *, label: str, version: str, config: EvaluateConfig, to: str) -> str:
    """The folder that this evaluation has, or will have."""
    name = layout.key(weights_sha256, config.split, str(config.batch_size), str(config.pictures), code_version())
    return storage.join(layout.absolute(to), version[:12], f"{label}-{name}")


def evaluation_uri(recipe: Recipe, report: EvalReport) -> str:
    """The folder of a report that was made for a recipe."""
    return report_uri(report, config=recipe.evaluate, to=layout.evaluations_uri(recipe.name))


def report_uri(report: EvalReport, *, config: EvaluateConfig, to: str) -> str:
    """The folder of a report that `evaluate` made with this `config` and `to`."""
    return location(report.weights_sha256, label=report.label, version=report.dataset_version, config=config, to=to)


def _count_all(shares: list[Share], runtime: Literal["ray", "local"], cpus: float) -> list[Counted]:
    if runtime == "local":
        return [evaluate_share(share) for share in shares]
    from segpipe.train import on_ray  # ray costs seconds to import, and a local evaluation does not need it

    on_ray.connect()
    return on_ray.fan_out(evaluate_share, shares, num_cpus=cpus, num_gpus=on_ray.gpu_share())


def _check_split(dataset: Dataset, split: str) -> None:
    found = dataset.manifest.splits.get(split)
    if found is None or not found.samples:
        known = ", ".join(f"{name} ({s.samples})" for name, s in dataset.manifest.splits.items())
        raise InputError(f"{dataset.uri}: evaluate.split is {split!r}, which is missing or empty; there are: {known}")


def _picture_ids(dataset: Dataset, config: EvaluateConfig) -> tuple[str, ...]:
    """Samples spread evenly over the split: the same for every model, so that pictures can be compared."""
    return tuple(choosing.evenly(dataset.sample_ids(config.split), config.pictures))


def _pictures(
    dataset: Dataset, ops: TaskOps, counted: list[Counted], config: EvaluateConfig
) -> Iterator[tuple[str, bytes]]:
    predictions = {sample_id: p for part in counted for sample_id, p in part.predictions.items()}
    ids = dataset.sample_ids(config.split)
    rows = [row for row, sample_id in enumerate(ids) if sample_id in predictions]
    for sample in dataset.read(config.split, rows, extras=False):
        picture = pictures.draw(
            masks.read_rgb(sample.image, file=sample.sample_id),
            predictions[sample.sample_id],
            ops.truth(sample),
            classes=dataset.manifest.classes,
            ignore_index=dataset.manifest.ignore_index,
            title=sample.sample_id,
        )
        yield sample.sample_id, picture


def _file_name(sample_id: str) -> str:
    """A sample id as a file name: ids come from data, so only harmless characters stay, and a hash keeps them apart."""
    harmless = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in sample_id)
    return f"{harmless[:48]}-{layout.key(sample_id)[:6]}"
