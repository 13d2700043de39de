"""What a model says of many images, as little of it as query strategies need. Below `select.py`.

    <home>/scores/<label>-<key>/votes/<name>-<hash>.png     the class of every pixel of an image, made small
    <home>/scores/<label>-<key>/records/<name>-<hash>.json  how unsure the model is of the image: written last

A folder is named by what decides the scores (weights, code, images, window), so that another strategy or another number
of images asks nobody again, and a call that was stopped goes on where it was. An image is known by its name and
its hash.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from segpipe import masks, reports, selection, storage
from segpipe import predict as asking
from segpipe.errors import CorruptError, NonFiniteError
from segpipe.exports.naming import Stems
from segpipe.predict import Asked, Picture, Refused
from segpipe.predictions import LabelMap, shrunk
from segpipe.stages import layout
from segpipe.stages.images import Chosen, Images, Reader, Request, entry_of
from segpipe.types import QuarantineEntry
from segpipe.version import code_version

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What is known of an image: `uncertainty` by strategy, empty where the model tells no probabilities; `look` its
    perceptual hash, in hex; `votes` where its small map lies."""

    image_sha256: str
    look: str
    uncertainty: Mapping[str, float]
    votes: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """The scores of a model by the names of the requests, in their order; `asked` of them were made now. `left_out`
    counts images that nobody was asked about."""

    scores: Mapping[str, Score]
    refused: tuple[QuarantineEntry, ...]
    left_out: int
    asked: int


def score(
    chosen: Chosen,
    images: Images,
    *,
    unwanted: Collection[str],
    window: tuple[int, int] | None,
    batch_size: int,
    on_progress: Progress,
) -> Scored:
    """The score of each image, kept or made now; those whose SHA-256 is `unwanted` are left out.

    Raises NonFiniteError for a model that has diverged.
    """
    key = layout.key(chosen.bundle.weights_sha256, code_version(), images.identity, str(window))
    folder, stems = storage.join(layout.scores_uri(), f"{chosen.label}-{key}"), Stems()
    requests, places = images.requests, {request.name: stems.of(request.name) for request in images.requests}
    # One that its EXIF turns no source reads back, whatever people label on it.
    reader = Reader(images.root, version=images.version, split=images.split, turned=False)
    found: dict[str, Score] = {}
    left_out = list[str]()

    def read(request: Request) -> Picture | None:
        image_sha256, picture = reader.hashed(request)
        if image_sha256 in unwanted:
            left_out.append(request.name)
            return None
        if (known := _known(folder, places[request.name], image_sha256)) is None:
            return picture or reader.picture(request)
        found[request.name] = known
        return None

    refused: list[QuarantineEntry] = []
    asked = 0
    load = partial(asking.load, chosen.uri, window=window)
    on_progress(0, len(requests))
    with closing(asking.answers(load, requests, read, batch_size=batch_size)) as answers:
        for done, (request, outcome) in enumerate(answers, start=1):
            if isinstance(outcome, Refused):
                refused.append(entry_of(request, outcome))
            elif outcome is not None:
                found[request.name] = _make(folder, places[request.name], outcome, chosen)
                asked += 1
            on_progress(done, len(requests))
    scores = {request.name: found[request.name] for request in requests if request.name in found}
    return Scored(scores=scores, refused=tuple(refused), left_out=len(left_out), asked=asked)


def read_votes(score: Score) -> masks.Labels:
    """The small map of an image. Raises CorruptError where it was damaged since it was looked for."""
    return masks.read_label_image(storage.read_bytes(score.votes), file=score.votes)


def _make(folder: str, stem: str, asked: Asked, chosen: Chosen) -> Score:
    bundle, prediction = chosen.bundle, asked.prediction
    num_classes = len(bundle.classes)
    by_strategy: dict[str, float] = {}
    if isinstance(prediction, LabelMap) and prediction.levels_KP is not None and num_classes > 1:
        try:
            by_strategy = selection.uncertainty(prediction.levels_KP, *asked.image_HW3.shape[:2])
        except ValueError as error:
            raise NonFiniteError(f"{chosen.uri}: what it says of {asked.picture.file} is no probability") from error
    ids_hw = shrunk(asking.class_ids(prediction, num_classes))
    votes = masks.encode_png(ids_hw.astype(masks.ids_type(num_classes)), quickly=True)
    made = Score(
        image_sha256=storage.sha256_bytes(asked.picture.image),
        look=f"{asking.look_at(asked).perceptual_hash:016x}",
        uncertainty=by_strategy,
        votes=storage.join(folder, "votes", f"{stem}-{storage.sha256_bytes(votes)[:16]}.png"),
    )
    record = storage.canonical_json(reports.to_plain(made))
    for uri, data in ((made.votes, votes), (_record_uri(folder, stem, made.image_sha256), record)):
        storage.replace(uri, data)
    return made


def _known(folder: str, stem: str, image_sha256: str) -> Score | None:
    uri = _record_uri(folder, stem, image_sha256)
    if not storage.exists(uri):
        return None
    try:
        told = reports.from_plain(Score, storage.read_json(uri), origin=uri)
    except CorruptError:
        return None
    return told if told.image_sha256 == image_sha256 and _is_whole(told.votes) else None


def _is_whole(votes: str) -> bool:
    """Whether a small map is there as it was made: its name ends with its hash."""
    digest = votes.removesuffix(".png").rpartition("-")[2]
    return storage.exists(votes) and storage.sha256_file(votes).startswith(digest)


def _record_uri(folder: str, stem: str, image_sha256: str) -> str:
    return storage.join(folder, "records", f"{stem}-{image_sha256[:16]}.json")
