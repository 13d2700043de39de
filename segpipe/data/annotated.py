"""What nobody has annotated is no image without objects: it is refused where it would be learnt from or scored by.

Sits between `shards/` and `decode.py`, on both ways of `loader.py`.
"""

from __future__ import annotations

from segpipe.errors import InputError
from segpipe.shards import Dataset
from segpipe.types import Annotation, Sample


def annotated(sample: Sample, dataset: Dataset, split: str) -> Sample:
    """The sample of a split, where somebody has annotated it.

    In a dataset that fills label maps a sample without one, such as a frame between two that were drawn, is one that
    nobody looked at; in one that does not (COCO, YOLO), an image without objects lacks nothing. Raises InputError with
    how many of the split there are: nothing is looked up before there is one.
    """
    if sample.label_map is None and Annotation.LABEL_MAP in dataset.manifest.annotations:
        labelled = dataset.labelled(split)
        raise InputError(
            f"{dataset.uri}: sample {sample.sample_id!r} of split {split!r} has no label map, as "
            f"{labelled.count(False)} of its {len(labelled)}: nobody annotated them, which is not to say that they are "
            "empty. Ingest the annotated samples alone (source `frames`: option unlabelled=false), or choose another "
            "split"
        )
    return sample
