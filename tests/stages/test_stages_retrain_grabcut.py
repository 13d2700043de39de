"""A night of GrabCut: told by the truth's boxes, scored by masks, and never compared with who finds boxes itself."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from segpipe import checkpoint
from segpipe.errors import InputError
from segpipe.masks import decode_rle
from segpipe.stages import nights, preflight
from tests.stages.toy_night import SCENES, Told, recipe, surroundings, tell

pytestmark = pytest.mark.xdist_group("nights")

DOCUMENT: dict[str, Any] = {
    **SCENES,
    "name": "toy-grabcut",
    "task": "instance",
    "architectures": [
        {"arch": "grabcut"},
        {"arch": "grabcut", "label": "once", "options": {"iterations": 1}, "train": {"input_scale": 2.0}},
    ],
}


@pytest.fixture(scope="module")
def night(home: Path) -> Told:
    with surroundings(home):
        return tell(recipe(document=DOCUMENT))


def test_its_reports_say_that_boxes_were_given(home: Path, night: Told) -> None:
    assert night.result.failures == {}
    assert night.result.verdict.outcome == "promoted"
    with surroundings(home):
        _, found = nights.last("toy-grabcut")
        assert {report.label for report in found} == {"grabcut", "once"}
        for report in found:
            assert report.protocol.endswith("/ignore=crowds/boxes=given")
            assert report.metrics["ap/coco/bbox"] == pytest.approx(1.0)
            assert 0.05 < report.metrics["ap50/coco/segm"] <= 1.0
            model, bundle = checkpoint.load_model(report.checkpoint)
            assert (dict(model.state_dict()), report.parameters, bundle.arch) == ({}, 0, "grabcut")
    assert len({report.weights_sha256 for report in found}) == 2, "the same nothing, used in two ways"


def test_it_is_refused_beside_a_model_that_finds_objects() -> None:
    both = [{"arch": "grabcut"}, {"arch": "mask_rcnn"}]
    with pytest.raises(InputError, match="grabcut is given the boxes of objects, and mask_rcnn must find them: their"):
        preflight.check(recipe(document={**DOCUMENT, "architectures": both}))
    with pytest.raises(InputError, match=r"architectures.0.train: grabcut learns by nothing and would ignore epochs"):
        preflight.check(recipe(document={**DOCUMENT, "architectures": [{**both[0], "train": {"epochs": 2}}]}))


def test_served_it_answers_the_boxes_of_a_request(home: Path, night: Told) -> None:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    try:
        served = mlflow.pyfunc.load_model("models:/toy-grabcut@champion")
    finally:
        mlflow.set_tracking_uri(before)
    images_NHW3 = np.full((2, 40, 50, 3), 30, np.uint8)
    images_NHW3[0, 12:30, 10:24] = 220
    images_NHW3 += np.random.default_rng(0).integers(0, 8, images_NHW3.shape, dtype=np.uint8)
    asked = {"images": images_NHW3, "boxes": [[[6.0, 8.0, 28.0, 35.0]], []], "class_ids": [[4], []]}
    told = ragged(asked["boxes"]), ragged(asked["class_ids"])
    first, second = served.predict({"images": images_NHW3, "boxes": told[0], "class_ids": told[1]})
    assert first["boxes"] == [[6.0, 8.0, 28.0, 35.0]]
    assert first["class_ids"] == [4]
    mask_HW = decode_rle(first["masks"][0], 40, 50)
    assert mask_HW[12:30, 10:24].mean() > 0.98
    assert mask_HW[11:31, 9:25].sum() == mask_HW.sum(), (
        "a pixel further at most, where enlarging has blurred the border"
    )
    assert second == {"boxes": [], "class_ids": [], "scores": [], "masks": []}
    with pytest.raises(MlflowException):
        served.predict(images_NHW3)


def ragged(lists: list[Any]) -> np.ndarray:
    found = np.empty(len(lists), dtype=object)
    found[:] = lists
    return found
