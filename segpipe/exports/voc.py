"""PASCAL VOC's folders: palette PNGs of class ids, and of single objects where the dataset has them."""

from __future__ import annotations

from segpipe import storage
from segpipe.exports.naming import Stems, classes_json, ending_of, labels_of, map_to_png, palette_of
from segpipe.exports.spec import Export, Outcome, Splits
from segpipe.types import Annotation, Manifest


def write(splits: Splits, manifest: Manifest, to: str) -> Outcome:
    """JPEGImages/, SegmentationClass/, SegmentationObject/ and ImageSets/Segmentation/; the classes as names alone in
    class_names.txt, where tools look for them, and with colours and things in classes.json.

    Images are written as they were shipped, a PNG with its own ending: a JPEG of it would hold other pixels, and the
    sets in VOC's folders that hold PNG do the same. Raises InputError where ids need 16 bits, ConflictError where
    another export lies there.
    """
    palette = palette_of(manifest.classes)
    with_objects = Annotation.SEGMENTS in manifest.annotations
    names, others = Stems(flat=True), 0  # VOC's folders are flat
    for split, samples in splits.items():
        stems = []
        for sample in samples:
            stem, ending = names.of(sample.sample_id), ending_of(sample.image)
            others += ending != ".jpg"
            storage.write_once(storage.join(to, "JPEGImages", stem + ending), sample.image)
            labels = map_to_png(labels_of(sample), sample, palette=palette)
            storage.write_once(storage.join(to, "SegmentationClass", f"{stem}.png"), labels)
            if with_objects and sample.segment_map is not None:
                objects = map_to_png(sample.segment_map, sample, palette=palette)
                storage.write_once(storage.join(to, "SegmentationObject", f"{stem}.png"), objects)
            stems.append(stem)
        lines = ("\n".join(stems) + "\n").encode()
        storage.write_once(storage.join(to, "ImageSets", "Segmentation", f"{split}.txt"), lines)
    lines = "".join(f"{' '.join(info.name.split())}\n" for info in manifest.classes).encode()
    storage.write_once(storage.join(to, "class_names.txt"), lines)
    storage.write_once(storage.join(to, "classes.json"), classes_json(manifest.classes))
    what = "1 image is a PNG" if others == 1 else f"{others} images are PNG"
    note = f"{what}, as shipped, and ends in .png: a tool that expects JPEGImages/*.jpg alone must be told"
    return Outcome(renamed=names.renamed, notes=(note,) if others else ())


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
            "classes": "classes.json",
        },
    ),
)
