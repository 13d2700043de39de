"""Label Studio: what people painted and drew, as its export "JSON" has it, beside the photographs.

Source: labelstud.io/guide/task_format. A region is one object; regions are painted in the order of the answer, later
ones over earlier ones; polygons are filled as COCO fills them, brushes hold every pixel. Answers of people count and
nothing else: no prediction of a model, no draft, none that was cancelled (a task that was skipped). Of several answers
to a task the one that is marked as ground truth counts, else the newest. Where nobody painted, nothing is known, unless
the option `unlabelled` names a class.

    answers.py   what the export says, checked
    config.py    the classes of the labelling configuration
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from segpipe import storage
from segpipe.errors import BadSampleError, InputError
from segpipe.masks import ids_type, stored
from segpipe.sources.label_studio.answers import Answer, find_export, parsed, pixels_of
from segpipe.sources.label_studio.config import CONFIG, Config, read_config
from segpipe.sources.reading import (
    PICTURE_SUFFIXES,
    Listing,
    below,
    class_colour,
    coding,
    hashed_split,
    ignored_beside,
    is_inside,
    parse_shares,
    read_photograph,
    sample_of,
    segment_of_mask,
    shown,
)
from segpipe.sources.spec import Index, Licence, Shares, SourceInfo
from segpipe.types import (
    Annotation,
    ClassInfo,
    LabelCoding,
    Sample,
    SampleRef,
    Segment,
    Task,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelStudio:
    """An export with its photographs, opened by `open_label_studio`."""

    root: str
    export: str
    images: str
    config: Config | None
    unlabelled: str
    shares: tuple[float, ...]
    licence: str
    name: str = "label_studio"
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP, Annotation.SEGMENTS)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Those of the labelling configuration, without one the labels in use, sorted; before them `unlabelled`, where
        it is none of them. Raises InputError."""
        infos = self.config.classes if self.config else _named(self._labels_in_use())
        if self.unlabelled and self.unlabelled not in {info.name for info in infos}:
            infos = (ClassInfo(name=self.unlabelled, colour=class_colour(0)), *infos)
        if not infos:
            raise InputError(
                f"{self.root}: no label in {self.export}, and no {CONFIG}: give its config (option config)"
            )
        if len({info.colour for info in infos}) < len(infos):
            infos = tuple(
                ClassInfo(name=info.name, colour=class_colour(k + 1), is_thing=info.is_thing)
                for k, info in enumerate(infos)
            )
        return infos

    @property
    def ignore_index(self) -> int:
        """255, or 65535 where there are more than 255 classes."""
        return ignored_beside(len(self.classes))

    @property
    def coding(self) -> LabelCoding:
        where = f"is {self.unlabelled}" if self.unlabelled else "is ignored"
        return coding({}, f"regions of labels; later ones lie over earlier ones; what nobody labelled {where}")

    @property
    def expected(self) -> None:
        """Nobody has written down how many samples there should be."""

    def index(self) -> Index:
        """Every task that a person has answered, with its photograph. Raises InputError where there is no task."""
        listing, ids = Listing(), {info.name: class_id for class_id, info in enumerate(self.classes)}
        there = frozenset(path for path in shown(self.root, self.images) if path.endswith(PICTURE_SUFFIXES))
        unanswered, several = list[str](), list[str]()
        for answer in self._answers():
            if answer.fault:
                listing.refuse(self.export, answer.item, "bad_annotation", f"{answer.fault}: label it again")
            elif answer.regions is None:
                unanswered.append(answer.item)
            else:
                self._add(answer, there, ids, listing)
                several += [answer.item] if answer.others else []
        remedy = "answer them, or leave them out; what a model predicted for them is no answer"
        listing.pass_over("task(s) that nobody has answered", unanswered, remedy)
        remedy = "the one marked as ground truth counts, else the newest"
        listing.pass_over("further answer(s) to the task(s)", several, remedy)
        listing.dealt(self.shares, "tell groups apart by the key group of the tasks' data")
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One photograph with its regions painted. Raises BadSampleError."""
        image = read_photograph(self.root, ref.files[0])
        if ref.extra["sha256"] not in ("", storage.sha256_bytes(image.data)):
            detail = f"is not the photograph that task {ref.extra['task']} was made of: bring that one back"
            raise BadSampleError("bad_annotation", ref.files[0], detail)
        if (said := ref.extra["size"]) and said != [image.height, image.width]:
            raise BadSampleError(
                "size_mismatch",
                ref.files[0],
                f"{image.width}x{image.height} pixels, {ref.files[1]} says {said[1]}x{said[0]}: regions would shift; "
                "bring back the photograph that was drawn on, or draw again",
            )
        num_classes = ref.extra["classes"]
        segments: list[Segment] = []
        rest = ref.extra["unlabelled"]
        if rest is None:
            rest = ignored_beside(num_classes)
        labels_HW = np.full((image.height, image.width), rest, dtype=ids_type(num_classes))
        for place, region in enumerate(ref.extra["regions"]):
            where = f"{ref.files[1]}, task {ref.extra['task']}, region {place}"
            inside_HW = pixels_of(region, image.height, image.width, where)
            if not inside_HW.any():  # painted and wiped away again
                continue
            labels_HW[inside_HW > 0] = region["class_id"]
            segments.append(segment_of_mask(inside_HW, segment_id=len(segments) + 1, class_id=region["class_id"]))
        return sample_of(ref, image, label_map=stored(labels_HW), segments=tuple(segments))

    def _add(self, answer: Answer, there: frozenset[str], ids: dict[str, int], listing: Listing) -> None:
        regions = answer.regions or []
        file = _file_of(answer.address, there)
        if unknown := sorted({region["label"] for region in regions} - ids.keys()):
            detail = f"{answer.item}: label {unknown[0]!r} is not in the configuration: add it there, or label again"
            listing.refuse(self.export, answer.item, "label_out_of_range", detail)
        elif file is None:
            detail = (
                f"{answer.item} is about it, and no file below {self.images or 'the root'} has this name: copy the "
                "photographs there, or name their folder (option images)"
            )
            listing.refuse(answer.address[:200], answer.item, "missing_image", detail)
        else:
            stem = file.rpartition(".")[0]
            group = answer.group or stem.rpartition("/")[0] or stem
            listing.add(
                stem,
                split=hashed_split(group, self.shares),
                group=group,
                files=(below(self.images, file), self.export),
                listed=self.export,
                extra={
                    "task": answer.item,
                    "regions": [{**region, "class_id": ids[region["label"]]} for region in regions],
                    "size": answer.size,
                    "sha256": answer.image_sha256,
                    "classes": len(ids),
                    "unlabelled": ids.get(self.unlabelled),
                },
            )

    def _answers(self) -> Sequence[Answer]:
        key = self.config.image_key if self.config else "image"
        return parsed(self.root, self.export, key, storage.fingerprint(storage.join(self.root, self.export)))

    def _labels_in_use(self) -> list[str]:
        return sorted({region["label"] for answer in self._answers() for region in answer.regions or ()})


def _named(labels: Sequence[str]) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(name=name, colour=class_colour(k + 1), is_thing=True) for k, name in enumerate(labels))


def _file_of(address: str, there: frozenset[str]) -> str | None:
    """The photograph that an address means: the file with the longest end of its path that is there."""
    parts = address.split("/")
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    return next((tail for tail in tails if is_inside(tail) and tail in there), None)


def open_label_studio(
    root: str,
    *,
    export: Annotated[
        str, "the file that Label Studio exported as JSON, below the root; empty: the one project-*.json there"
    ] = "",
    images: Annotated[str, "folder of the photographs below the root; tasks name them by the end of their path"] = (
        "images"
    ),
    config: Annotated[
        str, "labelling configuration, below the root or anywhere; empty: labelling_config.xml if it is there"
    ] = "",
    unlabelled: Annotated[str, "class of what nobody labelled; empty: it is ignored"] = "",
    shares: Shares = "0.8,0.1,0.1",
    licence: Licence = "not stated",
) -> LabelStudio:
    """Opens an export of Label Studio. Raises InputError on a bad option or configuration."""
    return LabelStudio(
        root=root,
        export=find_export(root, export),
        images=images.strip("/"),
        config=read_config(root, config),
        unlabelled=unlabelled,
        shares=parse_shares(shares),
        licence=licence,
    )


INFO = SourceInfo(
    name="label_studio",
    open=open_label_studio,
    summary="your own brushes and polygons, painted in Label Studio and exported as JSON",
    licence="as its owner states (option licence)",
    tasks=(Task.SEMANTIC, Task.INSTANCE, Task.DETECTION),
    layout=("project-1-at-2024-01-31-12-00-0a1b2c3d.json", "images/**.jpg", "labelling_config.xml (if any)"),
)
