"""images/, masks/, classes.json and split lists: the plainest format there is, read by source `folder`."""

from __future__ import annotations

from segpipe import storage
from segpipe.exports.naming import Stems, classes_json, ending_of, labels_of, map_to_png
from segpipe.exports.spec import Export, Outcome, Splits
from segpipe.types import Annotation, Manifest


def write(splits: Splits, manifest: Manifest, to: str) -> Outcome:
    """Masks hold class ids, and 255 (65535) where nothing is labelled. Raises InputError, ConflictError."""
    names = Stems()
    for split, samples in splits.items():
        stems = []
        for sample in samples:
            stem = names.of(sample.sample_id)
            storage.write_once(storage.join(to, "images", stem + ending_of(sample.image)), sample.image)
            mask = map_to_png(labels_of(sample), sample)
            storage.write_once(storage.join(to, "masks", f"{stem}.png"), mask)
            stems.append(stem)
        storage.write_once(storage.join(to, "splits", f"{split}.txt"), ("\n".join(stems) + "\n").encode())
    storage.write_once(storage.join(to, "classes.json"), classes_json(manifest.classes))
    return Outcome(renamed=names.renamed)


EXPORT = Export(
    name="folder",
    summary="images/, masks/ of class ids, classes.json, splits/*.txt",
    needs=Annotation.LABEL_MAP,
    keeps=(Annotation.LABEL_MAP,),
    write=write,
    read_back=("folder", {}),
)
