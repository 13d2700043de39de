"""What a model answers to whoever asks it from outside: predictions as plain data, and the form of question and answer.

    prediction -> plain data -> MLflow's pyfunc, JSON
    type of prediction -> AnswerForm -> signature and description of the registered model

Beside `predictions.py`, whose types it goes by; a new type is a line in _ANSWERS and one in `answer_of`.

Legend: N images or objects, H W size in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from segpipe.predictions import Detections, LabelMap, PanopticMap, Poses, Prediction
from segpipe.types import AnswerForm

UNCERTAINTY = "uncertainty"  # the parameter by which a model of samples is asked for it, and its name in the answer
MASK, AUTO = "mask", "auto"  # the parameter that says what masks come as; by itself png of files, ids of arrays
_INPUT = "uint8 (N, H, W, 3) RGB of any size"
_IMAGES = [[[[0, 0, 0], [255, 255, 255]]]]  # one, of a black and a white pixel


_PARAMS = ({"name": MASK, "type": "string", "default": AUTO, "shape": None},)
_SAMPLED_PARAMS = ({"name": UNCERTAINTY, "type": "boolean", "default": False, "shape": None},)
# Lines of a page that MLflow does not wrap: what is wider than some 80 letters is cut off there.
_ASKED_MORE = (
    f'# params={{"{UNCERTAINTY}": True}}: labels and uncertainty of each image,\n'
    "#   the variance of class probabilities, 0 to 0.25"
)
_FILES = (
    "# JPEG and PNG files go in as a numpy.array of base64 text, and come back as\n"
    f'#   masks (PNG), classes, areas, confidences; params={{"{MASK}": "png"}}, "rle"\n'
    '#   or "ids" chooses the masks of files and arrays'
)


class _Told(NamedTuple):
    """What is told beside images: what it means, and of the image above."""

    meaning: str
    example: Any


_TOLD = {
    "boxes": _Told("of each image a list of [x0, y0, x1, y1] in pixels", [[[0, 0, 2, 1]]]),
    "class_ids": _Told("of each image a list, one a box", [[0]]),
}


def answer_of(found: Prediction, *, uncertainty: bool = False) -> Any:
    """One image's answer, ready for JSON: class ids (H, W), or plain numbers and COCO's run lengths by name.

    With `uncertainty`, which a model of samples knows: its class ids as "labels", beside how unsure it is.
    """
    if isinstance(found, LabelMap):
        return {"labels": found.ids_HW, UNCERTAINTY: found.uncertainty_HW} if uncertainty else found.ids_HW
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


def form_of(kind: type[Prediction], num_classes: int, *, told: Sequence[str] = (), sampled: bool = False) -> AnswerForm:
    """The form of the questions and answers of a model that gives predictions of this kind.

    `told` names what it must be told beside the images (`TaskOps.told`), a list an image: "boxes", [x0, y0,
    x1, y1] in pixels of each object, and "class_ids" of these. One that is `sampled` can be asked how unsure it is.
    """
    name, said, columns = _ANSWERS[kind]
    if kind is LabelMap:
        # One array of all images, and not a dict of each: MLflow calls it a tensor.
        labels = {"dtype": "uint8" if num_classes <= 255 else "int32", "shape": [-1, -1, -1]}
        columns = ({"type": "tensor", "tensor-spec": labels, "name": "labels"},)
    # What MLflow calls an array of anything: of bytes, of base64 text, of images of several sizes. What it holds is
    # checked behind it, and refused in one sentence.
    images = {"type": "tensor", "tensor-spec": {"dtype": "object", "shape": [-1]}}
    taken, given = f"# images: {_INPUT}", f"# {name}: {said}"
    if not told:
        asked = f"{name} = model.predict(images)"
        # Without a name, so that a plain array and a plain JSON list are taken as they are.
        return AnswerForm(
            usage="\n".join([asked, taken, given, *([_ASKED_MORE] if sampled else ()), _FILES]),
            request=json.dumps({"inputs": _IMAGES}),
            inputs=(images,),
            columns=columns,
            params=(*_PARAMS, *(_SAMPLED_PARAMS if sampled else ())),
        )
    # Images have objects of any number: a list for each of them.
    named = ", ".join(f'"{each}": {each}' for each in ("images", *told))
    asked = f"{name} = model.predict({{{named}}})"
    notes = (f"# {each}: {_TOLD[each].meaning}" for each in told)
    return AnswerForm(
        usage="\n".join([asked, taken, *notes, given, _FILES]),
        request=json.dumps({"inputs": {"images": _IMAGES, **{each: _TOLD[each].example for each in told}}}),
        inputs=tuple({**images, "name": each} for each in ("images", *told)),
        columns=columns,
        params=_PARAMS,
    )


def _list_of(items: Mapping[str, Any], **column: Any) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **column}


def _object_of(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {**kind, "required": True} for name, kind in properties.items()}}


def _run_lengths(found: Detections, mask: bytes) -> dict[str, Any]:
    return {"size": list(found.size), "counts": mask.decode("ascii")}


_WHOLE, _REAL, _TEXT = ({"type": name} for name in ("long", "double", "string"))
# As MLflow writes a signature: https://mlflow.org/docs/latest/ml/model/signatures/
_ANSWERS: Mapping[type[Prediction], tuple[str, str, tuple[Mapping[str, Any], ...]]] = {
    LabelMap: ("labels", "class ids (N, H, W)", ()),
    Detections: (
        "objects",
        "class_ids, scores, boxes (and masks) of each image",
        (
            _list_of(_WHOLE, name="class_ids", required=True),
            _list_of(_REAL, name="scores", required=True),
            _list_of(_list_of(_REAL), name="boxes", required=True),
            _list_of(_object_of(size=_list_of(_WHOLE), counts=_TEXT), name="masks", required=False),
        ),
    ),
    PanopticMap: (
        "panoptic",
        "map of segment ids and segments of each image",
        (
            _list_of(_list_of(_WHOLE), name="map", required=True),
            _list_of(_object_of(id=_WHOLE, class_id=_WHOLE, area=_REAL), name="segments", required=True),
        ),
    ),
    Poses: (
        "poses",
        "class_ids, scores, boxes and points of each image",
        (
            _list_of(_WHOLE, name="class_ids", required=True),
            _list_of(_REAL, name="scores", required=True),
            _list_of(_list_of(_REAL), name="boxes", required=True),
            _list_of(_list_of(_list_of(_REAL)), name="points", required=True),
        ),
    ),
}
