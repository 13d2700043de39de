"""A dataset version -> files of a common format, so that nobody is locked in. `EXPORTS` is the table.

    naming.py  how a sample's files are called
    folder.py  images/, masks/, classes.json and split lists: what source `folder` reads
    coco.py    COCO's JSON of objects, with run lengths
    voc.py     PASCAL VOC's folders, with single objects
    yolo.py    YOLO's text files of polygons

The mirror of `sources/`: what an export `keeps` is the same when it is ingested again, images and splits with it.
Groups (drives, patients) no format holds. Files are written once and never overwritten.
"""

from segpipe.exports import coco, folder, voc, yolo
from segpipe.exports.spec import Export

EXPORTS: dict[str, Export] = {
    "coco": coco.EXPORT,
    "folder": folder.EXPORT,
    "voc": voc.EXPORT,
    "yolo": yolo.EXPORT,
}

__all__ = ["EXPORTS", "Export"]
