"""Virtual KITTI 2: five rendered drives under ten conditions and two cameras, with objects, depth and optical flow.

Source: Cabon et al. 2020 (arXiv 2001.10773), europe.naverlabs.com/proxy-virtual-worlds-vkitti-2; version 2.0.3, all
archives unpacked into one folder. A clip is what one camera sees of a drive, the group is the scene: its ten conditions
show the same street. There is no published split: the options `val` and `test` name scenes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from segpipe import masks
from segpipe.errors import BadSampleError, InputError
from segpipe.masks import Labels, stored
from segpipe.sources.reading import (
    Listing,
    coding,
    files_below,
    read_extra,
    read_labels,
    read_lines,
    read_photograph,
    sample_of,
)
from segpipe.sources.spec import Index, SourceInfo
from segpipe.sources.virtual_kitti.facts import (
    CAMERAS,
    CLASSES,
    COLOURS,
    FRAMES,
    LICENCE,
    PAINTED,
    RULES,
    TABLE,
    THINGS,
    VARIATIONS,
)
from segpipe.types import (
    IGNORE_8BIT,
    Annotation,
    ClassInfo,
    LabelCoding,
    Sample,
    SampleRef,
    Segment,
    Task,
)

_FRAME = re.compile(r"(Scene\d\d)/([^/]+)/frames/rgb/(Camera_\d)/rgb_(\d{5})\.jpg")


class _Kind(NamedTuple):
    """One of the folders beside rgb/, and how its files are called."""

    folder: str
    stem: str


LABELS, OBJECTS = _Kind("classSegmentation", "classgt"), _Kind("instanceSegmentation", "instancegt")
EXTRAS = {"depth": _Kind("depth", "depth"), "flow": _Kind("forwardFlow", "flow")}


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualKitti:
    """The folder that holds Scene01/ to Scene20/, opened by `open_virtual_kitti`."""

    root: str
    variations: tuple[str, ...]
    cameras: tuple[str, ...]
    val: str
    test: str
    extras: tuple[str, ...]
    name: str = "virtual_kitti"
    licence: str = LICENCE
    classes: tuple[ClassInfo, ...] = CLASSES
    ignore_index: int = IGNORE_8BIT

    @property
    def coding(self) -> LabelCoding:
        """Colours first become the place of their class in colors.txt."""
        return coding(TABLE, *RULES[:2], *(rule for rule in RULES[2:] if rule.partition(":")[0] in self.extras))

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """Depth and flow where they are asked for."""
        found = (Annotation.LABEL_MAP, Annotation.SEGMENTS, Annotation.CLIPS)
        return (*found, *(Annotation(extra) for extra in self.extras))

    @property
    def expected(self) -> Mapping[str, int]:
        """Frames of the scenes as published, under the conditions and cameras that are asked for."""
        counts: dict[str, int] = {}
        for scene, frames in FRAMES.items():
            clips = len(self.variations) * len(self.cameras)
            counts[self._split(scene)] = counts.get(self._split(scene), 0) + frames * clips
        return counts

    def index(self) -> Index:
        """Every frame with all that is asked for. Raises InputError where there is no frame, or colors.txt differs."""
        there = files_below(self.root, "")
        frames = [found for path in sorted(there) if (found := _FRAME.fullmatch(path))]
        chosen = [found for found in frames if found[2] in self.variations and found[3] in self.cameras]
        if not chosen:
            raise InputError(
                f"{self.root}: {len(frames)} frames, none of {', '.join(self.variations)} by "
                f"{', '.join(self.cameras)}; expected Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg: unpack the "
                "archives into one folder"
            )
        for folder in sorted({f"{found[1]}/{found[2]}" for found in chosen}):
            self._check_colours(f"{folder}/colors.txt", there)
        last = {f"{found[1]}/{found[2]}/{found[3]}": found[4] for found in chosen}
        listing = Listing()
        for found in chosen:
            self._add(found, there, listing, is_last=last[f"{found[1]}/{found[2]}/{found[3]}"] == found[4])
        return listing.result()

    def _split(self, scene: str) -> str:
        return {self.val: "val", self.test: "test"}.get(scene, "train")

    def _check_colours(self, path: str, there: frozenset[str]) -> None:
        """The table of a scene is the published one, where it was fetched (vkitti_2.0.3_textgt)."""
        if path not in there:
            return
        painted = dict(PAINTED)
        for line in read_lines(self.root, path)[1:]:
            name, *values = line.split() or ("",)
            if name in painted and values != [str(value) for value in painted[name]]:
                raise InputError(f"{self.root}/{path}: {line!r}; expected {name} {painted[name]}: is this version 2?")

    def _add(self, found: re.Match[str], there: frozenset[str], listing: Listing, *, is_last: bool) -> None:
        scene, variation, camera, number = found.groups()
        clip = f"{scene}/{variation}/{camera}"
        extras = [name for name in self.extras if not (name == "flow" and is_last)]
        files = [found[0]]
        for kind in (LABELS, OBJECTS, *(EXTRAS[name] for name in extras)):
            path = f"{scene}/{variation}/frames/{kind.folder}/{camera}/{kind.stem}_{number}.png"
            if path not in there:
                detail = f"the frame {found[0]} is there without it: fetch {kind.folder}{_without(kind)}"
                listing.refuse(path, f"{clip}/{number}", "missing_mask", detail)
                return
            files.append(path)
        listing.add(
            f"{clip}/{number}",
            split=self._split(scene),
            group=scene,
            files=tuple(files),
            listed=found[0],
            clip=clip,
            extra={"frame": int(number), "extras": extras},
        )

    def read(self, ref: SampleRef) -> Sample:
        """One frame with its classes, objects, depth and flow. Raises BadSampleError."""
        image_path, labels_path, objects_path, *extra_paths = ref.files
        image = read_photograph(self.root, image_path)
        painted = read_labels(self.root, labels_path, image, palette=COLOURS)
        labels = masks.map_labels(painted, TABLE, file=labels_path)
        objects = read_labels(self.root, objects_path, image)
        return sample_of(
            ref,
            image,
            label_map=stored(labels),
            segment_map=stored(objects),
            segments=tuple(_segments(objects, labels, objects_path)),
            clip_id=ref.clip,
            frame_index=ref.extra["frame"],
            extras={
                name: read_extra(self.root, path, image)
                for name, path in zip(ref.extra["extras"], extra_paths, strict=True)
            },
        )


def _segments(objects: Labels, labels: Labels, path: str) -> Iterator[Segment]:
    """Each object with the class that most of its pixels have."""
    pairs, pixels = np.unique(objects.astype(np.int64)[objects > 0] * 256 + labels[objects > 0], return_counts=True)
    for number in np.unique(pairs // 256).tolist():
        mine = pairs // 256 == number
        known = mine & np.isin(pairs % 256, [k for k, info in enumerate(CLASSES) if info.is_thing])
        if not known.any():
            detail = f"object {number} is no {', '.join(THINGS)} in the class mask: fetch both files again"
            raise BadSampleError("bad_annotation", path, detail)
        class_id = int(pairs[known][pixels[known].argmax()] % 256)
        yield Segment(segment_id=number, class_id=class_id, area=int(pixels[mine].sum()))


def _without(kind: _Kind) -> str:
    option = next((name for name, each in EXTRAS.items() if each is kind), None)
    return f", or set the option {option}=false" if option else ""


def open_virtual_kitti(
    root: str,
    *,
    variations: Annotated[str, "conditions with commas between, such as clone,fog; or all"] = "all",
    cameras: Annotated[str, "Camera_0, Camera_1 or all"] = "all",
    val: Annotated[str, "the scene that validates; empty: none"] = "Scene06",
    test: Annotated[str, "the scene that tests; empty: none"] = "",
    depth: Annotated[bool, "false leaves the depth maps out"] = True,
    flow: Annotated[bool, "false leaves the optical flow out"] = True,
) -> VirtualKitti:
    """Opens the set. Raises InputError on a bad option."""
    for option, scene in (("val", val), ("test", test)):
        if scene and (scene not in FRAMES or val == test):
            raise InputError(
                f"option {option}={scene!r}; expected one of {', '.join(FRAMES)}, another for val and test"
            )
    return VirtualKitti(
        root=root,
        variations=_chosen("variations", variations, VARIATIONS),
        cameras=_chosen("cameras", cameras, CAMERAS),
        val=val,
        test=test,
        extras=(*(("depth",) if depth else ()), *(("flow",) if flow else ())),
    )


def _chosen(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = known if text == "all" else tuple(part.strip() for part in text.split(","))
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"option {option}={text!r}: {unknown[0]!r}; expected all, or some of {', '.join(known)}")
    return names


INFO = SourceInfo(
    name="virtual_kitti",
    open=open_virtual_kitti,
    summary="Virtual KITTI 2, 42520 rendered frames of five drives, 14 classes, tracked vehicles, depth and flow",
    licence=LICENCE,
    tasks=(Task.SEMANTIC, Task.INSTANCE, Task.DETECTION, Task.VIDEO),
    layout=(
        "Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg",
        "Scene01/clone/frames/classSegmentation/Camera_0/classgt_00000.png",
        "Scene01/clone/frames/instanceSegmentation/Camera_0/instancegt_00000.png",
        "Scene01/clone/frames/{depth,forwardFlow}/Camera_0/{depth,flow}_00000.png",
        "Scene01/clone/colors.txt (if any)",
    ),
)
