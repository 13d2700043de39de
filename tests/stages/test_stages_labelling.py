"""The folder of images for people to label: what a model proposes for each."""

from __future__ import annotations

import numpy as np
import pytest

from segpipe import masks
from segpipe.predict import Asked, Picture
from segpipe.predictions import Detections
from segpipe.stages import images, labelling
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")


def test_of_what_a_detector_lists_only_what_it_is_sure_of_is_proposed(shapes: Shapes) -> None:
    mask = masks.encode_rle(np.eye(4, dtype=np.uint8))["counts"]
    found = Detections(
        size=(4, 4),
        class_ids_N=np.array([1, 0, 1]),
        scores_N=np.array([0.9, 0.5, 0.4]),
        boxes_N4=np.array([[0.0, 0, 4, 4]] * 3),
        masks=(mask, mask, b"is not expanded"),
    )
    proposer = images.chosen_model(shapes.result.model_uri)
    folder = labelling.Folder(to="/out", format="coco", proposer=proposer, window=None, strategy="", models=())
    chosen = labelling.ChosenImage(rank=1, file="a", image="images/a", image_sha256="", score=1, group="", why="")
    image_HW3 = np.zeros((4, 4, 3), dtype=np.uint8)
    told = folder._proposed(chosen, Asked(Picture(file="a", image=b""), image_HW3, found))
    assert [(each["category_id"], each["score"]) for each in told["annotations"]] == [(2, 0.9), (1, 0.5)]
