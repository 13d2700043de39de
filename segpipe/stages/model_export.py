"""A trained model -> files that other programs run, compared with the model before they are published. Behind
`segpipe models export`.

Apart from `stages/export.py`, which writes a dataset: the two have neither an argument nor a result in common.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe import checkpoint, models, portable, reports, storage
from segpipe.data.batch import Batch, entering_size
from segpipe.data.loader import EvalBatches
from segpipe.errors import ConflictError, InputError, SegpipeError
from segpipe.evaluate import one_thread, task_of
from segpipe.models.spec import DenseOutput
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import at_work, datasets, layout, named_models
from segpipe.stages.numbers import counted
from segpipe.types import ModelBundle
from segpipe.version import code_version

LOGITS_EPSILON, MIOU_EPSILON = 1e-4, 1e-3
SIDECAR = "export.json"
Note = Callable[[str], None]


class ExportRefusedError(SegpipeError):
    """A file does not say what the model says; nothing was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedFile:
    """`sha256` and `bytes` are of the file beside the sidecar that this stands in."""

    format: str
    file: str
    bytes: int
    sha256: str
    agreement: portable.Agreement


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedModel:
    """The sidecar: all that a program needs to ask the files beside it, and how well they were seen to agree.

    `input` and `output` are the contract in words and numbers; `free_axes` of the input may have any size. `around` is
    what an evaluation of this model does around one pass, which the files do not.
    """

    to: str
    arch: str
    options: Mapping[str, Any]
    weights_sha256: str
    dataset: str
    dataset_version: str
    code_version: str
    classes: tuple[str, ...]
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    free_axes: tuple[str, ...]
    why_fixed: str
    around: Mapping[str, Any]
    opset: int | None
    torch: str
    logits_epsilon: float
    miou_epsilon: float
    compared_on: str
    files: tuple[ExportedFile, ...]
    latency_size: tuple[int, int]
    latency: tuple[portable.Latency, ...]


def export_model(
    model: str,
    *,
    to: str,
    data: str,
    formats: Sequence[str] = tuple(portable.FORMATS),
    version: str | None = None,
    split: str = "test",
    images: int = 8,
    dynamic: bool = True,
    logits_epsilon: float = LOGITS_EPSILON,
    miou_epsilon: float = MIOU_EPSILON,
    runs: int = 5,
    on_step: Note = lambda _: None,
) -> ExportedModel:
    """Writes `model` (a bundle's folder, or models:/NAME@champion, @challenger or /VERSION) below `to`, once.

    Each file is asked about the first `images` images of a split of the dataset at `data`: of one size
    alone where the network allows no other. `runs` passes are timed by each way to run it; 0 times none. Raises
    ExportRefusedError where logits or mean IoU are further from the model's than their epsilon, and writes nothing;
    InputError for a model that has no logits of every pixel, a missing extra, an unknown format or split; ConflictError
    where other files lie at `to`.
    """
    place, names, uri = _empty(layout.absolute(to)), _formats(formats), named_models.bundle_of(model)
    bundle = checkpoint.load_bundle(uri)
    _require_dense(bundle)
    dataset = open_dataset(datasets.found(data), version=version)
    ops = task_of(bundle, dataset.manifest, origin=uri)
    _require_split(dataset, split)
    network, bundle = checkpoint.load_model(uri)  # reads and hashes all weights: after what is refused in no time
    with at_work.reading(dataset.uri, dataset.version), one_thread(), storage.scratch() as scratch:
        batches = list(itertools.islice(EvalBatches(dataset, split, batch_size=1), images))
        size = _entering(batches[0], bundle)
        on_step(f"tracing {bundle.arch} at {size[0]}x{size[1]}")
        traced = portable.trace(network, size, epsilon=logits_epsilon, dynamic=dynamic)
        if "height" not in traced.free:
            batches = [batch for batch in batches if _entering(batch, bundle) == size]
        expected = portable.answers(portable.Logits(network), batches, bundle, ops)
        files, opened = [], {}
        for name in names:
            on_step(f"writing {name} and comparing it on {counted(len(batches), 'image')}")
            path = scratch / portable.FORMATS[name].file
            opened[name] = _written(name, traced, path)
            found = portable.agreement(expected, portable.answers(opened[name], batches, bundle, ops))
            _require_agreement(name, found, logits_epsilon, miou_epsilon)
            files.append(_file(name, path, found))
        on_step(f"timing {counted(runs, 'pass', 'passes')} by each way to run it")
        timed = portable.latencies(portable.Logits(network), opened, portable.inputs(batches[0], bundle), runs=runs)
        result = ExportedModel(
            to=place,
            **_contract(bundle, traced),
            opset=portable.OPSET if "onnx" in names else None,
            logits_epsilon=logits_epsilon,
            miou_epsilon=miou_epsilon,
            compared_on=f"{dataset.manifest.dataset} {dataset.version[:12]} {split}",
            files=tuple(files),
            latency_size=size,
            latency=tuple(timed),
        )
        return _publish(result, scratch)


