"""COCO's JSON of objects, one document a split; each object has run lengths, so that no pixel changes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from segpipe import masks, storage
from segpipe.exports.naming import Stems, ending_of
from segpipe.exports.spec import Export, Outcome, Splits
from segpipe.types import Annotation, ClassInfo, Manifest, Sample, Segment


def write(splits: Splits, manifest: Manifest, to: str) -> Outcome:
    """Images below images/<split>/, documents annotations/<split>.json; category ids are class ids + 1.

    Raises ConflictError where another export lies there already.
    """
    documents: dict[str, dict[str, Any]] = {}
    keypoints = [0] * len(manifest.classes)
    annotation_id, stems = 0, Stems()
    for split, samples in splits.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for sample in samples:
            name = stems.of(sample.sample_id, within=f"images/{split}") + ending_of(sample.image)
            storage.write_once(storage.join(to, "images", split, name), sample.image)
            images.append({"id": len(images) + 1, "file_name": name, "height": sample.height, "width": sample.width})
            points = {each.segment_id: each.points for each in sample.keypoints}
            for segment in sample.segments:
                annotation_id += 1
                entry = _annotation(sample, segment) | {"id": annotation_id, "image_id": len(images)}
                if found := points.get(segment.segment_id):
                    flat = [value for point in found for value in point]
                    entry |= {"keypoints": flat, "num_keypoints": sum(v > 0 for _, _, v in found)}
                    keypoints[segment.class_id] = max(keypoints[segment.class_id], len(found))
                annotations.append(entry)
        documents[split] = {
            "info": {"description": manifest.dataset},
            "images": images,
            "annotations": annotations,
        }
    # After all splits: the same list for each, which only then is known.
    categories = [_category(k, info, keypoints[k]) for k, info in enumerate(manifest.classes)]
    for split, document in documents.items():
        data = json.dumps({**document, "categories": categories}).encode()
        storage.write_once(storage.join(to, "annotations", f"{split}.json"), data)
    return Outcome(renamed=stems.renamed)


def _category(class_id: int, info: ClassInfo, keypoints: int) -> dict[str, Any]:
    named = {"keypoints": [str(number) for number in range(keypoints)]} if keypoints else {}
    return masks.coco_category(class_id, info) | named


def _annotation(sample: Sample, segment: Segment) -> dict[str, Any]:
    mask = masks.mask_of(segment, sample)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    empty = not rows.size
    box = [0, 0, 0, 0] if empty else [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    # What is stored is final: encoding it again could only spell it another way.
    counts: bytes = masks.encode_rle(mask)["counts"] if segment.rle is None else segment.rle
    return {
        "category_id": segment.class_id + 1,
        "iscrowd": int(segment.is_crowd),
        "area": segment.area,
        "bbox": [int(value) for value in box] if segment.box is None else list(segment.box),
        "segmentation": {"size": [sample.height, sample.width], "counts": counts.decode("ascii")},
    }


EXPORT = Export(
    name="coco",
    summary="COCO JSON of objects with run lengths, keypoints too",
    needs=Annotation.SEGMENTS,
    keeps=(Annotation.SEGMENTS, Annotation.KEYPOINTS),
    write=write,
    read_back=("coco", {"annotations": "annotations/{split}.json", "images": "images/{split}"}),
)
