"""YOLO's text labels of objects: `class x1 y1 x2 y2 ...` in 0..1, a file for each image, an object a line; data.yaml.

Source: docs.ultralytics.com/datasets/segment. Each polygon runs along the edges of pixels, so that source `yolo` fills
the very same ones; holes and separate parts hang on it by bridges, as Ultralytics' own converter joins parts. The
format has no crowds.
"""

from __future__ import annotations

from segpipe import masks, storage
from segpipe.errors import InputError
from segpipe.exports.naming import Stems, ending_of
from segpipe.exports.spec import Export, Outcome, Splits
from segpipe.types import Annotation, Manifest, Sample

SPLITS = ("train", "val", "test")


def write(splits: Splits, manifest: Manifest, to: str) -> Outcome:
    """images/<split>/, labels/<split>/ and data.yaml; class numbers are class ids.

    Crowds, and objects without a pixel, are left out and counted. Raises InputError for a split that is unknown to the
    format, ConflictError.
    """
    if strange := [split for split in splits if split not in SPLITS]:
        raise InputError(
            f"split {strange[0]!r}: YOLO's data.yaml knows {', '.join(SPLITS)} only; name the dataset's splits so, or "
            "export as coco"
        )
    crowds = empty = 0
    stems = Stems(reserved=("images",))  # tools find the labels of a photograph by the last folder of this name
    for split, samples in splits.items():
        for sample in samples:
            stem, lines = stems.of(sample.sample_id, within=f"images/{split}"), list[str]()
            for segment in sample.segments:
                if segment.is_crowd:
                    crowds += 1
                    continue
                polygon = masks.polygon_of_mask(masks.mask_of(segment, sample))
                if len(polygon):
                    lines.append(_line(segment.class_id, polygon, sample))
                else:
                    empty += 1
            image = storage.join(to, "images", split, stem + ending_of(sample.image))
            storage.write_once(image, sample.image)
            # Also an empty one: without the file some tools take the image for one that nobody has labelled yet.
            storage.write_once(storage.join(to, "labels", split, f"{stem}.txt"), "".join(lines).encode())
    storage.write_once(storage.join(to, "data.yaml"), _data_yaml(splits, manifest).encode())
    counted = (
        (crowds, "crowd region", "crowd regions"),
        (empty, "object without a pixel", "objects without a pixel"),
    )
    unfit = tuple(f"{count} {one if count == 1 else many}" for count, one, many in counted if count)
    return Outcome(renamed=stems.renamed, unfit=unfit)


def _line(class_id: int, polygon: masks.Points, sample: Sample) -> str:
    """The last digit is a hundredth of a pixel at most: a fifth is what the rasteriser tells apart."""
    digits = max(6, len(str(max(sample.height, sample.width))) + 2)
    numbers = (f"{x / sample.width:.{digits}f} {y / sample.height:.{digits}f}" for x, y in polygon.tolist())
    return f"{class_id} {' '.join(numbers)}\n"


def _data_yaml(splits: Splits, manifest: Manifest) -> str:
    """Without `path`: the folders are then looked for beside the file, wherever it is moved to."""
    places = [f"{split}: images/{split}" for split in SPLITS if split in splits]
    names = [f"  {class_id}: {_quoted(info.name)}" for class_id, info in enumerate(manifest.classes)]
    things = [int(info.is_thing) for info in manifest.classes]
    # COCO's word, which YOLO's tools pass over: without it a background would come back as an object.
    stuff = [] if all(things) else [f"isthing: {things}"]
    return "\n".join([*places, f"nc: {len(names)}", "names:", *names, *stuff, ""])


def _quoted(name: str) -> str:
    """A name as YAML's double-quoted scalar: names come from data, and `no` is a name here."""
    escaped = (c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in name)
    return f'"{"".join(escaped)}"'


EXPORT = Export(
    name="yolo",
    summary="YOLO text labels of objects: images/, labels/, data.yaml",
    needs=Annotation.SEGMENTS,
    keeps=(Annotation.SEGMENTS,),
    write=write,
    read_back=("yolo", {}),
)
