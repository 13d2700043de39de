"""A dataset version -> files of a common format, so that nobody is locked in. `EXPORTS` is the table.

    naming.py  how a sample's files are called
    folder.py  images/, masks/, classes.json and split lists: what source `folder` reads
    coco.py    COCO's JSON of objects, with run lengths
    voc.py     PASCAL VOC's folders, with single objects

The mirror of `sources/`: what is exported and ingested again holds the same images, labels and splits. Files are
written once and never overwritten.
"""

from segpipe.exports import coco, folder, voc
from segpipe.exports.spec import Export

EXPORTS: dict[str, Export] = {
    "coco": coco.EXPORT,
    "folder": folder.EXPORT,
    "voc": voc.EXPORT,
}

__all__ = ["EXPORTS", "Export"]
