"""Proposals as Label Studio has them: tasks with predictions, and the labelling configuration of the project.

Source: labelstud.io/guide/task_format and /guide/predictions. What a model proposes goes into `predictions`, which the
program shows to a person and which no reader counts as an answer: these are `annotations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from segpipe import masks
from segpipe.types import ClassInfo

BRUSH, POLYGON, IMAGE = "brush", "polygon", "image"  # names of the configuration's tags


def task(
    data: Mapping[str, Any],
    proposals: Sequence[Mapping[str, Any]],
    *,
    size: tuple[int, int],
    classes: Sequence[ClassInfo],
    model: str,
    confidence: float,
) -> dict[str, Any]:
    """One task. `data` has `image`, where the program finds it, and what people and programs may sort by; `proposals`
    are COCO's annotations with run lengths, in the order in which they lie over each other."""
    height, width = size
    result = [
        {
            "id": f"proposal-{number}",
            "type": "brushlabels",
            "from_name": BRUSH,
            "to_name": IMAGE,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": masks.encode_brush(masks.decode_rle(entry["segmentation"], height, width)),
                "brushlabels": [classes[entry["category_id"] - 1].name],
            },
        }
        for number, entry in enumerate(proposals, start=1)
    ]
    prediction = {"model_version": model, "score": confidence, "result": result}
    return {"data": dict(data), "predictions": [prediction]}


def labelling_config(classes: Sequence[ClassInfo]) -> str:
    """The XML of the project: every class as a label of a brush and of a polygon, in the order of the class ids.

    Its hint says whether a class is a thing, by which source `label_studio` reads it back.
    """
    labels = "\n".join(
        f"    <Label value={quoteattr(info.name)} background={quoteattr(_hex(info.colour))} "
        f'hint="{"thing" if info.is_thing else "stuff"}"/>'
        for info in classes
    )
    return (
        "<View>\n"
        '  <Header value="$why"/>\n'
        f'  <Image name="{IMAGE}" value="$image" zoom="true" zoomControl="true"/>\n'
        f'  <BrushLabels name="{BRUSH}" toName="{IMAGE}">\n{labels}\n  </BrushLabels>\n'
        f'  <PolygonLabels name="{POLYGON}" toName="{IMAGE}">\n{labels}\n  </PolygonLabels>\n'
        "</View>\n"
    )


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
