"""The nouns of data: what a dataset holds, from a sample to a version's manifest and fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# Of a field that came when there were files without it: where it has its default it is not written (`reports.py`), so
# that a file says what it said, and has the hash that it had.
LATER: Mapping[str, Any] = {"later": True}
IGNORE_8BIT = 255
IGNORE_16BIT = 65535


class Task(StrEnum):
    """What a model is asked for, and so which annotations a dataset must fill."""

    SEMANTIC = "semantic"
    INSTANCE = "instance"
    DETECTION = "detection"
    PANOPTIC = "panoptic"
    KEYPOINTS = "keypoints"
    VIDEO = "video"


class Annotation(StrEnum):
    """What a `Sample` can carry beside its image. A source lists what it fills, a task what it needs."""

    LABEL_MAP = "label_map"
    SEGMENTS = "segments"
    KEYPOINTS = "keypoints"
    CLIPS = "clips"
    DEPTH = "depth"
    FLOW = "flow"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassInfo:
    """One class; its id is its place in the dataset's tuple of classes."""

    name: str
    colour: tuple[int, int, int]
    is_thing: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLook:
    """What the pixels of an image look like, in integers that add up over a dataset.

    `height` and `width` in pixels. `perceptual_hash` has 64 bits, of which few differ between an image and a copy that
    was scaled or encoded again. `rgb_sum` and `rgb_square_sum` are the sums of each channel (0..255) and of its square
    over the pixels.
    """

    height: int
    width: int
    perceptual_hash: int
    rgb_sum: tuple[int, int, int]
    rgb_square_sum: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One object or stuff region of an image.

    `segment_id` is >= 1 and unique in the image. Its pixels are those of `Sample.segment_map` that hold `segment_id`,
    unless `rle` is set: segments that may overlap (COCO instances, crowds) carry COCO's compressed run lengths.
    `area` in pixels decides whether it counts as small, medium or large: what the dataset states (COCO's is that of the
    polygon), else the pixels counted. `box` is x, y, width, height in pixels where the dataset states one (COCO's is
    that of the polygon, to a hundredth of a pixel, and boxes are scored against it); None is tight around the pixels.
    """

    segment_id: int
    class_id: int
    area: float
    is_crowd: bool = False
    rle: bytes | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Keypoints:
    """The keypoints of one segment: (x, y) in pixels, (0, 0) the middle of the first; visibility 0, 1, 2 as in COCO."""

    segment_id: int
    points: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCoding:
    """How a dataset spelt its labels before ingest: the part of its label contract that ids 0..K-1 no longer tell.

    `values` are (raw mask value or category id, class id or ignored id), sorted; `rules` say in words what a number
    cannot, such as which of two values is the object.
    """

    values: tuple[tuple[int, int], ...]
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image with everything known about it. One schema serves every task.

    `image` is the encoded file as shipped. `label_map` (class ids) and `segment_map` (segment ids, 0 = none) are raw
    row-major little-endian unsigned integers; the width of one is `len(bytes) // (height * width)`: 1, 2 or 4 bytes.
    `height` and `width` are those of the upright image. `group` names what must never be cut by a split (a drive, a
    patient, a clip); it is the sample id where nothing larger is known. `extras` are further encoded files as shipped,
    of the image's size, by name: "depth", "flow". What their values mean (unit, scale, the value of nothing) is a rule
    of the manifest's `coding`. In a dataset that fills label maps, a sample without one was annotated by nobody.
    """

    sample_id: str
    image: bytes
    height: int
    width: int
    group: str
    label_map: bytes | None = None
    segment_map: bytes | None = None
    segments: tuple[Segment, ...] = ()
    keypoints: tuple[Keypoints, ...] = ()
    clip_id: str | None = None
    frame_index: int | None = None
    extras: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRef:
    """Where a source finds one sample: small, picklable, and enough for `Source.read` in another process.

    `files` are paths relative to the source's root; `extra` is the source's own (a line number, a frame). `clip` is the
    sample's later `clip_id`: the frames of a clip follow each other in the listing, and are stored together.
    """

    sample_id: str
    split: str
    group: str
    files: tuple[str, ...]
    clip: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantineEntry:
    """One thing that ingest refused: `file` under the source root, `item` inside it, a reason code, the value."""

    file: str
    item: str
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One immutable Parquet file. `path` is relative to the dataset and names the content."""

    path: str
    rows: int
    bytes: int
    sha256: str
    row_groups: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One split of a dataset version: its shards in order and its pixel statistics.

    `class_pixels[k]` counts the pixels of class k; `image_pixels[k]` the labelled pixels of the images that hold k
    (what median-frequency weights need); `ignored_pixels` the rest.
    """

    samples: int
    shards: tuple[Shard, ...]
    class_pixels: tuple[int, ...]
    image_pixels: tuple[int, ...]
    ignored_pixels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One dataset version. Its canonical JSON is written last, and the SHA-256 of that is the version.

    Nothing in it comes from a clock, a host name, a root path or the order of a directory listing.
    """

    schema_version: int
    dataset: str
    source: str
    licence: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    coding: LabelCoding
    annotations: tuple[Annotation, ...]
    splits: Mapping[str, Split]
    quarantined: Mapping[str, int]
    quarantine_path: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFingerprint:
    """What the samples of one split are like; all sums, so that parts add up.

    `sizes` counts images by "WIDTHxHEIGHT". `images_of_class[k]` counts the images that hold class k,
    `objects_of_class[k]` its segments without crowds, `objects_by_size` all of these below 32**2, below 96**2 and from
    96**2 pixels on: small, medium and large as COCO has it. The colour sums are those of `ImageLook`, over `pixels`.
    `looks` are how many images have which level of each statistic of `drift.of_look`, `looks_by_group` the same of each
    group: none where no group has two images. Either is None where an earlier segpipe wrote it.
    """

    images: int
    pixels: int
    sizes: Mapping[str, int]
    rgb_sum: tuple[int, int, int]
    rgb_square_sum: tuple[int, int, int]
    images_of_class: tuple[int, ...]
    objects_of_class: tuple[int, ...]
    objects_by_size: tuple[int, int, int]
    crowds: int
    looks: Mapping[str, Mapping[str, int]] | None = field(default=None, metadata=LATER)
    looks_by_group: tuple[Mapping[str, Mapping[str, int]], ...] | None = field(default=None, metadata=LATER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What a dataset version is like, beside its manifest: `fingerprints/<version>.json`. Not part of the version."""

    dataset_version: str
    splits: Mapping[str, SplitFingerprint]
    warnings: tuple[str, ...]
