"""frames: folders of video frames with one mask a frame, or one a frame and object; SegTrack v2 and your own clips.

Source of the layout: Li et al. 2013 (SegTrack v2, web.engr.oregonstate.edu/~lif/SegTrack2), which ships bitmaps among
its PNGs: they are stored as PNG of the same pixels. A clip is a folder, its group too; frames are in the order of the
last number of their names, however many digits it has. A frame that nobody drew a mask for stays in its clip as a
sample without label map (option `unlabelled`).
Letter legend: H W image size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from segpipe import masks, storage
from segpipe.errors import BadSampleError, InputError
from segpipe.masks import Labels, stored
from segpipe.sources.frames.names import folder_of, in_order, name_of, pictures
from segpipe.sources.reading import (
    SPLITS,
    Listing,
    Photograph,
    check_size,
    coding,
    hashed_split,
    parse_shares,
    read_file,
    read_lines,
    sample_of,
    segment_of_mask,
)
from segpipe.sources.spec import Index, Licence, Shares, SourceInfo
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

CLASSES = (
    ClassInfo(name="background", colour=(0, 0, 0)),
    ClassInfo(name="object", colour=(128, 0, 0), is_thing=True),
)
OBJECT, WHOLE = 1, 255
# (images, masks): SegTrack's folders, and the plain ones; the first pair that is there counts.
LAYOUTS = (("JPEGImages", "GroundTruth"), ("images", "masks"))
BINARY_RULES = (
    "values 1 to 254 of a mask are ignored: edges that were smoothed",
    "in a mask of 0 and 1 alone, 1 is the object",
)
# SegTrack saves some masks as RGB of three equal channels.
_GREYS = {(value, value, value): value for value in range(256)}


class _Clip(NamedTuple):
    """A clip's folder, its split, the names of its frames, and the folders of masks of single objects."""

    folder: str
    split: str
    names: list[str]
    objects: set[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """The folder of frames and the folder of masks, opened by `open_frames`."""

    root: str
    images: str
    masks: str
    values: Literal["binary", "numbers"]
    split: str
    shares: tuple[float, ...]
    unlabelled: bool
    licence: str
    name: str = "frames"
    classes: tuple[ClassInfo, ...] = CLASSES
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP, Annotation.SEGMENTS, Annotation.CLIPS)

    @property
    def coding(self) -> LabelCoding:
        """Binary masks mark an object by 255; else values number the objects of a clip."""
        if self.values == "binary":
            return coding({0: 0, WHOLE: OBJECT}, *BINARY_RULES)
        return coding({0: 0, 1: OBJECT, IGNORE_8BIT: IGNORE_8BIT}, "values 1 to 254 number the objects of a clip")

    @property
    def expected(self) -> None:
        """Nobody has written down how many samples there should be."""

    def index(self) -> Index:
        """Every frame, with its masks where there are any. Raises InputError where there is no frame, or a bad list."""
        listing = Listing()
        frames = pictures(self.root, self.images, listing)
        if not frames:
            raise InputError(
                f"{storage.join(self.root, self.images)}: no frame here; expected {self.images}/<clip>/<frame>.jpg "
                "(.png, .bmp): give the folder above as root, or name both folders by the options images and masks"
            )
        drawn = pictures(self.root, self.masks, listing)
        names: dict[str, list[str]] = {}
        for stem in frames:
            names.setdefault(folder_of(stem), []).append(name_of(stem))
        objects: dict[str, set[str]] = {}
        for place in {folder_of(stem) for stem in drawn} - names.keys():
            objects.setdefault(folder_of(place), set()).add(place)
        splits = self._splits(sorted(names))
        unlisted = [f"{self.images}/{clip}" for clip in names.keys() - splits.keys()]
        listing.pass_over("clip(s) that no list names", unlisted, "write their names into a list of ImageSets/")
        for clip, split in splits.items():
            self._add(_Clip(clip, split, names[clip], objects.get(clip, set())), frames, drawn, listing)
        for stem in sorted(drawn):
            if stem not in frames and f"{folder_of(folder_of(stem))}/{name_of(stem)}" not in frames:
                detail = f"a mask without a frame {self.images}/{stem}.*: add the frame or remove it"
                listing.refuse(drawn[stem], stem, "missing_image", detail)
        if not self.split and not self._lists():
            listing.dealt(self.shares, "write names of clips into ImageSets/train.txt, val.txt and test.txt")
        return listing.result()

    def _add(self, clip: _Clip, frames: Mapping[str, str], drawn: Mapping[str, str], listing: Listing) -> None:
        order, objects = in_order(clip.names), sorted(clip.objects, key=in_order(clip.objects))
        for number, name in enumerate(sorted(clip.names, key=order)):
            places = [f"{place}/{name}" for place in objects] or [f"{clip.folder}/{name}"]
            found = [drawn[place] for place in places if place in drawn]
            sample_id = f"{clip.folder}/{order(name)}"
            if found and len(found) < len(places):
                absent = next(place for place in places if place not in drawn)
                detail = "the frame has masks of other objects: add it, all black where the object is not seen"
                listing.refuse(f"{self.masks}/{absent}.png", sample_id, "missing_mask", detail)
            elif found or self.unlabelled:
                listing.add(
                    sample_id,
                    split=clip.split,
                    group=clip.folder,
                    files=(frames[f"{clip.folder}/{name}"], *found),
                    listed=self.images,
                    clip=clip.folder,
                    extra={"frame": number, "by_object": bool(objects)},
                )

    def _lists(self) -> dict[str, str]:
        lists = {name: f"ImageSets/{name}.txt" for name in SPLITS}
        return {name: path for name, path in lists.items() if storage.exists(storage.join(self.root, path))}

    def _splits(self, clips: Sequence[str]) -> dict[str, str]:
        """Clip -> split: by `split`, else by the lists ImageSets/{train,val,test}.txt, else by the hash of the clip."""
        if self.split:
            return dict.fromkeys(clips, self.split)
        lists = self._lists()
        if not lists:
            return {clip: hashed_split(clip, self.shares) for clip in clips}
        chosen: dict[str, str] = {}
        known = frozenset(clips)
        for split, path in lists.items():
            for line in filter(None, (line.strip() for line in read_lines(self.root, path))):
                if line not in known or chosen.setdefault(line, split) != split:
                    problem = f"is in {chosen[line]}.txt, too" if line in known else f"has no folder {self.images}/"
                    raise InputError(f"{self.root}/{path}: clip {line!r:.80} {problem}: mend the list")
        return chosen

    def read(self, ref: SampleRef) -> Sample:
        """One frame with its foreground and its objects. Raises BadSampleError."""
        path, *drawn = ref.files
        data = masks.png_of_bitmap(read_file(self.root, path, missing="missing_image"), file=path)
        header = masks.check_header(data, file=path)
        image = Photograph(data, header.height, header.width, path)
        clip = {"clip_id": ref.clip, "frame_index": ref.extra["frame"]}
        if not drawn:
            return sample_of(ref, image, **clip)
        if not ref.extra["by_object"] and self.values == "numbers":
            return sample_of(ref, image, **self._numbered(drawn[0], image), **clip)
        labels = np.zeros((image.height, image.width), dtype=np.uint8)
        segments: list[Segment] = []
        for number, mask_path in enumerate(drawn, start=1):
            raw = self._raw(mask_path, image)
            whole = raw == (WHOLE if raw.max(initial=0) > 1 else 1) if self.values == "binary" else raw > 0
            labels[(raw > 0) & ~whole & (labels == 0)] = IGNORE_8BIT
            labels[whole] = OBJECT
            if whole.any():
                segments.append(segment_of_mask(whole, segment_id=number, class_id=OBJECT))
        return sample_of(ref, image, label_map=stored(labels), segments=tuple(segments), **clip)

    def _numbered(self, path: str, image: Photograph) -> dict[str, Any]:
        """Label map, segment map and segments of a mask whose values number the objects."""
        raw = self._raw(path, image)
        numbers, areas = np.unique(raw[(raw > 0) & (raw < IGNORE_8BIT)], return_counts=True)
        if not numbers.size and (raw == IGNORE_8BIT).any():
            detail = "holds 0 and 255 alone; expected object numbers from 1: set the option values=binary"
            raise BadSampleError("label_out_of_range", path, detail)
        found = zip(numbers.tolist(), areas.tolist(), strict=True)
        return {
            "label_map": stored(np.where(raw == IGNORE_8BIT, IGNORE_8BIT, raw > 0).astype(np.uint8)),
            "segment_map": stored(np.where(raw == IGNORE_8BIT, 0, raw).astype(np.uint8)),
            "segments": tuple(Segment(segment_id=number, class_id=OBJECT, area=area) for number, area in found),
        }

    def _raw(self, path: str, image: Photograph) -> Labels:
        data = masks.png_of_bitmap(read_file(self.root, path, missing="missing_mask"), file=path)
        check_size(data, path, image)
        raw = masks.read_label_image(data, file=path, palette=_GREYS)
        if raw.max(initial=0) > WHOLE:
            raise BadSampleError("label_out_of_range", path, f"value {raw.max()}; expected 0 to 255: save it in 8 bits")
        return raw