def _publish(result: ExportedModel, scratch: Path) -> ExportedModel:
    """The sidecar last: without it the files are no export."""
    for each in result.files:
        storage.commit_file(scratch / each.file, storage.join(result.to, each.file))
    storage.write_json_once(storage.join(result.to, SIDECAR), reports.to_plain(result))
    return result


def _formats(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in portable.FORMATS:
            raise InputError(f"unknown format {name!r}; known are: {', '.join(portable.FORMATS)}")
        if lacking := portable.missing(name):
            raise InputError(
                f"--format {name} needs {', '.join(lacking)}, which this installation lacks: install the extra `onnx` "
                "(pip install 'segpipe[onnx]'), or ask for --format pt2 alone"
            )
    return list(dict.fromkeys(names))


def _require_split(dataset: Dataset, split: str) -> None:
    found = dataset.manifest.splits.get(split)
    if found is None or not found.samples:
        raise InputError(f"--split {split!r}: {dataset.uri} has {', '.join(dataset.manifest.splits)}")


def _empty(place: str) -> str:
    """The place, where nothing lies. Raises ConflictError."""
    if there := storage.list_tree(place):
        raise ConflictError(
            f"{place}: holds {counted(len(there), 'file')} already, {there[0]} among them; nothing was written. Name a "
            "folder that is empty or not there yet"
        )
    return place


def _require_dense(bundle: ModelBundle) -> None:
    spec = models.spec(bundle.arch)
    if spec.output is not DenseOutput or spec.learns_by != "descent":
        what = f"answers with {spec.output.__name__}" if spec.learns_by == "descent" else f"learns by {spec.learns_by}"
        raise InputError(
            f"{bundle.arch} {what}: a network is exported that gives a score of each class for every pixel; serve this "
            "one with `mlflow models serve`"
        )


def _entering(batch: Batch, bundle: ModelBundle) -> tuple[int, int]:
    return entering_size(batch.original_sizes[0], bundle.input_scale)


def _require_agreement(name: str, found: portable.Agreement, logits_epsilon: float, miou_epsilon: float) -> None:
    faults = []
    if not found.logits <= logits_epsilon:
        faults.append(f"its logits differ by {found.logits:.3g} of the largest, and {logits_epsilon:g} is allowed")
    if not abs(found.miou - found.exported_miou) <= miou_epsilon:
        faults.append(
            f"its mIoU is {found.exported_miou:.5f} and the model's {found.miou:.5f}, {miou_epsilon:g} apart at most"
        )
    if faults:
        raise ExportRefusedError(
            f"{name}: not the model, on {counted(found.images, 'image')}: {'; '.join(faults)}. Nothing was written"
        )


def _written(name: str, traced: portable.Traced, path: Path) -> portable.Network:
    """Writes a file and opens it again. Raises ExportRefusedError where a library cannot."""
    how = portable.FORMATS[name]
    try:
        how.write(traced.program, path)
        return how.open(path)
    except Exception as error:
        # The libraries raise all kinds, mostly of an operation that the format has no word for.
        raise ExportRefusedError(
            f"{name}: this network cannot be written or opened so, and nothing was written: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:400]}"
        ) from error


def _file(name: str, path: Path, agreement: portable.Agreement) -> ExportedFile:
    return ExportedFile(
        format=name,
        file=path.name,
        bytes=path.stat().st_size,
        sha256=storage.sha256_file(str(path)),
        agreement=agreement,
    )


def _contract(bundle: ModelBundle, traced: portable.Traced) -> dict[str, Any]:
    """The fields of the sidecar that say which network this is, what goes in and what comes out."""
    shape = dict(_shape(traced))
    answer = "one logit: the second class where it is above 0" if bundle.sigmoid else "a softmax over K sums to 1"
    sides = [shape["height"], shape["width"]]
    return {
        "arch": bundle.arch,
        "options": bundle.options,
        "weights_sha256": bundle.weights_sha256,
        "dataset": bundle.dataset,
        "dataset_version": bundle.dataset_version,
        "code_version": code_version(),
        "classes": tuple(each.name for each in bundle.classes),
        "input": {
            "name": portable.INPUT,
            "dtype": "float32",
            "layout": "N3HW, RGB",
            "shape": [shape["batch"], 3, *sides],
            "mean": list(bundle.mean),
            "std": list(bundle.std),
            "input_scale": bundle.input_scale,
            "how": "pixels in 0..1, resized by input_scale (bilinear, antialiased), minus mean, divided by std",
        },
        "output": {
            "name": portable.OUTPUT,
            "dtype": "float32",
            "layout": "NKHW",
            "shape": [shape["batch"], 1 if bundle.sigmoid else len(bundle.classes), *sides],
            "what": f"logits at the input's size; {answer}",
        },
        "free_axes": traced.free,
        "why_fixed": traced.why_fixed,
        "around": reports.to_plain(bundle.inference),
        "torch": portable.TORCH,
    }


def _shape(traced: portable.Traced) -> Iterator[tuple[str, str | int]]:
    for name, fixed in zip(portable.AXES, (1, *traced.size), strict=True):
        yield name, "any" if name in traced.free else fixed
