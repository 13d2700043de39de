"""What a model says of images, as files for people and programs. Behind `segpipe predict`.

    <to>/<label>-<key>/masks|overlays|instances|cutouts/<name>.png, coco/<name>.json, coco.json
    <to>/<label>-<key>/records/<name>.json     what was found, and the hash of every file: written last
    <to>/<label>-<key>/quarantine/<hash>.json  images that could not be used

The folder is named by what decides the results (weights, code, images, what was asked); an image whose record and files
are whole is not asked about again, so that a second call goes on where the first one stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from segpipe import drift, palettes, reports, storage
from segpipe import predict as asking
from segpipe.errors import CorruptError, InputError
from segpipe.exports.naming import Stems
from segpipe.predict import Asked, Picture, Refused
from segpipe.predictions import surest
from segpipe.report.overlays import has_class_colours
from segpipe.stages import drift as drifting
from segpipe.stages import layout, quarantine
from segpipe.stages.drift import THRESHOLD, Drift
from segpipe.stages.images import Chosen, Images, Reader, Request, chosen_model, entry_of, images_of
from segpipe.types import ClassInfo, QuarantineEntry, Task
from segpipe.version import code_version

Progress = Callable[[int, int], None]
OUTPUTS = ("masks", "overlays", "coco", "instances", "cutouts")
_COLOURED = ("masks", "overlays")
_WRITERS, _WAITING = 2, 8
# What a model of each task cannot say: pixels need masks, objects need to be told apart.
_LACKING: Mapping[Task, tuple[str, ...]] = {
    Task.SEMANTIC: ("instances",),
    Task.DETECTION: ("masks", "instances", "cutouts"),
    Task.KEYPOINTS: ("masks", "instances", "cutouts"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A file of an image's results: where it lies in the folder, and what its bytes are."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """What is known of one image: `found` are pixels by class (objects of a model that tells these), `cutout_box`
    x0, y0, x1, y1 of the cut-out in pixels, `levels` what it counts as when drift is looked for."""

    file: str
    image_sha256: str
    height: int
    width: int
    found: Mapping[str, int]
    files: Mapping[str, Made]
    cutout_box: tuple[int, int, int, int] | None
    levels: drift.Levels


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What a call came to: of `images`, `made` were asked about now, `kept` were there, the rest is `quarantined`.

    `outputs` are the kinds of files, each with its place. `images_per_second` counts those that were made now, over the
    whole call; None where none was. `drift` is of all images, also those that were there.
    """

    to: str
    model: str
    label: str
    weights_sha256: str
    images: int
    made: int
    kept: int
    outputs: Mapping[str, str]
    palette: str
    quarantined: tuple[QuarantineEntry, ...]
    quarantine: str | None
    notes: tuple[str, ...]
    seconds: float
    images_per_second: float | None
    drift: Drift


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is to be written of each image."""

    outputs: tuple[str, ...]
    classes: tuple[ClassInfo, ...]  # in the colours of the palette
    palette: str
    cutout: int | None
    least_score: float


def predict(
    model: str,
    source: str,
    *,
    to: str | None = None,
    outputs: Sequence[str] = ("masks",),
    cutout: str | None = None,
    palette: str | None = None,
    version: str | None = None,
    split: str | None = None,
    window: tuple[int, int] | None = None,
    least_score: float = 0.5,
    batch_size: int = 4,
    drift_threshold: float = THRESHOLD,
    on_progress: Progress | None = None,
) -> Predicted:
    """Asks a model about every image of `source`, in this process, and writes what it says below `to`.

    `outputs` are some of OUTPUTS; `cutout` names the class that "cutouts" show, and asks for these. The `palette` is
    that of masks and overlays, their own colours where none is named. `window` (height,
    width) makes a model of pixels see larger images window by window. Objects of a score below `least_score` stand in
    COCO's files alone. `drift_threshold` is how far a statistic may be from that of the training (`drift.py`). Raises
    InputError for what cannot be asked; an image that cannot be used is quarantined, and its neighbours go on.
    """
    started = time.perf_counter()
    drifting.check_threshold(drift_threshold)
    chosen = chosen_model(model)
    wanted = _wanted(chosen, outputs, cutout, palette, least_score)
    images = images_of(source, version=version, split=split)
    asking.check_model(chosen.bundle, window=window, from_dataset=images.version is not None)
    folder = location(chosen, images, wanted, window=window, to=to or layout.predictions_uri())
    stems = _stems(images)
    work = _Work(folder, chosen, wanted, Reader(images.root, version=images.version, split=images.split), stems)
    load = partial(asking.load, chosen.uri, window=window)
    entries = work.run(images.requests, load, batch_size=batch_size, on_progress=on_progress)
    if "coco" in wanted.outputs:
        # Of an image that cannot be used any more the record of an earlier call may still be there.
        used = [stems[request.name] for request in images.requests if request.name in work.levels]
        _join_coco(folder, used, chosen)
    listed = quarantine.keep(entries, folder)
    seconds = time.perf_counter() - started
    return Predicted(
        to=folder,
        model=chosen.uri,
        label=chosen.label,
        weights_sha256=chosen.bundle.weights_sha256,
        images=len(images.requests),
        made=work.made,
        kept=work.kept,
        outputs={kind: storage.join(folder, "coco.json" if kind == "coco" else kind) for kind in wanted.outputs},
        palette=wanted.palette,
        quarantined=tuple(entries),
        quarantine=None if listed is None else storage.join(folder, listed),
        notes=images.notes,
        seconds=seconds,
        images_per_second=work.made / seconds if work.made else None,
        drift=drifting.told(
            chosen, work.levels.items, groups=images.groups(), version=images.version, threshold=drift_threshold
        ),
    )


def location(chosen: Chosen, images: Images, wanted: Wanted, *, window: tuple[int, int] | None, to: str) -> str:
    """The folder that these results have, or will have."""
    decides = {
        "outputs": list(wanted.outputs),
        "palette": wanted.palette,
        "cutout": wanted.cutout,
        "least_score": wanted.least_score,
        "window": window and list(window),
    }
    asked = storage.canonical_json(decides).decode()
    key = layout.key(chosen.bundle.weights_sha256, code_version(), images.identity, asked)
    return storage.join(layout.absolute(to), f"{chosen.label}-{key}")


class _Work:
    """Images in, files out: the loop asks, threads write behind it."""

    def __init__(self, folder: str, chosen: Chosen, wanted: Wanted, reader: Reader, stems: Mapping[str, str]) -> None:
        self._folder, self._bundle, self._wanted = folder, chosen.bundle, wanted
        self._reader, self._stems = reader, stems
        self.made = self.kept = 0
        self.levels: dict[str, drift.Levels] = {}

    def run(
        self,
        requests: Sequence[Request],
        load: Callable[[], asking.Model],
        *,
        batch_size: int,
        on_progress: Progress | None,
    ) -> list[QuarantineEntry]:
        """Every request once; gives back what could not be used."""
        refused: list[QuarantineEntry] = []
        waiting: deque[Future[None]] = deque()
        tell = on_progress or (lambda done, total: None)
        tell(0, len(requests))
        with (
            ThreadPoolExecutor(_WRITERS, thread_name_prefix="segpipe-write") as pool,
            closing(asking.answers(load, requests, self._read, batch_size=batch_size)) as answers,
        ):
            for done, (request, outcome) in enumerate(answers, start=1):
                if isinstance(outcome, Refused):
                    refused.append(entry_of(request, outcome))
                elif outcome is None:
                    self.kept += 1
                else:
                    self.made += 1
                    waiting.append(pool.submit(self._write, request, outcome))
                while len(waiting) > _WAITING:
                    waiting.popleft().result()
                tell(done, len(requests))
            for future in waiting:
                future.result()
        return refused

    def _read(self, request: Request) -> Picture | None:
        """The image, or None where its results are there and whole."""
        image_sha256, picture = self._reader.hashed(request)
        known = _whole(self._folder, self._stems[request.name], image_sha256)
        if known is None:
            return picture or self._reader.picture(request)
        self.levels[request.name] = known.levels
        return None

    def _write(self, request: Request, asked: Asked) -> None:
        stem, wanted = self._stems[request.name], self._wanted
        files: dict[str, Made] = {}

        def put(kind: str, path: str, data: bytes) -> None:
            storage.replace(storage.join(self._folder, path), data)
            files[kind] = Made(path=path, sha256=storage.sha256_bytes(data))

        prediction, image_HW3 = surest(asked.prediction, wanted.least_score), asked.image_HW3
        height, width = image_HW3.shape[:2]
        if "masks" in wanted.outputs:
            grey = wanted.palette == palettes.GREY
            put("masks", f"masks/{stem}.png", asking.mask(prediction, classes=wanted.classes, grey=grey))
        if "overlays" in wanted.outputs:
            put("overlays", f"overlays/{stem}.png", asking.overlay(image_HW3, prediction, classes=wanted.classes))
        if "instances" in wanted.outputs:
            put("instances", f"instances/{stem}.png", asking.instances(prediction))
        if "coco" in wanted.outputs:
            image = {"file_name": asked.picture.file, "height": height, "width": width}
            document = {**image, "annotations": asking.entries(asked.prediction)}  # with scores: all of them
            put("coco", f"coco/{stem}.json", storage.canonical_json(document))
        box = None
        if wanted.cutout is not None:
            cut = asking.cutout(image_HW3, prediction, wanted.cutout)
            if cut is not None:
                box = cut[0]
                put("cutouts", f"cutouts/{stem}.png", cut[1])
        record = ImageRecord(
            file=asked.picture.file,
            image_sha256=storage.sha256_bytes(asked.picture.image),
            height=height,
            width=width,
            found=asking.counts(prediction, wanted.classes),
            files=files,
            cutout_box=box,
            levels=asking.levels_of(asked, asking.look_at(asked), self._bundle),
        )
        self.levels[request.name] = record.levels
        storage.replace(_record_uri(self._folder, stem), storage.canonical_json(reports.to_plain(record)))


def _wanted(
    chosen: Chosen, outputs: Sequence[str], cutout: str | None, palette: str | None, least_score: float
) -> Wanted:
    bundle = chosen.bundle
    asked = tuple(kind for kind in OUTPUTS if kind in outputs or (kind == "cutouts" and cutout is not None))
    if unknown := sorted(set(outputs) - set(OUTPUTS)):
        raise InputError(f"output {unknown[0]!r}: expected some of {', '.join(OUTPUTS)}")
    if lacking := [kind for kind in asked if kind in _LACKING.get(bundle.task, ())]:
        known = ", ".join(kind for kind in OUTPUTS if kind not in _LACKING.get(bundle.task, ()))
        raise InputError(
            f"{chosen.uri}: {lacking[0]} cannot be made of what {bundle.arch} of task {bundle.task} says; it gives: "
            f"{known}"
        )
    if palette is not None and not {*asked} & {*_COLOURED}:
        raise InputError(
            f"palette {palette!r} colours {' and '.join(_COLOURED)}, and {' and '.join(asked)} alone would be made: "
            "leave it out, or ask for one of these too (--output)"
        )
    class_names = [info.name for info in bundle.classes]
    if ("cutouts" in asked and cutout is None) or (cutout is not None and cutout not in class_names):
        raise InputError(
            f"cut-outs of {cutout!r}: expected one class of the model, which are: {', '.join(class_names)}"
            if cutout is not None
            else f"cut-outs show one class: name it (--cutout), one of: {', '.join(class_names)}"
        )
    return Wanted(
        outputs=asked,
        classes=_coloured(chosen, asked, palette or palettes.OWN),
        palette=palette or palettes.OWN,
        cutout=None if cutout is None else class_names.index(cutout),
        least_score=least_score,
    )


def _coloured(chosen: Chosen, asked: tuple[str, ...], palette: str) -> tuple[ClassInfo, ...]:
    """The classes of the model in the colours of the palette, as far as anything that is asked shows them."""
    bundle = chosen.bundle
    if not {"masks", "overlays"} & set(asked):
        return bundle.classes
    if "masks" in asked:
        if palette != palettes.GREY:
            asking.check_colours(len(bundle.classes), everywhere=bundle.task is Task.SEMANTIC)
    elif palette == palettes.GREY:
        raise InputError(f"palette {palette!r} is of masks, whose ids it leaves without colours; leave it out")
    elif palette != palettes.OWN and not has_class_colours(bundle.task, bundle.classes):
        raise InputError(
            f"palette {palette!r} is seen in no overlay of {bundle.arch} of task {bundle.task}: keypoints, and objects "
            "of a model that knows one class, have colours that tell them apart and not their class; leave it out"
        )
    colours = palettes.colours_of(palette, bundle.classes) or [info.colour for info in bundle.classes]
    return tuple(replace(info, colour=colour) for info, colour in zip(bundle.classes, colours, strict=True))


def _stems(images: Images) -> dict[str, str]:
    """What the files of each request are called; a name from data is no way out of the folder."""
    stems = Stems()
    return {request.name: stems.of(request.name) for request in images.requests}


def _whole(folder: str, stem: str, image_sha256: str) -> ImageRecord | None:
    """The record of this very image, where its results are there, to the last byte."""
    record = _record(folder, stem)
    if record is None or record.image_sha256 != image_sha256:
        return None
    places = [(storage.join(folder, made.path), made.sha256) for made in record.files.values()]
    is_whole = all(storage.exists(uri) and storage.sha256_file(uri) == sha256 for uri, sha256 in places)
    return record if is_whole else None


def _record(folder: str, stem: str) -> ImageRecord | None:
    """The record of an image; None where there is none that can be read: it is made again."""
    uri = _record_uri(folder, stem)
    if not storage.exists(uri):
        return None
    try:
        return reports.from_plain(ImageRecord, storage.read_json(uri), origin=uri)
    except CorruptError:
        return None


def _record_uri(folder: str, stem: str) -> str:
    return storage.join(folder, "records", f"{stem}.json")


def _join_coco(folder: str, stems: Sequence[str], chosen: Chosen) -> None:
    """coco.json of the parts of all images, in their order."""

    def part(made: Made) -> Any:
        return storage.read_json(storage.join(folder, made.path))

    records = [record for stem in stems if (record := _record(folder, stem)) is not None]
    document = asking.document(
        (part(record.files["coco"]) for record in records if "coco" in record.files),
        classes=chosen.bundle.classes,
        description=f"predictions of {chosen.label} {chosen.bundle.weights_sha256[:12]}",
    )
    storage.replace(storage.join(folder, "coco.json"), storage.canonical_json(document))
