"""Sample <-> one Parquet row: the one schema that serves every task.

Image bytes are stored as shipped. Label and segment maps are zstd-compressed raw ids: on CamVid they decode 9
times faster than PNG and take 0.8 times its bytes. Parquet's own page compression stays off, since everything large is
compressed already. Extras (depth, flow) are stored as shipped, too, sorted by name.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from segpipe.errors import CorruptError, InputError
from segpipe.types import Keypoints, Sample, Segment

SCHEMA_VERSION = 4
# A fifth smaller than level 3 and faster to decode (`benchmarks/masks.py`): a millisecond of ingest for every epoch's.
ZSTD_LEVEL = 9
MAP_WIDTHS = (1, 2, 4)  # bytes of one id
_EXTRA_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")

_POINT = pa.struct(
    [
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("visibility", pa.int8(), nullable=False),
    ]
)
_SEGMENT = pa.struct(
    [
        pa.field("segment_id", pa.int64(), nullable=False),
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("area", pa.float64(), nullable=False),
        pa.field("is_crowd", pa.bool_(), nullable=False),
        pa.field("rle", pa.binary()),
        pa.field("box", pa.list_(pa.field("element", pa.float64(), nullable=False))),
    ]
)
_KEYPOINTS = pa.struct(
    [
        pa.field("segment_id", pa.int64(), nullable=False),
        pa.field("points", pa.list_(pa.field("element", _POINT, nullable=False)), nullable=False),
    ]
)
_EXTRA = pa.struct([pa.field("name", pa.string(), nullable=False), pa.field("data", pa.binary(), nullable=False)])
# `*_map_width` is the bytes of one id, null where the map is.
SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("image_sha256", pa.binary(32), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("label_map", pa.binary()),
        pa.field("label_map_width", pa.int8()),
        pa.field("segment_map", pa.binary()),
        pa.field("segment_map_width", pa.int8()),
        pa.field("segments", pa.list_(pa.field("element", _SEGMENT, nullable=False)), nullable=False),
        pa.field("keypoints", pa.list_(pa.field("element", _KEYPOINTS, nullable=False)), nullable=False),
        pa.field("clip_id", pa.string()),
        pa.field("frame_index", pa.int64()),
        pa.field("extras", pa.list_(pa.field("element", _EXTRA, nullable=False)), nullable=False),
    ]
)

ANNOTATION_COLUMNS = (
    *("sample_id", "height", "width", "label_map", "label_map_width"),
    *("segment_map", "segment_map_width", "segments", "keypoints", "clip_id", "frame_index"),
    "extras",
)


def sample_to_row(sample: Sample) -> dict[str, Any]:
    """One row of `SCHEMA` as plain Python. Raises InputError, naming the sample, when its parts do not fit together."""
    _check(sample)
    label_map, label_width = _pack(sample, "label_map", sample.label_map)
    segment_map, segment_width = _pack(sample, "segment_map", sample.segment_map)
    return {
        "sample_id": sample.sample_id,
        "image": sample.image,
        "image_sha256": hashlib.sha256(sample.image).digest(),
        "height": sample.height,
        "width": sample.width,
        "group": sample.group,
        "label_map": label_map,
        "label_map_width": label_width,
        "segment_map": segment_map,
        "segment_map_width": segment_width,
        "segments": [
            {
                "segment_id": s.segment_id,
                "class_id": s.class_id,
                "area": s.area,
                "is_crowd": s.is_crowd,
                "rle": s.rle,
                "box": None if s.box is None else list(s.box),
            }
            for s in sample.segments
        ],
        "keypoints": [
            {"segment_id": k.segment_id, "points": [{"x": x, "y": y, "visibility": v} for x, y, v in k.points]}
            for k in sample.keypoints
        ],
        "clip_id": sample.clip_id,
        "frame_index": sample.frame_index,
        "extras": [{"name": name, "data": data} for name, data in sorted(sample.extras.items())],
    }


def row_to_sample(row: Mapping[str, Any]) -> Sample:
    """The sample of a row. Raises CorruptError, naming the sample, when a map does not unpack to its size."""
    return Sample(
        sample_id=row["sample_id"],
        image=row["image"],
        height=row["height"],
        width=row["width"],
        group=row["group"],
        label_map=_unpack(row, "label_map"),
        segment_map=_unpack(row, "segment_map"),
        segments=tuple(_segment(segment) for segment in row["segments"]),
        keypoints=tuple(
            Keypoints(
                segment_id=keypoints["segment_id"],
                points=tuple((point["x"], point["y"], point["visibility"]) for point in keypoints["points"]),
            )
            for keypoints in row["keypoints"]
        ),
        clip_id=row["clip_id"],
        frame_index=row["frame_index"],
        extras={extra["name"]: extra["data"] for extra in row["extras"]},
    )


def _segment(stored: Mapping[str, Any]) -> Segment:
    box = stored["box"]
    return Segment(**{**stored, "box": None if box is None else tuple(box)})


def annotation_hash(row: Mapping[str, Any]) -> str:
    """SHA-256 over what `ANNOTATION_COLUMNS` of a row mean: two versions of zstd may spell one map in two ways.

    Raises CorruptError as `row_to_sample`.
    """
    digest = hashlib.sha256()
    for part in (_unpack(row, "label_map"), _unpack(row, "segment_map")):
        digest.update(b"none" if part is None else len(part).to_bytes(8, "big") + part)
    rest = ("height", "width", "segments", "keypoints", "clip_id", "frame_index")
    digest.update(repr([row[name] for name in rest]).encode())
    for extra in row["extras"]:
        digest.update(f"|{extra['name']}|{len(extra['data'])}|".encode() + extra["data"])
    return digest.hexdigest()


def map_width(sample: Sample, name: str, ids: bytes) -> int:
    """Bytes of one id of a map: 1, 2 or 4. Raises InputError when the bytes do not make height x width ids."""
    pixels = sample.height * sample.width
    width, rest = divmod(len(ids), pixels)
    if rest or width not in MAP_WIDTHS:
        raise InputError(
            f"sample {sample.sample_id!r}: {name} has {len(ids)} bytes, which is not 1, 2 or 4 for each of "
            f"{sample.height} x {sample.width} pixels; its source must give one id per pixel of the upright image"
        )
    return width


def _pack(sample: Sample, name: str, ids: bytes | None) -> tuple[bytes | None, int | None]:
    if ids is None:
        return None, None
    width = map_width(sample, name, ids)
    return pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(ids, asbytes=True), width


def _unpack(row: Mapping[str, Any], name: str) -> bytes | None:
    packed, width = row[name], row[f"{name}_width"]
    if packed is None and width is None:
        return None
    where = f"sample {row['sample_id']!r}: {name}"
    if packed is None or width not in MAP_WIDTHS:
        raise CorruptError(f"{where} of {width} bytes an id does not exist; ingest the dataset again")
    size = row["height"] * row["width"] * width
    try:
        ids: bytes = pa.decompress(packed, decompressed_size=size, codec="zstd", asbytes=True)
    except OSError as error:
        raise CorruptError(f"{where} does not unpack to {size} bytes ({error}); ingest the dataset again") from error
    return ids


def _check(sample: Sample) -> None:
    where = f"sample {sample.sample_id!r}"
    for name, text in (("sample_id", sample.sample_id), ("group", sample.group), ("clip_id", sample.clip_id)):
        if text is not None and not _is_name(text):
            raise InputError(f"{where}: {name} {text!r} is empty or holds control characters; its source must name it")
    if sample.height < 1 or sample.width < 1 or not sample.image:
        raise InputError(
            f"{where}: {sample.height} x {sample.width} pixels in {len(sample.image)} bytes is no image; "
            "expected height and width of at least 1 and the encoded file"
        )
    if sample.frame_index is not None and (sample.clip_id is None or sample.frame_index < 0):
        raise InputError(f"{where}: frame_index {sample.frame_index} needs a clip_id and counts from 0")
    for name, data in sample.extras.items():
        if not _EXTRA_NAME.fullmatch(name) or not data:
            raise InputError(
                f"{where}: extra {name!r:.40} of {len(data)} bytes; expected a name of small letters, digits and '_', "
                "and an encoded file: its source must name it"
            )
    _check_segments(sample, where)


def _is_name(text: str) -> bool:
    """Nearly all are printable, which is told at once; others may hold odd spaces, but no control characters."""
    return bool(text) and (text.isprintable() or all(unicodedata.category(sign) not in ("Cc", "Cs") for sign in text))


def _check_segments(sample: Sample, where: str) -> None:
    ids = [segment.segment_id for segment in sample.segments]
    if len(set(ids)) != len(ids) or any(number < 1 for number in ids):
        raise InputError(f"{where}: segment ids {ids[:8]} are not distinct numbers from 1; its source must number them")
    for segment in sample.segments:
        if segment.rle is None and sample.segment_map is None:
            raise InputError(f"{where}: segment {segment.segment_id} has no pixels: give rle or a segment_map")
        if segment.class_id < 0:
            raise InputError(f"{where}: segment {segment.segment_id} has class {segment.class_id}; expected 0 or more")
        if not (math.isfinite(segment.area) and segment.area >= 0):
            raise InputError(
                f"{where}: segment {segment.segment_id} has area {segment.area}; expected pixels, 0 or more"
            )
        box = segment.box
        if box is not None and not (len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) >= 0):
            raise InputError(
                f"{where}: segment {segment.segment_id} has box {box}; expected x, y, width, height in pixels"
            )
    for keypoints in sample.keypoints:
        if keypoints.segment_id not in ids:
            raise InputError(f"{where}: keypoints belong to segment {keypoints.segment_id}, which it does not have")
        for x, y, visibility in keypoints.points:
            if not (math.isfinite(x) and math.isfinite(y) and visibility in (0, 1, 2)):
                raise InputError(f"{where}: keypoint {(x, y, visibility)} is not finite x, y and visibility 0, 1 or 2")
