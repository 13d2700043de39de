"""What models answer from outside: plain data of the form that the registered model's signature says."""

import io
import json
from typing import Any, get_args

import numpy as np
import pytest

from segpipe.answers import answer_of, form_of
from segpipe.masks import decode_rle, encode_rle
from segpipe.predictions import Detections, LabelMap, PanopticMap, Prediction
from segpipe.tracking.model_folder import signature
from segpipe.types import AnswerForm, Segment

# MLflow's own classes, at the import of pyfunc, which only happens below.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

MASK = np.eye(3, 4, dtype=np.uint8)
OBJECTS = Detections(
    size=(3, 4),
    class_ids_N=np.array([7]),
    scores_N=np.array([0.5]),
    boxes_N4=np.array([[0.0, 0, 3, 3]]),
    masks=(encode_rle(MASK)["counts"],),
)
BOXES = Detections(
    size=(3, 4), class_ids_N=np.array([7]), scores_N=np.array([0.5]), boxes_N4=np.array([[0.0, 0, 3, 3]])
)
SEGMENTS = PanopticMap(ids_HW=MASK.astype(np.int32) * 5, segments=(Segment(segment_id=5, class_id=1, area=3.0),))


@pytest.mark.parametrize("kind", get_args(Prediction))
def test_every_kind_of_prediction_has_a_form_that_mlflow_reads(kind: type[Prediction]) -> None:
    form = form_of(kind, 3)
    assert form.usage.partition(" = model.predict(images)\n# images: uint8 (N, H, W, 3) RGB")[1]
    assert max(len(line) for line in form.usage.splitlines()) <= 80, "MLflow cuts off what is wider"
    made = signature(form)
    assert [spec["name"] for spec in made.outputs.to_dict()] == [column["name"] for column in form.columns]
    assert type(made).from_dict(made.to_dict()) == made


@pytest.mark.parametrize("found", [OBJECTS, BOXES, SEGMENTS], ids=["objects", "boxes", "panoptic"])
def test_an_answer_has_its_form_and_survives_the_server(found: Prediction) -> None:
    from mlflow.pyfunc.scoring_server import predictions_to_json

    form, sent = form_of(type(found), 3), io.StringIO()
    predictions_to_json([answer_of(found)], sent)
    (answer,) = json.loads(sent.getvalue())["predictions"]
    required = {column["name"] for column in form.columns if column["required"]}
    assert required <= answer.keys() <= {column["name"] for column in form.columns}
    for column in form.columns:
        assert column["name"] not in answer or fits(answer[column["name"]], column), column["name"]


def fits(value: Any, kind: Any) -> bool:
    """Whether JSON is of a type as MLflow spells it."""
    if kind["type"] == "array":
        return isinstance(value, list) and all(fits(item, kind["items"]) for item in value)
    if kind["type"] == "object":
        known = kind["properties"]
        return value.keys() == known.keys() and all(fits(value[name], known[name]) for name in known)
    return type(value) in {"long": (int,), "double": (float,), "string": (str,)}[kind["type"]]


def test_masks_come_back_from_their_run_lengths() -> None:
    (mask,) = answer_of(OBJECTS)["masks"]
    assert np.array_equal(decode_rle(mask, 3, 4), MASK)
    assert "masks" not in answer_of(BOXES)


def test_class_ids_are_as_wide_as_they_must_be() -> None:
    def width(form: AnswerForm) -> str:
        (column,) = form.columns
        return str(column["tensor-spec"]["dtype"])

    assert (width(form_of(LabelMap, 255)), width(form_of(LabelMap, 256))) == ("uint8", "int32")
    assert answer_of(LabelMap(ids_HW=MASK)) is MASK
