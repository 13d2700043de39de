"""images/, masks/, classes.json and split lists: the plainest format there is, read by source `folder`."""

from __future__ import annotations

import json

from segpipe import storage
from segpipe.exports.naming import ending_of, labels_of, map_to_png, stem_of
from segpipe.exports.spec import Export, Splits
from segpipe.types import Annotation, Manifest


def write(splits: Splits, manifest: Manifest, to: str) -> tuple[str, ...]:
    """Masks hold class ids, and 255 (65535) where nothing is labelled. Raises InputError, ConflictError."""
    for split, samples in splits.items():
        stems = []
        for sample in samples:
            stem = stem_of(sample.sample_id)
            storage.write_once(storage.join(to, "images", stem + ending_of(sample.image)), sample.image)
            mask = map_to_png(labels_of(sample), sample)
            storage.write_once(storage.join(to, "masks", f"{stem}.png"), mask)
            stems.append(stem)
        storage.write_once(storage.join(to, "splits", f"{split}.txt"), ("\n".join(stems) + "\n").encode())
    classes = [
        {"name": info.name, "id": class_id, "colour": list(info.colour), "thing": info.is_thing}
        for class_id, info in enumerate(manifest.classes)
    ]
    storage.write_once(storage.join(to, "classes.json"), (json.dumps(classes, indent=1) + "\n").encode())
    return ()


EXPORT = Export(
    name="folder",
    summary="images/, masks/ of class ids, classes.json, splits/*.txt",
    needs=Annotation.LABEL_MAP,
    keeps=(Annotation.LABEL_MAP,),
    write=write,
    read_back=("folder", {}),
)
