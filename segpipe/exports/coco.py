"""COCO's JSON of objects, one document a split; every object with run lengths, so that no pixel changes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from segpipe import masks, storage
from segpipe.exports.naming import ending_of, stem_of
from segpipe.exports.spec import Export, Splits
from segpipe.types import Annotation, Manifest, Sample, Segment


def write(splits: Splits, manifest: Manifest, to: str) -> None:
    """Images below images/<split>/, documents annotations/<split>.json; category ids are class ids + 1.

    Raises ConflictError where another export lies there already.
    """
    categories = [{"id": k + 1, "name": info.name, "supercategory": ""} for k, info in enumerate(manifest.classes)]
    annotation_id = 0
    for split, samples in splits.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        keypoints = 0
        for sample in samples:
            name = stem_of(sample.sample_id) + ending_of(sample.image)
            storage.write_once(storage.join(to, "images", split, name), sample.image)
            images.append({"id": len(images) + 1, "file_name": name, "height": sample.height, "width": sample.width})
            points = {each.segment_id: each.points for each in sample.keypoints}
            for segment in sample.segments:
                annotation_id += 1
                entry = _annotation(sample, segment) | {"id": annotation_id, "image_id": len(images)}
                if segment.segment_id in points:
                    flat = [value for point in points[segment.segment_id] for value in point]
                    entry |= {"keypoints": flat, "num_keypoints": sum(v > 0 for v in flat[2::3])}
                    keypoints = max(keypoints, len(flat) // 3)
                annotations.append(entry)
        names = {"keypoints": [str(number) for number in range(keypoints)]} if keypoints else {}
        document = {"info": {"description": manifest.dataset}, "images": images, "annotations": annotations}
        data = json.dumps({**document, "categories": [each | names for each in categories]}).encode()
        storage.write_once(storage.join(to, "annotations", f"{split}.json"), data)


def _annotation(sample: Sample, segment: Segment) -> dict[str, Any]:
    mask = _mask(sample, segment)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    empty = not rows.size
    box = [0, 0, 0, 0] if empty else [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    counts: bytes = masks.encode_rle(mask)["counts"]
    return {
        "category_id": segment.class_id + 1,
        "iscrowd": int(segment.is_crowd),
        "area": segment.area,
        "bbox": [int(value) for value in box],
        "segmentation": {"size": [sample.height, sample.width], "counts": counts.decode("ascii")},
    }


def _mask(sample: Sample, segment: Segment) -> masks.Mask:
    if segment.rle is not None:
        return masks.decode_rle(segment.rle, sample.height, sample.width, file=sample.sample_id)
    stored = sample.segment_map or b""
    width = len(stored) // (sample.height * sample.width)
    ids = np.frombuffer(stored, dtype=f"<u{width}").reshape(sample.height, sample.width)
    inside: masks.Mask = (ids == segment.segment_id).astype(np.uint8)
    return inside


EXPORT = Export(
    name="coco",
    summary="COCO JSON of objects with run lengths, keypoints too",
    needs=Annotation.SEGMENTS,
    write=write,
    read_back=("coco", {"annotations": "annotations/{split}.json", "images": "images/{split}"}),
)
