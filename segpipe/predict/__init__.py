"""A model asked about images that nobody has scored: the one prediction loop, and what its answers become.

    loop.py    images -> decoded, in batches of one size -> predictions, in order; bad ones are told and passed over
    files.py   a prediction -> PNG files: masks in a palette, overlays, numbered instances, cut-outs
    coco.py    predictions -> COCO's JSON
    rows.py    a prediction -> a sample of a dataset version, for Parquet

Between `tasks/` and `stages/predict.py`, `stages/predict_dataset.py`. `evaluate.py` is the loop that scores.
"""

from segpipe.predict.coco import document, entries
from segpipe.predict.files import check_colours, class_ids, counts, cutout, instances, mask, overlay
from segpipe.predict.loop import (
    Answer,
    Asked,
    Model,
    Picture,
    Refused,
    answers,
    check_model,
    levels_of,
    load,
    look_at,
    tells_doubt,
    tells_probabilities,
)
from segpipe.predict.rows import FILLS, sample_with

__all__ = [
    "FILLS",
    "Answer",
    "Asked",
    "Model",
    "Picture",
    "Refused",
    "answers",
    "check_colours",
    "check_model",
    "class_ids",
    "counts",
    "cutout",
    "document",
    "entries",
    "instances",
    "levels_of",
    "load",
    "look_at",
    "mask",
    "overlay",
    "sample_with",
    "tells_doubt",
    "tells_probabilities",
]