def open_frames(
    root: str,
    *,
    images: Annotated[str, "folder of the frames below the root; empty: JPEGImages, else images"] = "",
    masks: Annotated[str, "folder of the masks below the root; empty: GroundTruth, else masks"] = "",
    values: Annotated[
        str, "binary (255 is the object) or numbers (of a clip's objects); empty: binary below GroundTruth"
    ] = "",
    split: Annotated[str, "name of the one split for all clips; empty: lists, else shares"] = "",
    shares: Shares = "0.8,0.1,0.1",
    unlabelled: Annotated[bool, "false passes over the frames without a mask"] = True,
    licence: Licence = "not stated",
) -> Frames:
    """Opens folders of frames. Raises InputError on a bad option."""
    if bool(images) != bool(masks):
        raise InputError(f"options images={images!r}, masks={masks!r}; expected both or none: name the other one, too")
    if values not in ("", "binary", "numbers"):
        raise InputError(f"option values={values!r}; expected binary or numbers")
    if not images:
        there = [pair for pair in LAYOUTS if storage.exists(storage.join(root, pair[0]))]
        images, masks = there[0] if there else LAYOUTS[-1]
    masks = masks.strip("/")
    return Frames(
        root=root,
        images=images.strip("/"),
        masks=masks,
        values="binary" if values == "binary" or (not values and masks == LAYOUTS[0][1]) else "numbers",
        split=split,
        shares=parse_shares(shares),
        unlabelled=unlabelled,
        licence=licence,
    )


INFO = SourceInfo(
    name="frames",
    open=open_frames,
    summary="clips as folders of frames, with masks of one or numbered objects, or a folder an object (SegTrack v2)",
    licence="as its owner states (option licence)",
    tasks=(Task.VIDEO, Task.SEMANTIC, Task.INSTANCE, Task.DETECTION),
    layout=(
        "JPEGImages/bmx/bmx_06668.png, or images/<clip>/<frame>.jpg",
        "GroundTruth/bmx/1/bmx_06668.png (a folder an object), or masks/<clip>/<frame>.png",
        "ImageSets/{train,val,test}.txt, names of clips (if any)",
    ),
)
