"""PASCAL VOC's folders: palette PNGs of class ids, and of single objects where the dataset has them."""

from __future__ import annotations

from segpipe import storage
from segpipe.errors import InputError
from segpipe.exports.naming import ending_of, labels_of, map_to_png, palette_of, stem_of
from segpipe.exports.spec import Export, Splits
from segpipe.types import Annotation, Manifest

# VOC's folders are flat. No stem holds this sign, so two ids never share a file, as `a/b` and `a__b` would by "__".
IN_PLACE_OF_SLASH = "="


def write(splits: Splits, manifest: Manifest, to: str) -> tuple[str, ...]:
    """JPEGImages/, SegmentationClass/, SegmentationObject/ and ImageSets/Segmentation/; class names in class_names.txt.

    Raises InputError where an image is no JPEG or ids need 16 bits, ConflictError where another export lies there.
    """
    palette = palette_of(manifest.classes)
    with_objects = Annotation.SEGMENTS in manifest.annotations
    for split, samples in splits.items():
        stems = []
        for sample in samples:
            if ending_of(sample.image) != ".jpg":
                raise InputError(
                    f"sample {sample.sample_id!r} is a PNG, and VOC holds JPEG images only: export as folder or coco"
                )
            stem = stem_of(sample.sample_id).replace("/", IN_PLACE_OF_SLASH)
            storage.write_once(storage.join(to, "JPEGImages", f"{stem}.jpg"), sample.image)
            labels = map_to_png(labels_of(sample), sample, palette=palette)
            storage.write_once(storage.join(to, "SegmentationClass", f"{stem}.png"), labels)
            if with_objects and sample.segment_map is not None:
                objects = map_to_png(sample.segment_map, sample, palette=palette)
                storage.write_once(storage.join(to, "SegmentationObject", f"{stem}.png"), objects)
            stems.append(stem)
        lines = ("\n".join(stems) + "\n").encode()
        storage.write_once(storage.join(to, "ImageSets", "Segmentation", f"{split}.txt"), lines)
    names = "\n".join(info.name for info in manifest.classes) + "\n"
    storage.write_once(storage.join(to, "class_names.txt"), names.encode())
    return ()


EXPORT = Export(
    name="voc",
    summary="PASCAL VOC folders: JPEGImages/, SegmentationClass/, SegmentationObject/, ImageSets/",
    needs=Annotation.LABEL_MAP,
    keeps=(Annotation.LABEL_MAP,),
    write=write,
    read_back=(
        "folder",
        {
            "images": "JPEGImages",
            "masks": "SegmentationClass",
            "splits": "ImageSets/Segmentation",
            "classes": "class_names.txt",
        },
    ),
)
