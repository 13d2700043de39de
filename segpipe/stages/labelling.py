"""Chosen images as a folder that an annotation tool opens, with what a model proposes for each. Below `select.py`.

    <to>/images/<name>                               as shipped
    <to>/tasks.json, labelling_config.xml            format label-studio
    <to>/proposals.json                              format coco
    <to>/selection.json                              what was chosen, and why: written last

Proposals are a start for who labels and never the truth: tasks hold them as predictions, and source `coco` refuses
their document.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from segpipe import predict as asking
from segpipe import reports, selection, storage
from segpipe.errors import InputError
from segpipe.exports.naming import Stems, ending_of
from segpipe.predict import Asked
from segpipe.predictions import SURE_SCORE, surest
from segpipe.sources.reading.coco_json import PROPOSED
from segpipe.stages.export import claim_place
from segpipe.stages.images import Chosen, Images, Reader, Request

Format = Literal["coco", "label-studio"]
FORMATS: tuple[Format, ...] = ("coco", "label-studio")
DONE = "selection.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenImage:
    """One image: `rank` among the chosen ones by its score (0..1), `file` in the source, `image` in the folder."""

    rank: int
    file: str
    image: str
    image_sha256: str
    score: float
    group: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What lies in a folder that is whole: its last file."""

    format: str
    strategy: str
    models: tuple[str, ...]
    proposed_by: str
    chosen: tuple[ChosenImage, ...]


class Wanted(NamedTuple):
    """One image before it has a name in the folder; the fields are those of `ChosenImage`."""

    request: Request
    image_sha256: str
    score: float
    group: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """Where they go: `to`, in which format, and whose proposals with them. `strategy` and `models` are told."""

    to: str
    format: Format
    proposer: Chosen
    window: tuple[int, int] | None
    strategy: str
    models: tuple[str, ...]

    def write(
        self, wanted: list[Wanted], images: Images, *, batch_size: int, on_progress: Callable[[int, int], None]
    ) -> tuple[ChosenImage, ...]:
        """Asks for proposals and writes everything. A folder that is whole already stays as it is.

        Raises ConflictError where something else lies, InputError where an image is not what it was when it was scored.
        """
        decides = [[each.request.name, each.image_sha256, each.score] for each in wanted]
        asked = [self.proposer.bundle.weights_sha256, self.strategy, self.window, decides]
        key = storage.sha256_bytes(storage.canonical_json(asked))[:12]
        claim_place(self.to, {"selection": key, "format": self.format})
        done = storage.join(self.to, DONE)
        if storage.exists(done):
            return reports.from_plain(Selection, storage.read_json(done), origin=done).chosen
        reader = Reader(images.root, version=images.version, split=images.split)
        load, by_name = partial(asking.load, self.proposer.uri, window=self.window), {w.request.name: w for w in wanted}
        chosen, documents, stems = list[ChosenImage](), list[dict[str, Any]](), Stems()
        requests = [each.request for each in wanted]
        with closing(asking.answers(load, requests, reader.picture, batch_size=batch_size)) as answers:
            for rank, (request, outcome) in enumerate(answers, start=1):
                each = by_name[request.name]
                if not isinstance(outcome, Asked) or storage.sha256_bytes(outcome.picture.image) != each.image_sha256:
                    raise InputError(
                        f"{request.file}: was changed since it was scored: select again, into another folder"
                    )
                name = f"images/{stems.of(request.name)}{ending_of(outcome.picture.image)}"
                storage.write_once(storage.join(self.to, name), outcome.picture.image)
                chosen.append(
                    ChosenImage(
                        rank=rank,
                        file=request.file,
                        image=name,
                        image_sha256=each.image_sha256,
                        score=each.score,
                        group=each.group,
                        why=each.why,
                    )
                )
                documents.append(self._proposed(chosen[-1], outcome))
                on_progress(rank, len(wanted))
        self._put_together(chosen, documents)
        return tuple(chosen)

    def next_steps(self) -> tuple[str, ...]:
        """What a person does now; the last one is the command that reads the answers."""
        local = storage.local_path(self.to)
        source, options = "label_studio", dict[str, str]()
        if self.format == "coco":
            source, options = "coco", {"images": "images", "annotations": "answers.json"}
            before = [
                f"open {self.to}/images in your tool, and proposals.json as its annotations",
                f"save what people made of them, as COCO JSON, as {self.to}/answers.json",
            ]
        else:
            before = [] if local is None else [_served(str(local.parent))]
            stored = "" if local is None else f", add {local} as local storage (no sync)"
            before += [
                f"make a project with labelling_config.xml{stored}, and import tasks.json",
                f"export the answers as JSON into {self.to} (project-*.json)",
            ]
        asked = [word for key, value in options.items() for word in ("--option", f"{key}={value}")]
        entry = json.dumps({"format": source, "root": self.to} | ({"options": options} if options else {}))
        return (
            *before,
            f"to join a dataset, add to the recipe's dataset: additions: [{entry}]; to look at them alone:",
            shlex.join(["segpipe", "ingest", source, self.to, *asked, "--name", "NAME"]),
        )

    def _proposed(self, chosen: ChosenImage, asked: Asked) -> dict[str, Any]:
        """The image with its proposals, as the document of the format takes it."""
        bundle = self.proposer.bundle
        entries = asking.entries(surest(asked.prediction, SURE_SCORE))
        height, width = asked.image_HW3.shape[:2]
        if self.format == "coco":
            return {
                "file_name": chosen.image.removeprefix("images/"),
                "height": height,
                "width": width,
                "annotations": entries,
            }
        data = {
            "image": self._address(chosen.image),
            "why": chosen.why,
            "uncertainty": chosen.score,
            "group": chosen.group,
            "image_sha256": chosen.image_sha256,
        }
        # The best one lies on top, as in every map of ours: it comes last.
        return selection.task(
            data,
            entries[::-1],
            size=(height, width),
            classes=bundle.classes,
            model=self._proposed_by,
            confidence=1 - chosen.score,  # Label Studio sorts by it: what a model is least sure of comes first
        )

    def _address(self, image: str) -> str:
        """Where Label Studio finds an image: by its own server below the folder's parent, or in a store."""
        local = storage.local_path(self.to)
        if local is None:
            return storage.join(self.to, image)
        return f"/data/local-files/?d={quote(f'{local.name}/{image}')}"

    @property
    def _proposed_by(self) -> str:
        return f"{self.proposer.label} {self.proposer.bundle.weights_sha256[:12]}"

    def _put_together(self, chosen: list[ChosenImage], documents: list[dict[str, Any]]) -> None:
        classes = self.proposer.bundle.classes
        files: Mapping[str, bytes]
        if self.format == "coco":
            document = asking.document(documents, classes=classes, description="proposals of a model, not the truth")
            document["info"][PROPOSED] = self._proposed_by
            files = {"proposals.json": _compact(document)}
        else:
            config = selection.labelling_config(classes).encode()
            files = {"labelling_config.xml": config, "tasks.json": _compact(documents)}
        for name, data in files.items():
            storage.write_once(storage.join(self.to, name), data)
        about = Selection(
            format=self.format,
            strategy=self.strategy,
            models=self.models,
            proposed_by=self._proposed_by,
            chosen=tuple(chosen),
        )
        storage.failpoint("select.done")
        storage.write_json_once(storage.join(self.to, DONE), reports.to_plain(about))


def _compact(document: Any) -> bytes:
    """JSON without a line for each of a million run lengths."""
    return json.dumps(document, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()


def _served(parent: str) -> str:
    serving = "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true"
    return f"{serving} LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={shlex.quote(parent)} label-studio start"
