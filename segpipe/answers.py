"""What a model answers to whoever asks it from outside: predictions as plain data, and the form that they have.

    prediction -> plain data -> MLflow's pyfunc, JSON
    type of prediction -> AnswerForm -> signature and description of the registered model

Beside `predictions.py`, whose types it goes by; a new type is a line in FORMS and one in `answer_of`.

Legend: N images or objects, H W size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segpipe.predictions import Detections, LabelMap, PanopticMap, Poses, Prediction
from segpipe.types import AnswerForm

_INPUT = "uint8 (N, H, W, 3) RGB of any size"


def answer_of(found: Prediction) -> Any:
    """One image's answer, ready for JSON: class ids (H, W), or plain numbers and COCO's run lengths by name."""
    if isinstance(found, LabelMap):
        return found.ids_HW
    if isinstance(found, PanopticMap):
        segments = [{"id": s.segment_id, "class_id": s.class_id, "area": s.area} for s in found.segments]
        return {"map": found.ids_HW.tolist(), "segments": segments}
    answer = {
        "class_ids": found.class_ids_N.tolist(),
        "scores": found.scores_N.tolist(),
        "boxes": found.boxes_N4.tolist(),
    }
    if isinstance(found, Poses):
        return answer | {"points": found.points_NP3.tolist()}
    return answer | ({} if found.masks is None else {"masks": [_run_lengths(found, mask) for mask in found.masks]})


def form_of(kind: type[Prediction], num_classes: int) -> AnswerForm:
    """The form of the answers of a model that gives predictions of this kind."""
    if kind is LabelMap:
        # One array of all images, and not a dict of each: MLflow calls it a tensor.
        labels = {"dtype": "uint8" if num_classes <= 255 else "int32", "shape": [-1, -1, -1]}
        return AnswerForm(
            usage=f"labels = model.predict(images)  # {_INPUT} -> class ids (N, H, W)",
            columns=({"type": "tensor", "tensor-spec": labels, "name": "labels"},),
        )
    return FORMS[kind]


def _list_of(items: Mapping[str, Any], **column: Any) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **column}


def _object_of(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {**kind, "required": True} for name, kind in properties.items()}}


def _run_lengths(found: Detections, mask: bytes) -> dict[str, Any]:
    return {"size": list(found.size), "counts": mask.decode("ascii")}


_WHOLE, _REAL, _TEXT = ({"type": name} for name in ("long", "double", "string"))
# As MLflow writes a signature: https://mlflow.org/docs/latest/ml/model/signatures/
FORMS: Mapping[type[Prediction], AnswerForm] = {
    Detections: AnswerForm(
        usage=f"objects = model.predict(images)  # {_INPUT} -> class_ids, scores, boxes (and masks) of each image",
        columns=(
            _list_of(_WHOLE, name="class_ids", required=True),
            _list_of(_REAL, name="scores", required=True),
            _list_of(_list_of(_REAL), name="boxes", required=True),
            _list_of(_object_of(size=_list_of(_WHOLE), counts=_TEXT), name="masks", required=False),
        ),
    ),
    PanopticMap: AnswerForm(
        usage=f"panoptic = model.predict(images)  # {_INPUT} -> map of segment ids and segments of each image",
        columns=(
            _list_of(_list_of(_WHOLE), name="map", required=True),
            _list_of(_object_of(id=_WHOLE, class_id=_WHOLE, area=_REAL), name="segments", required=True),
        ),
    ),
    Poses: AnswerForm(
        usage=f"poses = model.predict(images)  # {_INPUT} -> class_ids, scores, boxes and points of each image",
        columns=(
            _list_of(_WHOLE, name="class_ids", required=True),
            _list_of(_REAL, name="scores", required=True),
            _list_of(_list_of(_REAL), name="boxes", required=True),
            _list_of(_list_of(_list_of(_REAL)), name="points", required=True),
        ),
    ),
}
